"""The rim of every request, around Litestar: id, span, token, time limit, and the log line.

What belongs here: what holds for all routes, those that do not exist included. A route that is not
listed as PUBLIC needs a token: forgetting one cannot open a door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any, TypeGuard, cast

import structlog
from litestar.types import (
    ASGIApp,
    HTTPReceiveMessage,
    HTTPScope,
    Message,
    Receive,
    Scope,
    Send,
    WebSocketReceiveMessage,
)
from structlog.contextvars import bound_contextvars

from chassis import tracing
from services.gateway import decide
from services.gateway.answers import Refused, of_refusal, of_status, rendered
from services.gateway.asked import CONTEXT, Context, has_body
from services.gateway.desk import Desk, Slots
from services.gateway.model import Caller, Refusal

log = structlog.get_logger()

LIVE = "/health/live"
PUBLIC = frozenset({LIVE, "/health/ready"})
"""What needs no token."""

_ALWAYS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Edge:
    """The ASGI application that the server runs; `app` is Litestar's."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk
        self._slots = Slots(desk.settings.limits.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_http(scope):
            return
        request = decide.request_id(_header(scope, b"x-request-id"), self._desk.rig.ids.new())
        name = f"{scope['method']} {_first_two(scope['path'])}"
        came_from = _header(scope, b"traceparent")
        attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with (
            bound_contextvars(request=request),
            tracing.span(name, kind="server", traceparent=came_from, attributes=attributes) as span,
        ):
            exchange = _Exchange(self._desk, request, receive, send)
            exchange.received = not has_body(scope)
            await self._answer(scope, exchange)
            span.set_attribute("http.response.status_code", exchange.status)
            exchange.log(scope["method"], scope["path"])

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        """Let the application answer, within its time."""
        try:
            async with asyncio.timeout(self._desk.settings.limits.request_s) as limit:
                exchange.limit = limit
                await self._enter(scope, exchange)
        except TimeoutError:
            await self._late(scope, exchange)

    async def _enter(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            caller = self._caller(scope)
            with self._slot(scope["path"]):
                context = Context(request=exchange.request, caller=caller, extend=exchange.extend)
                cast(dict[str, Any], scope)[CONTEXT] = context
                exchange.caller = caller
                await self._app(scope, exchange.receive, exchange.send)
        except Refused as refused:
            await self._refuse(refused.refusal, scope, exchange)

    def _slot(self, path: str) -> AbstractContextManager[None]:
        if path == LIVE:
            return nullcontext()
        return self._slots.one(self._desk.away("Too many requests are in hand."))

    def _caller(self, scope: Scope) -> Caller | None:
        """Who asks; None where nobody has to say. Raises Refused."""
        if scope["path"] in PUBLIC:
            return None
        tokens = self._desk.tokens
        if not tokens.ready:
            raise self._desk.away("The tokens have not been read yet.")
        found = decide.authenticate(_header(scope, b"authorization"), tokens.by_hash)
        if isinstance(found, Refusal):
            raise Refused(found)
        return found

    async def _late(self, scope: Scope, exchange: _Exchange) -> None:
        """Time is up: say so, unless the answer has begun; then the connection ends with it."""
        if exchange.status:
            log.warning("request_cut_off", path=scope["path"])
            return
        problem = of_status(504 if exchange.received else 408, "The request took too long.")
        await self._refuse(Refusal(problem=problem), scope, exchange)

    async def _refuse(self, refusal: Refusal, scope: Scope, exchange: _Exchange) -> None:
        answer = rendered(of_refusal(refusal, exchange.request))
        await answer(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request on its way: what came in, what went out, how long it may take."""

    def __init__(self, desk: Desk, request: str, receive: Receive, send: Send) -> None:
        self.request = request
        self.caller: Caller | None = None
        self.status = 0
        self.received = False
        self.limit: asyncio.Timeout | None = None
        self._desk = desk
        self._receive = receive
        self._send = send
        self._began = desk.rig.clock.monotonic()

    async def receive(self) -> HTTPReceiveMessage | WebSocketReceiveMessage:
        message = await self._receive()
        self.received = self.received or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send, with the headers that every answer has; the client gets `send_s` to take it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [*_ALWAYS, (b"x-request-id", self.request.encode())]
            message["headers"] = _merged(message["headers"], own)
        self._reschedule(self._desk.settings.limits.send_s)
        await self._send(message)
        if message["type"] == "http.response.body" and message["more_body"]:
            self._reschedule(None)

    def extend(self, seconds: float | None) -> None:
        """More time for this request: so many seconds more than a request has; None: no limit."""
        share_s = self._desk.settings.limits.request_s
        self._reschedule(None if seconds is None else share_s + seconds)

    def _reschedule(self, seconds: float | None) -> None:
        if self.limit is not None and not self.limit.expired():
            now = asyncio.get_running_loop().time()
            self.limit.reschedule(None if seconds is None else now + seconds)

    def log(self, method: str, path: str) -> None:
        """What went well is quiet: an operation that was accepted has a line of its own, and reads are
        many."""
        tell = log.info if self.status >= HTTPStatus.BAD_REQUEST else log.debug
        tell(
            "request_answered",
            method=method,
            path=path,
            status=self.status,
            caller=self.caller.actor if self.caller is not None else "",
            seconds=round(self._desk.rig.clock.monotonic() - self._began, 6),
        )


def _merged(
    given: Iterable[tuple[bytes, bytes]], own: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    given = list(given)
    names = {name.lower() for name, _ in given}
    return [*given, *(pair for pair in own if pair[0] not in names)]


def _is_http(scope: Scope) -> TypeGuard[HTTPScope]:
    return str(scope["type"]) == "http"


def _header(scope: Scope, name: bytes) -> str | None:
    """A header's value; None if it is missing or there are several."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _first_two(path: str) -> str:
    """`/v1/vms`: enough of the path to name a span, few enough to count them."""
    return "/".join(path.split("/")[:3])[:100]
