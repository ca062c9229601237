"""Publishing with group commit: what waits for one stream travels as one atomic batch.

One lane per stream: while a batch is on its way, what arrives waits, and goes as the next one. Where
too little waits to be worth a batch, the stream takes none, or one is refused because of one member,
they go one by one, pipelined. Every caller gets an answer: an acknowledgement or an exception, within
its time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import islice

from msgspec import Struct
from nats.aio.msg import Msg
from nats.nuid import NUID

from chassis.bus import Ack, BusError, Conflict, NoResponders, NotFound, Outgoing, Unavailable
from chassis.matching import matches_any
from chassis.nats import answers
from chassis.nats.batches import batch_length
from chassis.nats.link import NO_RESPONDERS, Link
from chassis.nats.messages import publish_headers, status_of, wire_size

BATCH_HEADERS_BYTES = 160
MOST_TOGETHER = 1000
NEVER = {"Nats-Expected-Last-Msg-Id": "never"}
"""An expectation that cannot hold, but is checked after the duplicate window: it makes a publish a
question, whether the stream has a message id."""


class Entry(Struct, frozen=True, eq=False):
    """A message and the caller that waits for its acknowledgement."""

    message: Outgoing
    answer: asyncio.Future[Ack]


class Lane:
    """What waits for one stream."""

    def __init__(self, *, stream: str, subjects: tuple[str, ...], atomic: bool) -> None:
        self.stream = stream
        self.subjects = subjects
        self.atomic = atomic
        self.waiting: deque[Entry] = deque()
        self.filled = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Publisher:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._settings = link.settings
        self._room = asyncio.Semaphore(link.settings.publish_queue)
        self._lanes: dict[str, Lane] = {}
        self._unknown = Lane(stream="", subjects=(), atomic=False)
        self._nuid = NUID()

    def learn(self, *, stream: str, subjects: tuple[str, ...], atomic: bool) -> None:
        """Take note of a stream, so that what it owns can be batched."""
        lane = self._lanes.setdefault(stream, Lane(stream=stream, subjects=subjects, atomic=atomic))
        lane.subjects, lane.atomic = subjects, atomic

    async def publish(self, message: Outgoing) -> Ack:
        self._check_size(message)
        lane = self._lane_of(message.subject)
        answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s), self._room:
                self._enqueue(lane, Entry(message, answer))
                return await answer
        except TimeoutError as error:
            raise Unavailable(
                f"no acknowledgement within {self._settings.publish_timeout_s} s"
            ) from error

    async def publish_together(self, messages: Sequence[Outgoing]) -> Ack:
        if not 0 < len(messages) <= MOST_TOGETHER:
            raise ValueError(f"1 to {MOST_TOGETHER} messages go together, not {len(messages)}")
        if len(messages) == 1:
            return await self.publish(messages[0])
        for message in messages:
            self._check_size(message)
        answer = await self._commit(messages)
        if answer.error is not None and answer.error.err_code == answers.BATCH_DUPLICATE:
            return await self._stored_before(messages)
        return answers.ack_of(answer)

    async def close(self) -> None:
        """Stop; whoever still waits is told Unavailable."""
        for lane in [*self._lanes.values(), self._unknown]:
            if lane.task is not None:
                lane.task.cancel()
                await asyncio.gather(lane.task, return_exceptions=True)
            _fail(lane.waiting, Unavailable("the bus was closed"))

    def _check_size(self, message: Outgoing) -> None:
        size = wire_size(message.data, publish_headers(message)) + BATCH_HEADERS_BYTES
        if size > self._link.max_payload:
            raise BusError(
                f"{size} bytes on {message.subject}: the bus takes {self._link.max_payload}"
            )

    def _lane_of(self, subject: str) -> Lane:
        for lane in self._lanes.values():
            if matches_any(lane.subjects, subject):
                return lane
        return self._unknown

    def _enqueue(self, lane: Lane, entry: Entry) -> None:
        lane.waiting.append(entry)
        lane.filled.set()
        if lane.task is None or lane.task.done():
            lane.task = asyncio.create_task(self._work(lane), name=f"publish {lane.stream}")

    async def _work(self, lane: Lane) -> None:
        while True:
            await lane.filled.wait()
            await self._link.up()
            if entries := self._take(lane):
                await self._send(lane, entries)

    def _take(self, lane: Lane) -> list[Entry]:
        """The next group that may travel together. Those whose callers gave up are dropped."""
        while lane.waiting and lane.waiting[0].answer.done():
            lane.waiting.popleft()
        length = batch_length(
            (entry.message for entry in islice(lane.waiting, self._settings.batch_messages)),
            most_messages=self._settings.batch_messages,
            most_bytes=self._settings.batch_bytes,
        )
        taken = [lane.waiting.popleft() for _ in range(length)]
        if not lane.waiting:
            lane.filled.clear()
        return [entry for entry in taken if not entry.answer.done()]

    async def _send(self, lane: Lane, entries: Sequence[Entry]) -> None:
        try:
            worth_it = lane.atomic and len(entries) >= self._settings.batch_least
            if not worth_it or not await self._as_batch(lane, entries):
                await self._singly(entries)
        except BusError as error:
            _fail(entries, error)
        finally:
            _fail(entries, Unavailable("the bus was closed"))

    async def _as_batch(self, lane: Lane, entries: Sequence[Entry]) -> bool:
        """False if the batch was refused and nothing of it stored."""
        answer = await self._commit([entry.message for entry in entries])
        if answer.error is not None:
            if answer.error.err_code == answers.ATOMIC_DISABLED:
                lane.atomic = False
            return False
        first = answer.seq - len(entries) + 1
        for sequence, entry in enumerate(entries, start=first):
            if not entry.answer.done():
                entry.answer.set_result(Ack(stream=answer.stream, sequence=sequence))
        return True

    async def _commit(self, messages: Sequence[Outgoing]) -> answers.PubAck:
        """Send an atomic batch (ADR-50) and wait for the answer to its last message."""
        batch = {"Nats-Batch-Id": self._nuid.next().decode()}
        for number, message in enumerate(messages[:-1], start=1):
            headers = {**publish_headers(message), **batch, "Nats-Batch-Sequence": str(number)}
            await self._link.publish(message.subject, message.data, headers)
        return await self._ask(
            messages[-1],
            {**batch, "Nats-Batch-Sequence": str(len(messages)), "Nats-Batch-Commit": "1"},
        )

    async def _ask(self, message: Outgoing, extra: dict[str, str]) -> answers.PubAck:
        try:
            answer = await self._link.call(
                message.subject,
                message.data,
                {**publish_headers(message), **extra},
                timeout_s=self._settings.call_timeout_s,
            )
        except NoResponders as error:
            raise NotFound(f"no stream takes {message.subject}") from error
        return answers.pub_ack(answer.data)

    async def _singly(self, entries: Sequence[Entry]) -> None:
        """Send each on its own, all at once, and hand each caller its own answer."""
        with ExitStack() as stack:
            asked: list[tuple[Entry, asyncio.Future[Msg]]] = []
            for entry in entries:
                reply, future = stack.enter_context(self._link.expected())
                message = entry.message
                await self._link.publish(
                    message.subject, message.data, publish_headers(message), reply
                )
                asked.append((entry, future))
            futures = [future for _, future in asked]
            await asyncio.wait(futures, timeout=self._settings.call_timeout_s)
            for entry, future in asked:
                _settle(entry, future)

    async def _stored_before(self, messages: Sequence[Outgoing]) -> Ack:
        """The acknowledgement of a batch that is repeated: the stream must have every member."""
        last = Ack(stream="", sequence=0)
        for message in messages:
            if message.message_id is None:
                raise Conflict("a part of what goes together is stored already, and not the rest")
            answer = await self._ask(
                Outgoing(subject=message.subject, message_id=message.message_id), NEVER
            )
            if not answer.duplicate:
                raise Conflict("a part of what goes together is stored already, and not the rest")
            last = Ack(stream=answer.stream, sequence=answer.seq, duplicate=True)
        return last


def _settle(entry: Entry, future: asyncio.Future[Msg]) -> None:
    """Hand the caller what came back: an acknowledgement, a refusal, or nothing."""
    if entry.answer.done():
        return
    if not future.done():
        _fail([entry], Unavailable("no acknowledgement in time"))
        return
    try:
        message = future.result()
        if status_of(message) == NO_RESPONDERS:
            raise NotFound(f"no stream takes {entry.message.subject}")
        entry.answer.set_result(answers.ack_of(answers.pub_ack(message.data)))
    except BusError as error:
        _fail([entry], error)


def _fail(entries: Iterable[Entry], error: BusError) -> None:
    """Give those who have no answer yet this one."""
    for entry in entries:
        if not entry.answer.done():
            entry.answer.set_exception(type(error)(*error.args))
            entry.answer.exception()  # seen: a caller that gave up must not make it a warning
