"""The `Bus` in memory, for fast tests and simulations: the real one's meaning, on a clock given to it.

It passes the same contract suite as `chassis.nats` (`tests/contract/test_bus.py`). One `MemoryBus` is
the whole server: everybody who shares it is connected to the same one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TypeVar

import msgspec

from chassis.bus import (
    Ack,
    Backlog,
    CaughtUp,
    ConsumerConfig,
    Delivery,
    Incoming,
    NoResponders,
    NotFound,
    Outgoing,
    Start,
    StreamConfig,
    Unavailable,
)
from chassis.feed import Feed
from chassis.matching import matches, matches_any
from chassis.memory_consumer import MemoryConsumer, MemoryPull
from chassis.memory_stream import MemoryStream
from chassis.service import Clock

T = TypeVar("T")

BUCKET = "KV_"


class Listener:
    """A core subscription."""

    def __init__(self, subject: str, queue: str, limit: int) -> None:
        self.subject = subject
        self.queue = queue
        self.feed: Feed[Incoming] = Feed(limit=limit)


class Watcher:
    """A `follow` that has read up to `position`, or waits for its stream to exist."""

    def __init__(self, stream: str, subjects: tuple[str, ...], start: Start) -> None:
        self.stream = stream
        self.subjects = subjects
        self.start = start
        self.position: int | None = None
        self.feed: Feed[Incoming | CaughtUp] = Feed()


class MemoryBus:
    """Use as `async with memory_bus(clock) as bus`, which ends its timers."""

    def __init__(self, clock: Clock, *, takeover_s: float = 3.0) -> None:
        """`takeover_s`: how long the one active reader may be cut off before the next one is."""
        self._clock = clock
        self._takeover_s = takeover_s
        self._streams: dict[str, MemoryStream] = {}
        self._consumers: dict[tuple[str, str], MemoryConsumer] = {}
        self._pulls: dict[tuple[str, str], list[MemoryPull]] = {}
        self._watchers: list[Watcher] = []
        self._listeners: list[Listener] = []
        self._timers: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self.connected = True

    async def publish(self, message: Outgoing) -> Ack:
        self._require_connection()
        stream = self._stream_of(message.subject)
        ack = stream.store(message, at=self._clock.now(), now_s=self._clock.monotonic())
        self._on_stored(stream, ack)
        return ack

    async def publish_together(self, messages: Sequence[Outgoing]) -> Ack:
        self._require_connection()
        if len(messages) == 1:
            return await self.publish(messages[0])
        streams = {self._stream_of(message.subject).config.name for message in messages}
        if len(streams) != 1:
            raise ValueError("what goes together belongs to one stream")
        stream = self._streams[streams.pop()]
        before = stream.last_sequence
        now, now_s = self._clock.now(), self._clock.monotonic()
        ack = stream.store_together(messages, at=now, now_s=now_s)
        for sequence in range(before + 1, stream.last_sequence + 1):
            self._on_stored(stream, Ack(stream=stream.config.name, sequence=sequence))
        return ack

    async def send(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        if self.connected:
            self._hand_to_listeners(
                Incoming(subject=subject, data=data, headers=dict(headers or {}))
            )

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> Incoming:
        self._require_connection()
        inbox = f"_INBOX.{next(self._numbers)}"
        async with self.listen(inbox) as answers:
            asked = Incoming(subject=subject, data=data, headers=dict(headers or {}), reply=inbox)
            if not self._hand_to_listeners(asked):
                raise NoResponders(f"nobody answers on {subject}")
            answer = await self._before(timeout_s, answers)
        if answer is None:
            raise Unavailable(f"no answer on {subject} within {timeout_s} s")
        return answer

    @asynccontextmanager
    async def listen(
        self, subject: str, *, queue: str = "", limit: int = 1000
    ) -> AsyncIterator[AsyncIterator[Incoming]]:
        listener = Listener(subject, queue, limit)
        with _listed(self._listeners, listener):
            yield listener.feed

    @asynccontextmanager
    async def follow(
        self, stream: str, subjects: Sequence[str], *, start: Start
    ) -> AsyncIterator[AsyncIterator[Incoming | CaughtUp]]:
        watcher = Watcher(stream, tuple(subjects), start)
        with _listed(self._watchers, watcher):
            self._begin(watcher)
            yield watcher.feed

    @asynccontextmanager
    async def pull(
        self, stream: str, consumer: str, *, batch: int, single_active: bool = False
    ) -> AsyncIterator[AsyncIterator[Delivery]]:
        pull = MemoryPull(batch)
        with _listed(self._pulls.setdefault((stream, consumer), []), pull):
            if (known := self._consumers.get((stream, consumer))) is not None:
                known.hand_out()
            try:
                yield pull.feed
            finally:
                pull.batch = 0
                for delivery in pull.feed.unread():
                    with suppress(Unavailable):
                        await delivery.nak(0)
                if (known := self._consumers.get((stream, consumer))) is not None:
                    known.unpin(pull)

    def cut_off(self, deliveries: AsyncIterator[Delivery]) -> None:
        """From now on nothing comes or goes between the bus and whoever reads these, as if its network
        were away or itself dead, until `reconnect`."""
        for (stream, consumer), pull in self._pulls_of(deliveries):
            pull.cut_off = True
            self._later(self._takeover_s, partial(self._unpin, stream, consumer, pull))

    def reconnect(self, deliveries: AsyncIterator[Delivery]) -> None:
        for key, pull in self._pulls_of(deliveries):
            pull.cut_off = False
            if (known := self._consumers.get(key)) is not None:
                known.hand_out()

    def _unpin(self, stream: str, consumer: str, pull: MemoryPull) -> None:
        known = self._consumers.get((stream, consumer))
        if known is not None and pull.cut_off:
            known.unpin(pull)

    def _pulls_of(
        self, deliveries: AsyncIterator[Delivery]
    ) -> list[tuple[tuple[str, str], MemoryPull]]:
        every = [(key, pull) for key, pulls in self._pulls.items() for pull in pulls]
        return [(key, pull) for key, pull in every if pull.feed is deliveries]

    async def last(self, stream: str, subject: str) -> Incoming | None:
        return self._stream(stream).last(subject)

    async def first_from(self, stream: str, sequence: int) -> Incoming | None:
        return next(self._stream(stream).after(sequence - 1, [">"]), None)

    async def last_sequence(self, stream: str) -> int:
        return self._stream(stream).last_sequence

    async def backlogs(self, stream: str) -> Sequence[Backlog]:
        self._stream(stream)
        return [
            Backlog(consumer=name, messages=consumer.behind)
            for (of, name), consumer in sorted(self._consumers.items(), key=lambda item: item[0])
            if of == stream
        ]

    async def ensure_stream(self, config: StreamConfig) -> None:
        wanted = _as_bucket(config) if config.name.startswith(BUCKET) else config
        if (known := self._streams.get(config.name)) is not None:
            known.config = wanted
            return
        self._streams[config.name] = MemoryStream(wanted)
        for watcher in self._watchers:
            if watcher.stream == config.name:
                self._begin(watcher)

    async def ensure_consumer(self, config: ConsumerConfig) -> None:
        stream = self._stream(config.stream)
        key = (config.stream, config.name)
        if (known := self._consumers.get(key)) is not None:
            known.config = msgspec.structs.replace(config, deliver=known.config.deliver)
            return
        consumer = MemoryConsumer(config, stream, self._later)
        consumer.pulls = self._pulls.setdefault(key, [])
        self._consumers[key] = consumer
        consumer.hand_out()

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        if (gone := self._consumers.pop((stream, consumer), None)) is not None:
            gone.pulls = []

    async def purge(self, stream: str, subject: str) -> None:
        self._stream(stream).purge(subject)

    async def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._timers, return_exceptions=True)

    def _require_connection(self) -> None:
        if not self.connected:
            raise Unavailable("the bus is not connected")

    def _stream(self, name: str) -> MemoryStream:
        if name not in self._streams:
            raise NotFound(f"no stream {name}")
        return self._streams[name]

    def _stream_of(self, subject: str) -> MemoryStream:
        for stream in self._streams.values():
            if stream.takes(subject):
                return stream
        raise NotFound(f"no stream takes {subject}")

    def _on_stored(self, stream: MemoryStream, ack: Ack) -> None:
        message = stream.get(ack.sequence)
        if ack.duplicate or message is None:
            return
        expires_at_s = stream.expires_at_s(ack.sequence)
        if expires_at_s is not None:
            self._expire_later(stream, ack.sequence, expires_at_s - self._clock.monotonic())
        for watcher in self._watchers:
            if watcher.stream == stream.config.name:
                self._show(watcher, message)
        for (name, _), consumer in list(self._consumers.items()):
            if name == stream.config.name:
                consumer.hand_out()
        self._hand_to_listeners(msgspec.structs.replace(message, stream="", sequence=0))

    def _expire_later(self, stream: MemoryStream, sequence: int, after_s: float) -> None:
        def over() -> None:
            marker = stream.expire(sequence, at=self._clock.now(), now_s=self._clock.monotonic())
            if marker is not None:
                self._on_stored(stream, marker)

        self._later(after_s, over)

    def _begin(self, watcher: Watcher) -> None:
        """Show a follower what the stream holds, and that this is all."""
        stream = self._streams.get(watcher.stream)
        if stream is None:
            return
        watcher.position = 0
        for message in _held(stream, watcher):
            self._show(watcher, message)
        watcher.position = stream.last_sequence
        watcher.feed.put(CaughtUp())

    def _show(self, watcher: Watcher, message: Incoming) -> None:
        if watcher.position is None or message.sequence <= watcher.position:
            return
        if message.sequence < watcher.start.sequence:
            return
        if matches_any(watcher.subjects, message.subject):
            watcher.position = message.sequence
            watcher.feed.put(message)

    def _hand_to_listeners(self, message: Incoming) -> bool:
        """To every listener without a queue and one of each queue; False if nobody listens."""
        reached: dict[str, Listener] = {}
        for number, listener in enumerate(self._listeners):
            if matches(listener.subject, message.subject):
                reached[listener.queue or f" {number}"] = listener
        for listener in reached.values():
            listener.feed.put(message)
            if listener.queue:  # the next message is the next member's turn
                self._listeners.remove(listener)
                self._listeners.insert(0, listener)
        return bool(reached)

    def _later(self, after_s: float, call: Callable[[], None]) -> None:
        async def wait() -> None:
            await self._clock.sleep(after_s)
            call()

        timer = asyncio.create_task(wait())
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    async def _before(self, timeout_s: float, answers: AsyncIterator[Incoming]) -> Incoming | None:
        """The first answer, or None when the time is over on this bus's clock."""
        answer = asyncio.ensure_future(anext(answers))
        timer = asyncio.ensure_future(self._clock.sleep(timeout_s))
        try:
            await asyncio.wait([answer, timer], return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            answer.cancel()
            timer.cancel()


def _held(stream: MemoryStream, watcher: Watcher) -> list[Incoming]:
    """What a follower is shown at first."""
    match watcher.start.at:
        case "new":
            return []
        case "last_per_subject":
            return stream.last_per_subject(watcher.subjects)
        case "all" | "sequence":
            return list(stream.after(0, watcher.subjects))


def _as_bucket(config: StreamConfig) -> StreamConfig:
    bucket = config.name.removeprefix(BUCKET)
    return msgspec.structs.replace(
        config,
        subjects=config.subjects or (f"$KV.{bucket}.>",),
        max_msgs_per_subject=max(config.max_msgs_per_subject, 1),
        discard="new",
        allow_rollup=True,
        deny_delete=True,
    )


@contextmanager
def _listed(where: list[T], entry: T) -> Iterator[None]:
    where.append(entry)
    try:
        yield
    finally:
        where.remove(entry)


@asynccontextmanager
async def memory_bus(clock: Clock, *, takeover_s: float = 3.0) -> AsyncIterator[MemoryBus]:
    bus = MemoryBus(clock, takeover_s=takeover_s)
    try:
        yield bus
    finally:
        await bus.close()
