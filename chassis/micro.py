"""NATS micro services (ADR-32) over the bus: endpoints served, discovery answered, endpoints asked.

What belongs here: the wire format and bounded dispatch. Requests run as tasks, so that a slow one keeps
nobody waiting; beyond an endpoint's `concurrency` the answer is 503 at once. What goes wrong inside is
logged with an id, and only the id is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, nullcontext
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
from msgspec import Struct

from chassis.bus import Bus, BusError, Incoming, Unavailable
from chassis.micro_discovery import (
    ERROR_CODE_HEADER,
    ERROR_HEADER,
    QUEUE,
    Counts,
    Identity,
    discovery_subjects,
    reply_to,
)
from chassis.service import Clock, Endpoint, Ids, Retry, Tagged
from chassis.tracing import sends, span, traceparent
from schemas.problems import FieldError, Problem, invalid_request, unavailable
from schemas.subjects import service as subject_of

log = structlog.get_logger(__name__)

T = TypeVar("T")
Tag = Callable[[], Awaitable[str]]

TRACEPARENT = "traceparent"
GRACE_S = 10.0
UNREAD_LIMIT = 10_000
HEADER_CHARACTERS = 300
KNOWN_HEADER = "If-None-Match"
TAG_HEADER = "ETag"
"""As in HTTP: a request that names the tag of an answer is answered with that tag and no body, if the
answer is still true."""


class Meters(Protocol):
    """Where answers are counted."""

    def answered(self, *, endpoint: str, outcome: str, seconds: float) -> None: ...


class Answer(Struct, frozen=True, kw_only=True):
    """What goes back over the wire."""

    body: bytes
    problem: Problem | None = None
    tag: str | None = None

    def headers(self) -> dict[str, str] | None:
        if self.problem is None:
            return None if self.tag is None else {TAG_HEADER: self.tag}
        text = " ".join(f"{self.problem.title}: {self.problem.detail}".split()).strip(": ")
        return {
            ERROR_CODE_HEADER: str(self.problem.status),
            ERROR_HEADER: text[:HEADER_CHARACTERS],
        }


async def serve(
    bus: Bus,
    identity: Identity,
    endpoints: Sequence[Endpoint],
    *,
    meters: Meters,
    clock: Clock,
    ids: Ids,
    address: Callable[[str], str] | None = None,
    on_serving: Callable[[], None] = lambda: None,
) -> None:
    """Answer until cancelled; then take no more requests and finish those in hand (`GRACE_S`).

    `address`: endpoint's name → subject; None: `vireo.svc.<service>.<name>`.
    """
    place = address or partial(subject_of, identity.name)
    desks = [
        Desk(bus, place(endpoint.name), endpoint, meters=meters, clock=clock, ids=ids)
        for endpoint in endpoints
    ]
    counts = [desk.counts for desk in desks]
    try:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            for subject in discovery_subjects(identity):
                heard = await stack.enter_async_context(bus.listen(subject))
                tasks.create_task(_introduce(bus, identity, heard, counts))
            for desk in desks:
                requests = await stack.enter_async_context(
                    bus.listen(desk.counts.subject, queue=QUEUE, limit=UNREAD_LIMIT)
                )
                tasks.create_task(desk.answer_all(requests), name=desk.counts.subject)
            on_serving()
    finally:
        await asyncio.gather(*(desk.finish() for desk in desks))


async def _introduce(bus: Bus, identity: Identity, heard: Any, counts: Sequence[Counts]) -> None:
    async for message in heard:
        if message.reply:
            await _send(bus, message.reply, reply_to(message.subject, identity, counts))


async def ask(
    bus: Bus,
    service: str,
    endpoint: str,
    request: Struct | bytes,
    *,
    timeout_s: float,
) -> bytes | Problem:
    """Ask an endpoint. The body as it came, or the problem that it answered.

    Raises NoResponders if nobody serves it, Unavailable if no answer comes in time.
    """
    answer = await _asked(bus, service, endpoint, request, {}, timeout_s=timeout_s)
    return _problem(answer) if ERROR_CODE_HEADER in answer.headers else answer.data


async def ask_again(
    bus: Bus,
    service: str,
    endpoint: str,
    request: Struct | bytes,
    *,
    known: str | None,
    timeout_s: float,
) -> Tagged | Problem:
    """As `ask`, of an endpoint with a tag: `body` is None if what was answered under the tag `known` is
    still true. The tag is empty if the endpoint has none. Raises as `ask` does."""
    headers = {KNOWN_HEADER: known} if known else {}
    answer = await _asked(bus, service, endpoint, request, headers, timeout_s=timeout_s)
    if ERROR_CODE_HEADER in answer.headers:
        return _problem(answer)
    tag = answer.headers.get(TAG_HEADER, "")
    return Tagged(tag=tag, body=None if tag and tag == known else answer.data)


async def _asked(
    bus: Bus,
    service: str,
    endpoint: str,
    request: Struct | bytes,
    headers: dict[str, str],
    *,
    timeout_s: float,
) -> Incoming:
    body = request if isinstance(request, bytes) else msgspec.json.encode(request)
    subject = subject_of(service, endpoint)
    # A span that goes nowhere has nothing to add to one that is there.
    context = None if sends() else traceparent()
    with span(f"{service}.{endpoint}", kind="client") if context is None else nullcontext():
        if context := context or traceparent():
            headers = {**headers, TRACEPARENT: context}
        return await bus.request(subject, body, headers=headers or None, timeout_s=timeout_s)


def _problem(answer: Incoming) -> Problem:
    """The body of a micro error, or what its headers say if a stranger answered."""
    try:
        return msgspec.json.decode(answer.data, type=Problem)
    except msgspec.MsgspecError:
        code = answer.headers[ERROR_CODE_HEADER]
        return Problem(
            type="about:blank",
            title=answer.headers.get(ERROR_HEADER, "error"),
            status=int(code) if code.isdigit() else 500,
        )


class _Knowing(Struct, frozen=True):
    """A request of one who knows the answer that is true under a tag. `began`: when it came."""

    request: Incoming
    tag: str
    began: float


class Desk:
    """One endpoint: its decoder, its slots and who waits for one, its counts."""

    def __init__(
        self,
        bus: Bus,
        subject: str,
        endpoint: Endpoint,
        *,
        meters: Meters,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.counts = Counts(
            name=endpoint.name,
            subject=subject,
            description=endpoint.description,
        )
        self._bus = bus
        self._endpoint = endpoint
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(endpoint.request)
        self._meters = meters
        self._clock = clock
        self._ids = ids
        self._busy = 0
        self._line: deque[Incoming] = deque()
        self._knowing: list[_Knowing] = []
        self._looking = False
        self._working: set[asyncio.Task[None]] = set()

    async def answer_all(self, requests: Any) -> None:
        async for request in requests:
            if self._busy < self._endpoint.concurrency:
                self._take(request)
            elif len(self._line) < self._endpoint.line:
                self._line.append(request)
            else:
                busy = unavailable(f"{self.counts.subject} is busy; ask again soon")
                await self._reply(request, _as_answer(busy), 0.0)

    def _take(self, request: Incoming) -> None:
        """Begin with a request; there is a slot for it."""
        self._busy += 1
        tag, known = self._endpoint.tag, request.headers.get(KNOWN_HEADER)
        if tag is None or known is None:
            self._begin(self._answer(request))
            return
        self._knowing.append(_Knowing(request, known, self._clock.monotonic()))
        if not self._looking:
            self._looking = True
            self._begin(self._look(tag))

    def _leave(self) -> None:
        """A slot is free again: for whoever has waited longest."""
        self._busy -= 1
        if self._line:
            self._take(self._line.popleft())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=self.counts.subject)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def finish(self) -> None:
        try:
            async with asyncio.timeout(GRACE_S):
                while self._working:
                    await asyncio.wait(set(self._working))
        except TimeoutError:
            self._line.clear()
            late = set(self._working)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _look(self, tag: Tag) -> None:
        """Tell those who know an answer that it is still true; the others get theirs as anybody does.
        The tag is asked for once for all who came before, and once more for those who came meanwhile."""
        try:
            while self._knowing:
                asking, self._knowing = self._knowing, []
                true = await self._true(tag, [each.request for each in asking])
                for each in asking:
                    if isinstance(true, str) and each.tag != true:
                        self._begin(self._answer(each.request))
                        continue
                    answer = Answer(body=b"", tag=true) if isinstance(true, str) else true
                    self._leave()
                    await self._reply(each.request, answer, self._clock.monotonic() - each.began)
        finally:
            self._looking = False

    async def _true(self, tag: Tag, requests: Sequence[Incoming]) -> str | Answer:
        """The tag of what is true now, or what to tell these requests instead."""
        with ExitStack() as spans:
            for request in requests if sends() else ():
                context = request.headers.get(TRACEPARENT)
                spans.enter_context(
                    span(f"{self.counts.subject} tag", kind="server", traceparent=context)
                )
            return await self._told(tag())

    async def _answer(self, request: Incoming) -> None:
        began = self._clock.monotonic()
        with span(self.counts.subject, kind="server", traceparent=request.headers.get(TRACEPARENT)):
            try:
                answer = await self._work(request)
            finally:
                self._leave()  # before the answer is out: who has it may ask again at once
        await self._reply(request, answer, self._clock.monotonic() - began)

    async def _work(self, request: Incoming) -> Answer:
        """The handler's answer, or the problem that stands for what went wrong."""
        try:
            asked = self._decoder.decode(request.data or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _as_answer(_unreadable(error))
        return await self._told(self._handled(asked))

    async def _handled(self, asked: Any) -> Answer:
        return _as_answer(await self._endpoint.handler(asked))

    async def _told(self, work: Awaitable[T]) -> T | Answer:
        try:
            return await work
        except (Retry, Unavailable) as error:
            log.info("request_not_answerable_now", subject=self.counts.subject, reason=str(error))
            return _as_answer(unavailable("Something that is needed here does not answer now."))
        except Exception:
            error_id = self._ids.new()
            log.exception("request_failed", subject=self.counts.subject, error_id=error_id)
            return _as_answer(_internal(error_id))

    async def _reply(self, request: Incoming, answer: Answer, seconds: float) -> None:
        self.counts.add(answer.problem, seconds)
        outcome = "answered" if answer.problem is None else str(answer.problem.status)
        self._meters.answered(endpoint=self._endpoint.name, outcome=outcome, seconds=seconds)
        if request.reply:
            await _send(self._bus, request.reply, answer.body, answer.headers())


def _as_answer(said: Struct | bytes | Problem) -> Answer:
    if isinstance(said, Problem):
        return Answer(body=msgspec.json.encode(said), problem=said)
    if isinstance(said, Tagged):
        return Answer(body=said.body or b"", tag=said.tag)
    return Answer(body=said if isinstance(said, bytes) else msgspec.json.encode(said))


def _unreadable(error: Exception) -> Problem:
    """Where in the request it is wrong, as a JSON pointer: msgspec says `… - at `$.a.b``."""
    text, _, path = str(error).partition(" - at ")
    pointer = path.strip("`").removeprefix("$").replace("[", ".").replace("]", "")
    return invalid_request(FieldError(field=pointer.replace(".", "/"), detail=text))


def _internal(error_id: str) -> Problem:
    return Problem(
        type="urn:vireo:problem:internal",
        title="internal error",
        status=500,
        detail=f"Look for {error_id} in the service's log.",
        instance=f"urn:uuid:{error_id}",
    )


async def _send(
    bus: Bus, subject: str, data: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """Answer. An answer that is too big for the bus becomes a problem that says so."""
    try:
        await bus.send(subject, data, headers=headers)
    except BusError as error:
        log.warning("answer_not_sent", reason=str(error))
        too_big = _as_answer(
            Problem(
                type="urn:vireo:problem:internal",
                title="The answer is too big",
                status=500,
                detail="Ask for less at a time.",
            )
        )
        await bus.send(subject, too_big.body, headers=too_big.headers())
