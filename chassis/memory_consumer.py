"""A durable consumer in memory: who was handed what, and what comes again."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import msgspec

from chassis.bus import ConsumerConfig, Delivery, Incoming, Unavailable
from chassis.feed import Feed
from chassis.memory_stream import MemoryStream

Later = Callable[[float, Callable[[], None]], None]
"""Call something after so many seconds of the bus's clock."""


class MemoryPull:
    """One reader of a consumer: at most `batch` unread or unsettled."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.unsettled = 0
        self.cut_off = False
        self.feed: Feed[Delivery] = Feed()

    @property
    def room(self) -> int:
        return 0 if self.cut_off else self.batch - self.unsettled


class MemoryConsumer:
    def __init__(self, config: ConsumerConfig, stream: MemoryStream, later: Later) -> None:
        self.config = config
        self.stream = stream
        self.pulls: list[MemoryPull] = []
        self._later = later
        self._position = 0
        self._first: list[int] = []
        self._again: list[int] = []
        self._times: dict[int, int] = {}
        self._leases: dict[int, int] = {}
        self._lease_numbers = 0
        self._pinned: MemoryPull | None = None
        if config.deliver == "last_per_subject":
            found = stream.last_per_subject(config.subjects)
            self._first = [message.sequence for message in found]
        if config.deliver != "all":
            self._position = stream.last_sequence

    def hand_out(self) -> None:
        """Give what there is to readers with room."""
        while readers := [pull for pull in self._readers() if pull.room > 0]:
            if len(self._leases) >= self.config.max_ack_pending:
                return
            message = self._next()
            if message is None:
                return
            reader = max(readers, key=lambda pull: pull.room)
            if self.config.single_active:
                self._pinned = reader
            reader.unsettled += 1
            reader.feed.put(MemoryDelivery(self, reader, self._lease(message), message))

    def unpin(self, pull: MemoryPull) -> None:
        """If it was the one active reader, the next one is."""
        if self._pinned is pull:
            self._pinned = None
            self.hand_out()

    def _readers(self) -> list[MemoryPull]:
        return self.pulls if self._pinned is None else [self._pinned]

    @property
    def behind(self) -> int:
        """Messages not handed out yet, or not settled."""
        new = sum(1 for _ in self.stream.after(self._position, self.config.subjects))
        return new + len(self._first) + len(self._again) + len(self._leases)

    def lease_of(self, sequence: int) -> int | None:
        return self._leases.get(sequence)

    def renew(self, sequence: int) -> int:
        """Start the time to acknowledge anew; returns the number of this lease."""
        self._lease_numbers += 1
        number = self._lease_numbers
        self._leases[sequence] = number

        def over() -> None:
            if self._leases.get(sequence) == number:
                self.put_back(sequence)

        self._later(self.config.ack_wait_s, over)
        return number

    def settle(self, sequence: int) -> None:
        """Never again: acknowledged or terminated."""
        self._leases.pop(sequence, None)
        self._times.pop(sequence, None)
        if self.stream.config.retention == "workqueue":
            self.stream.remove(sequence)

    def put_back(self, sequence: int, after_s: float = 0.0) -> None:
        """Deliver it again, at once or later."""
        if after_s > 0:
            self._lease_numbers += 1
            self._leases[sequence] = self._lease_numbers
            self._later(after_s, lambda: self.put_back(sequence))
            return
        self._leases.pop(sequence, None)
        if 0 < self.config.max_deliver <= self._times.get(sequence, 0):
            return
        heapq.heappush(self._again, sequence)
        self.hand_out()

    def _lease(self, message: Incoming) -> int:
        self._times[message.sequence] = self._times.get(message.sequence, 0) + 1
        return self.renew(message.sequence)

    def _next(self) -> Incoming | None:
        while self._again:
            if (message := self.stream.get(heapq.heappop(self._again))) is not None:
                return self._counted(message)
        while self._first:
            if (message := self.stream.get(self._first.pop(0))) is not None:
                return self._counted(message)
        for message in self.stream.after(self._position, self.config.subjects):
            self._position = message.sequence
            return self._counted(message)
        return None

    def _counted(self, message: Incoming) -> Incoming:
        left = sum(1 for _ in self.stream.after(self._position, self.config.subjects))
        return msgspec.structs.replace(
            message,
            delivered=self._times.get(message.sequence, 0) + 1,
            pending=left + len(self._first),
        )


class MemoryDelivery:
    def __init__(
        self, consumer: MemoryConsumer, reader: MemoryPull, lease: int, message: Incoming
    ) -> None:
        self._consumer = consumer
        self._reader = reader
        self._lease = lease
        self._settled = False
        self.message = message

    async def ack(self, *, confirmed: bool = True) -> None:
        self._require_connection()
        if self._holds():
            self._consumer.settle(self.message.sequence)
        self._release()

    async def nak(self, delay_s: float) -> None:
        self._require_connection()
        if self._holds():
            self._consumer.put_back(self.message.sequence, delay_s)
        self._release()

    async def term(self, reason: str) -> None:
        await self.ack()

    async def in_progress(self) -> None:
        self._require_connection()
        if self._holds():
            self._lease = self._consumer.renew(self.message.sequence)

    def _require_connection(self) -> None:
        if self._reader.cut_off:
            self._release()
            raise Unavailable("the bus is not connected")

    def _holds(self) -> bool:
        """Whether the message was not handed to somebody else meanwhile."""
        return self._consumer.lease_of(self.message.sequence) == self._lease

    def _release(self) -> None:
        if not self._settled:
            self._settled = True
            self._reader.unsettled -= 1
            self._consumer.hand_out()
