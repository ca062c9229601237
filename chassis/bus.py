"""The message bus as a Protocol, and the values that go over it.

What belongs here: the shape that services program against. What does not: NATS itself
(`chassis.nats`) and the in-memory stand-in (`chassis.memory_bus`); both pass one contract suite
(`tests/contract/test_bus.py`).

The words are JetStream's: a *stream* keeps messages by sequence, a *consumer* is a durable cursor over
it, a *bucket* is a stream that keeps the last message per key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct


class Expect(Struct, frozen=True, kw_only=True):
    """Compare-and-swap: the newest message on `over` (wildcards allowed) must have `sequence`.

    Sequence 0 means that no message may exist there. It is checked before the duplicate window: the
    repeat of a message that was stored is a `Conflict`, not a duplicate.
    """

    sequence: int
    over: str


class Outgoing(Struct, frozen=True, kw_only=True):
    """A message to publish. `message_id` makes a repeat harmless inside the duplicate window."""

    subject: str
    data: bytes = b""
    headers: Mapping[str, str] = {}
    message_id: str | None = None
    expect: Expect | None = None
    ttl_s: int | None = None


class Ack(Struct, frozen=True, kw_only=True):
    """The stream has the message on disk. `duplicate`: it had it already."""

    stream: str
    sequence: int
    duplicate: bool = False


class Incoming(Struct, frozen=True, kw_only=True):
    """A message as received. `sequence` and `published_at` are unset for core NATS messages."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = {}
    reply: str = ""
    stream: str = ""
    sequence: int = 0
    published_at: datetime | None = None
    delivered: int = 1
    """How often the consumer was handed this message, this time included."""
    pending: int = 0
    """How many messages the consumer has still to be handed after this one."""


class CaughtUp(Struct, frozen=True):
    """Said once by `follow` when everything that the stream held at the start was delivered."""


class Start(Struct, frozen=True, kw_only=True):
    """Where `follow` begins: at `sequence`, with the last message per subject, or with what is new."""

    at: Literal["new", "all", "last_per_subject", "sequence"] = "new"
    sequence: int = 0


class StreamConfig(Struct, frozen=True, kw_only=True):
    """A stream or (name `KV_<bucket>`) a bucket, in JetStream's words; sizes in bytes, ages in seconds."""

    name: str
    description: str
    subjects: tuple[str, ...]
    retention: Literal["limits", "workqueue", "interest"] = "limits"
    storage: Literal["file", "memory"] = "file"
    max_age_s: float = 0
    max_bytes: int = -1
    max_msg_size: int = -1
    max_msgs_per_subject: int = -1
    duplicate_window_s: float = 120
    discard: Literal["old", "new"] = "old"
    allow_rollup: bool = False
    allow_direct: bool = True
    allow_msg_ttl: bool = False
    allow_atomic: bool = False
    deny_delete: bool = False
    subject_delete_marker_ttl_s: float = 0


class ConsumerConfig(Struct, frozen=True, kw_only=True):
    """A durable pull consumer with explicit acknowledgement."""

    stream: str
    name: str
    description: str
    subjects: tuple[str, ...] = ()
    deliver: Literal["all", "new", "last_per_subject"] = "all"
    ack_wait_s: float = 30
    max_deliver: int = -1
    max_ack_pending: int = 1000
    single_active: bool = False
    """Of many readers one gets everything, until it stops pulling; its readers say so in `pull`, too."""


class Backlog(Struct, frozen=True, kw_only=True):
    """What a durable consumer has still before it: not handed out yet, or not acknowledged."""

    consumer: str
    messages: int


class BusError(Exception):
    """Something about the bus that the caller may have to handle."""


class Conflict(BusError):
    """An `Expect` did not hold: somebody else wrote first. Read again, decide again."""


class Unavailable(BusError):
    """No acknowledgement or answer in time: the message may or may not have arrived. Retry with its id."""


class NoResponders(Unavailable):
    """Nobody serves this subject right now."""


