"""The connection that never ends: dials for ever, and puts every subscription back after a loss.

What belongs here: the connection's life, raw publish, subscribe and call. What doesn't: JetStream.

nats-py is used for one connection's life only, without its own reconnecting. Its publish never
suspends then (no forced flush, which would swallow cancellation), nothing stale is sent after a
reconnection, and there is one way back from everything that can end a connection.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.nuid import NUID

from chassis.bus import BusError, NoResponders, Unavailable
from chassis.nats.client import FastClient, Receive, Route
from chassis.nats.dial import abandon, dial
from chassis.nats.messages import status_of, wire_size
from chassis.nats.settings import NatsSettings

log = structlog.get_logger(__name__)

REFUSED = (
    nats.errors.BadSubjectError,
    nats.errors.BadHeaderError,
    nats.errors.MaxPayloadError,
)
NO_RESPONDERS = 503
CLOSED_POLL_S = 0.25
DRAIN_S = 1.0


class Link:
    """Owns the connection. `run` has to be running for anything to happen."""

    def __init__(self, settings: NatsSettings, *, name: str) -> None:
        self.settings = settings
        self._name = name
        self._client: FastClient | None = None
        self._up = asyncio.Event()
        self._routes: dict[Route, int] = {}
        self._listeners: dict[object, Callable[[], None]] = {}
        self._calls: dict[str, asyncio.Future[Msg]] = {}
        self._tokens = itertools.count()
        self._inbox = self.new_inbox()

    @property
    def connected(self) -> bool:
        return self._client is not None and self._up.is_set() and not self._client.is_closed

    @property
    def max_payload(self) -> int:
        return self._client.max_payload if self._client is not None else 1024 * 1024

    def new_inbox(self) -> str:
        return f"{self.settings.inbox_prefix}.{NUID().next().decode()}"

    async def run(self) -> None:
        """Dial, serve until the connection ends, again. Ends by cancellation."""
        answers = Route(f"{self._inbox}.*", "", self._on_answer)
        self._routes[answers] = 0
        while True:
            client, closed = await self._dial_until_connected()
            try:
                _honour_cancellation()
                await self._bring_up(client)
                await _until_closed(client, closed)
            except (OSError, nats.errors.Error) as error:
                log.warning("bus_connection_failed", error=_text(error))
            except asyncio.CancelledError:
                self._up.clear()  # closed on purpose: nothing to warn of
                raise
            finally:
                self._take_down()
                await abandon(client)

    async def up(self) -> None:
        """Wait until there is a connection."""
        await self._up.wait()

    @contextmanager
    def whenever_up(self, react: Callable[[], None]) -> Iterator[None]:
        """Call `react` after every (re)connection, subscriptions being back."""
        token = object()
        self._listeners[token] = react
        try:
            yield
        finally:
            del self._listeners[token]

    @asynccontextmanager
    async def subscribed(
        self, subject: str, receive: Receive, *, queue: str = ""
    ) -> AsyncIterator[None]:
        """Hand every message on `subject` to `receive`, over as many connections as it takes."""
        route = Route(subject, queue, receive)
        self._routes[route] = 0
        client = self._client
        try:
            if self.connected and client is not None:
                # A connection that is lost meanwhile is no failure: the next one subscribes.
                with suppress(Unavailable), _as_bus_errors():
                    await self._subscribe(client, route)
                    await client.flush()
            yield
        finally:
            sid = self._routes.pop(route)
            await self._unsubscribe(sid)

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Hand a message to the connection. Raises Unavailable when there is none."""
        client = self._client
        if client is None or not self.connected:
            raise Unavailable("the bus is not connected")
        if client.pending_data_size > self.settings.unsent_bytes:
            raise Unavailable("the connection to the bus is congested")
        # The server counts the headers too, and closes the connection over one byte too many.
        if (size := wire_size(data, headers or {})) > client.max_payload:
            raise BusError(f"{size} bytes on {subject}: the bus takes {client.max_payload}")
        with _as_bus_errors():
            await client.publish(subject, data, reply, dict(headers) if headers else None)

    async def publish_each(self, subjects: Sequence[str], data: bytes) -> None:
        """The same to many subjects that the server itself has named. Raises Unavailable."""
        client = self._client
        if client is None or not self.connected:
            raise Unavailable("the bus is not connected")
        with _as_bus_errors():
            await client.publish_each(subjects, data)

    async def call(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float,
    ) -> Msg:
        """Publish with a reply subject and wait for the answer, for a connection too if need be.

        Raises NoResponders, Unavailable (no answer in time, or the connection was lost meanwhile).
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.up()
                with self.expected() as (reply, future):
                    await self.publish(subject, data, headers, reply)
                    answer = await future
        except TimeoutError as error:
            raise Unavailable(f"no answer on {subject} within {timeout_s} s") from error
        if status_of(answer) == NO_RESPONDERS:
            raise NoResponders(f"nobody answers on {subject}")
        return answer

    def expected(self) -> AbstractContextManager[tuple[str, asyncio.Future[Msg]]]:
        """A reply subject and the future of its message, which fails when the connection is lost."""
        return self._expected()

    @contextmanager
    def _expected(self) -> Iterator[tuple[str, asyncio.Future[Msg]]]:
        token = f"{next(self._tokens):x}"
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._calls[token] = future
        try:
            yield f"{self._inbox}.{token}", future
        finally:
            del self._calls[token]
            if future.done() and not future.cancelled():
                future.exception()
            future.cancel()

    def _on_answer(self, message: Msg) -> None:
        future = self._calls.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(message)

    async def _dial_until_connected(self) -> tuple[FastClient, asyncio.Event]:
        """A connected client, and the event that says that it is closed."""
        wait_s = self.settings.redial_first_s
        for attempt in itertools.count(1):
            url = self.settings.urls[attempt % len(self.settings.urls)]
            try:
                closed = asyncio.Event()
                client = await dial(
                    url,
                    name=self._name,
                    settings=self.settings,
                    on_error=self._on_error,
                    closed=closed,
                )
            except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
                _honour_cancellation()
                log.warning("bus_unreachable", attempt=attempt, error=_text(error))
            else:
                return client, closed
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311
            wait_s = min(wait_s * 2, self.settings.redial_most_s)
        raise AssertionError("unreachable")

    async def _bring_up(self, client: FastClient) -> None:
        self._client = client
        while missing := [route for route, sid in self._routes.items() if not sid]:
            for route in missing:
                await self._subscribe(client, route)
            await client.flush()
        self._up.set()
        uri = client.connected_url
        log.info("bus_connected", server=uri.netloc.rpartition("@")[2] if uri else "")
        for react in list(self._listeners.values()):
            react()

    def _take_down(self) -> None:
        self._client = None
        self._routes = dict.fromkeys(self._routes, 0)
        if self._up.is_set():
            self._up.clear()
            log.warning("bus_connection_lost")
        for future in self._calls.values():
            if not future.done():
                future.set_exception(Unavailable("the connection to the bus was lost"))

    async def _on_error(self, error: Exception) -> None:
        if not isinstance(error, (ConnectionError, nats.errors.UnexpectedEOF)):
            log.warning("bus_error", error=_text(error))

    async def _subscribe(self, client: FastClient, route: Route) -> None:
        sub = await client.subscribe(
            route.subject,
            route.queue,
            cb=route.on_message,
            pending_bytes_limit=0,
        )
        if route in self._routes:
            self._routes[route] = sub._id

    async def _unsubscribe(self, sid: int) -> None:
        """Drain: what the server has already sent is still received."""
        client = self._client
        sub = client._subs.get(sid) if client is not None and sid else None
        if sub is not None:
            with suppress(Unavailable), _as_bus_errors():
                async with asyncio.timeout(DRAIN_S):
                    await sub.drain()  # type: ignore[no-untyped-call]


async def _until_closed(client: FastClient, closed: asyncio.Event) -> None:
    # Polled as well: the event is not set when the socket breaks while closing.
    while not client.is_closed and not closed.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSED_POLL_S):
                await closed.wait()


def _honour_cancellation() -> None:
    """End if we were told to: `wait_for` before Python 3.12, on which the client dials, forgets a
    cancellation that comes together with its result."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def _as_bus_errors() -> Iterator[None]:
    """Calls into the client: its errors become the bus's, and being cancelled stays being cancelled.

    The client swallows a cancellation that meets it while it flushes; whoever ends a task would wait
    for ever.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task is not None else 0
    try:
        yield
    except REFUSED as error:
        raise BusError(_text(error)) from error
    except (nats.errors.Error, OSError) as error:
        raise Unavailable(_text(error)) from error
    if task is not None and task.cancelling() > cancelled:
        raise asyncio.CancelledError


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
