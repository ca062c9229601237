"""A stream's content and rules in memory: what JetStream does to a message, without time or tasks.

Pure: `now_s` comes in as an argument, and the caller sees to what has to happen later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from chassis.bus import (
    Ack,
    BusError,
    Conflict,
    Expect,
    Incoming,
    Outgoing,
    StreamConfig,
    Unavailable,
)
from chassis.matching import matches, matches_any

ROLLUP = "Nats-Rollup"
MARKER = "Nats-Marker-Reason"


class Stored(Struct, frozen=True, kw_only=True):
    """A message at its place. `expires_at_s` is None where it stays."""

    message: Incoming
    expires_at_s: float | None = None

    @property
    def size(self) -> int:
        return len(self.message.subject) + len(self.message.data)


class MemoryStream:
    """Messages by sequence, the newest per subject, and the ids of the duplicate window."""

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.last_sequence = 0
        self._messages: dict[int, Stored] = {}
        self._by_subject: dict[str, list[int]] = {}
        self._ids: dict[str, tuple[int, float]] = {}
        self._bytes = 0

    def takes(self, subject: str) -> bool:
        return matches_any(self.config.subjects, subject)

    def get(self, sequence: int) -> Incoming | None:
        stored = self._messages.get(sequence)
        return stored.message if stored else None

    def after(self, sequence: int, subjects: Sequence[str]) -> Iterator[Incoming]:
        """The messages after a sequence that fall under one of the patterns, in order."""
        for number in [number for number in self._messages if number > sequence]:
            stored = self._messages.get(number)
            if stored is not None and matches_any(subjects, stored.message.subject):
                yield stored.message

    def last_per_subject(self, subjects: Sequence[str]) -> list[Incoming]:
        newest = [
            numbers[-1]
            for subject, numbers in self._by_subject.items()
            if matches_any(subjects, subject)
        ]
        return [self._messages[number].message for number in sorted(newest)]

    def last(self, pattern: str) -> Incoming | None:
        found = self.last_per_subject([pattern])
        return found[-1] if found else None

    def store(self, message: Outgoing, *, at: datetime, now_s: float) -> Ack:
        """Keep one message. Raises Conflict and what else the server refuses."""
        self._check(message)
        if (earlier := self._duplicate(message, now_s)) is not None:
            return Ack(stream=self.config.name, sequence=earlier, duplicate=True)
        return self._append(message, at=at, now_s=now_s)

    def store_together(self, messages: Sequence[Outgoing], *, at: datetime, now_s: float) -> Ack:
        """Keep all or none; every expectation is held against the stream as it is before."""
        if not self.config.allow_atomic:
            raise BusError(f"{self.config.name} takes no atomic batches")
        earlier = [self._duplicate(message, now_s) for message in messages]
        if all(sequence is not None for sequence in earlier):
            return Ack(stream=self.config.name, sequence=earlier[-1] or 0, duplicate=True)
        if any(sequence is not None for sequence in earlier):
            raise Conflict("a part of what goes together is stored already, and not the rest")
        for message in messages:
            self._check(message)
        return [self._append(message, at=at, now_s=now_s) for message in messages][-1]

    def remove(self, sequence: int) -> Incoming | None:
        """Take a message out; None if it is gone already."""
        stored = self._messages.pop(sequence, None)
        if stored is None:
            return None
        numbers = self._by_subject[stored.message.subject]
        numbers.remove(sequence)
        if not numbers:
            del self._by_subject[stored.message.subject]
        self._bytes -= stored.size
        return stored.message

    def purge(self, pattern: str) -> None:
        for subject in [name for name in self._by_subject if matches(pattern, name)]:
            for sequence in list(self._by_subject[subject]):
                self.remove(sequence)

    def expire(self, sequence: int, *, at: datetime, now_s: float) -> Ack | None:
        """Let a message's time be over; returns the marker's place if the stream leaves one."""
        gone = self.remove(sequence)
        marker_s = self.config.subject_delete_marker_ttl_s
        if (
            gone is None
            or not marker_s
            or MARKER in gone.headers
            or gone.subject in self._by_subject
        ):
            return None
        marker = Outgoing(
            subject=gone.subject,
            headers={MARKER: "MaxAge", "Nats-TTL": f"{round(marker_s)}s"},
            ttl_s=round(marker_s),
        )
        return self._append(marker, at=at, now_s=now_s)

    def expires_at_s(self, sequence: int) -> float | None:
        stored = self._messages.get(sequence)
        return stored.expires_at_s if stored else None

    def _check(self, message: Outgoing) -> None:
        self._check_expectation(message.expect)
        size = _size(message)
        if 0 <= self.config.max_msg_size < size:
            raise BusError(f"{size} bytes: {self.config.name} takes {self.config.max_msg_size}")
        if message.ttl_s is not None and not self.config.allow_msg_ttl:
            raise BusError(f"{self.config.name} keeps no message for a time")
        full = 0 <= self.config.max_bytes < self._bytes + size + len(message.subject)
        if full and self.config.discard == "new":
            raise Unavailable(f"{self.config.name} is full")

    def _check_expectation(self, expect: Expect | None) -> None:
        if expect is None:
            return
        newest = self.last(expect.over)
        actual = newest.sequence if newest else 0
        if actual != expect.sequence:
            raise Conflict(f"wrong last sequence: {actual}")

    def _duplicate(self, message: Outgoing, now_s: float) -> int | None:
        if message.message_id is None:
            return None
        sequence, seen_s = self._ids.get(message.message_id, (0, 0.0))
        if not sequence or now_s - seen_s >= self.config.duplicate_window_s:
            return None
        return sequence

    def _append(self, message: Outgoing, *, at: datetime, now_s: float) -> Ack:
        if message.headers.get(ROLLUP) == "sub":
            self.purge(message.subject)
        elif message.headers.get(ROLLUP) == "all":
            self.purge(">")
        self.last_sequence += 1
        stored = Stored(
            message=_received(message, self.config.name, self.last_sequence, at),
            expires_at_s=self._expiry(message, now_s),
        )
        self._messages[self.last_sequence] = stored
        self._by_subject.setdefault(message.subject, []).append(self.last_sequence)
        self._bytes += stored.size
        if message.message_id is not None:
            self._ids[message.message_id] = (self.last_sequence, now_s)
        self._make_room(message.subject)
        return Ack(stream=self.config.name, sequence=self.last_sequence)

    def _expiry(self, message: Outgoing, now_s: float) -> float | None:
        if message.ttl_s is not None:
            return now_s + message.ttl_s
        return now_s + self.config.max_age_s if self.config.max_age_s else None

    def _make_room(self, subject: str) -> None:
        most = self.config.max_msgs_per_subject
        while most > 0 and len(self._by_subject[subject]) > most:
            self.remove(self._by_subject[subject][0])
        while 0 <= self.config.max_bytes < self._bytes:
            self.remove(next(iter(self._messages)))


def _size(message: Outgoing) -> int:
    """Body and headers, as the server counts them."""
    lines = sum(len(name) + len(value) + 4 for name, value in message.headers.items())
    return len(message.data) + (lines + 12 if lines else 0)


def _received(message: Outgoing, stream: str, sequence: int, at: datetime) -> Incoming:
    headers = dict(message.headers)
    if message.message_id is not None:
        headers["Nats-Msg-Id"] = message.message_id
    if message.ttl_s is not None:
        headers["Nats-TTL"] = f"{message.ttl_s}s"
    return Incoming(
        subject=message.subject,
        data=message.data,
        headers=headers,
        stream=stream,
        sequence=sequence,
        published_at=at,
    )