class NotFound(BusError):
    """The stream or consumer does not exist."""


class Delivery(Protocol):
    """One message of a durable consumer, with the four things that can be said about it.

    Only `chassis.consume` says them.
    """

    @property
    def message(self) -> Incoming: ...
    async def ack(self, *, confirmed: bool = True) -> None:
        """Done; returns once the server has confirmed it. Unconfirmed it is only said: a confirmed one
        that is said afterwards stands for it, unless the connection was lost in between."""
        ...

    async def nak(self, delay_s: float) -> None: ...
    async def term(self, reason: str) -> None: ...
    async def in_progress(self) -> None: ...


class Bus(Protocol):
    """The bus. Every method may raise `Unavailable`; nothing is retried behind the caller's back
    but reconnecting, which goes on for ever."""

    async def publish(self, message: Outgoing) -> Ack:
        """Store one message in the stream that owns its subject; returns when it is on disk.

        What many callers publish at the same time travels as one atomic batch (group commit).
        Raises Conflict, Unavailable, NotFound (no stream takes the subject).
        """
        ...

    async def publish_together(self, messages: Sequence[Outgoing]) -> Ack:
        """Store several messages of one stream, all or none. Returns the last one's ack.

        Every `expect` is held against the stream as it was before. Repeated with the same ids it is a
        duplicate. Raises Conflict, Unavailable, BusError (the stream takes no batches).
        """
        ...

    async def send(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Core NATS: fire and forget, lost if nobody listens."""
        ...

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> Incoming:
        """Ask and wait for one answer. Raises NoResponders at once, Unavailable after `timeout_s`."""
        ...

    def listen(
        self, subject: str, *, queue: str = "", limit: int = 1000
    ) -> AbstractAsyncContextManager[AsyncIterator[Incoming]]:
        """Core NATS subscription; survives reconnects; beyond `limit` unread messages the oldest go."""
        ...

    def follow(
        self, stream: str, subjects: Sequence[str], *, start: Start
    ) -> AbstractAsyncContextManager[AsyncIterator[Incoming | CaughtUp]]:
        """Every message of a stream in order, without acknowledgement (a watch when the stream is a
        bucket). Survives restarts of the server without a gap: it goes on after the last sequence it
        delivered. Yields `CaughtUp` once."""
        ...

    def pull(
        self, stream: str, consumer: str, *, batch: int, single_active: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """The deliveries of a durable consumer, at most `batch` outstanding. Waits for a consumer that
        does not exist (yet, or any more) and re-arms after a reconnect.

        Of the readers of a consumer with a single active one the first to be handed a message is it.
        It stays so for the time of its context, however little there is to read; once it is cut off
        for longer than the bus's `takeover_s`, or its context ends, the next one is. Cut off, it may
        still have messages in hand: what it does with them must not depend on being alone.
        """
        ...

    async def last(self, stream: str, subject: str) -> Incoming | None:
        """The newest message on a subject (wildcards allowed), or None."""
        ...

    async def first_from(self, stream: str, sequence: int) -> Incoming | None:
        """The first message that a stream still has at a sequence or after it, or None."""
        ...

    async def last_sequence(self, stream: str) -> int:
        """The sequence of the newest message that the stream ever stored."""
        ...

    async def backlogs(self, stream: str) -> Sequence[Backlog]:
        """Of every durable consumer of a stream, by name. Raises NotFound, Unavailable."""
        ...

    async def ensure_stream(self, config: StreamConfig) -> None:
        """Create it, or update what differs. Never deletes."""
        ...

    async def ensure_consumer(self, config: ConsumerConfig) -> None:
        """Create it, or update what differs. Never moves its cursor."""
        ...

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Forget a durable's cursor; no error if it does not exist."""
        ...

    async def purge(self, stream: str, subject: str) -> None:
        """Remove the messages of one subject from a stream."""
        ...

    @property
    def connected(self) -> bool: ...
