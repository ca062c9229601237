"""What a service is, as a value: consumers, endpoints and background work handed to `chassis.run`.

A service's `handlers.py` builds one `Service`; nothing in here starts anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from chassis.bus import Bus, Incoming
from schemas.problems import Problem


class Retry(Exception):
    """Raised by a handler: not now; deliver again after `after_s` seconds."""

    def __init__(self, after_s: float, reason: str = "") -> None:
        super().__init__(reason or f"retry after {after_s} s")
        self.after_s = after_s


class Reject(Exception):
    """Raised by a handler: this message can never be handled; it goes to DEADLETTERS with the reason."""


class Clock(Protocol):
    """Time at the rim. `monotonic` in seconds, `now` in UTC with its time zone."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    """Where new ids come from."""

    def new(self) -> str:
        """A new UUIDv7 as text."""
        ...


class Rig(Struct, frozen=True, kw_only=True):
    """What `chassis.run` hands to a service while it is being built."""

    service: str
    instance: str
    site: str
    bus: Bus
    clock: Clock
    ids: Ids


class Consumer(Struct, frozen=True, kw_only=True):
    """A durable consumer and its handler, called for one message at a time, in order per `key`.

    The handler returns (acknowledged), raises `Retry`, raises `Reject`, or fails with anything else
    (delivered again with growing delays, then a dead letter after `max_deliver`).
    While a handler runs, the message is kept alive with in_progress.
    """

    stream: str
    name: str
    description: str
    subjects: tuple[str, ...]
    handler: Callable[[Incoming], Awaitable[None]]
    key: Callable[[Incoming], str] | None = None
    """Messages with one key are handled one after another; None: all messages in order."""
    concurrency: int = 1
    batch: int = 64
    """Most messages that are out at a time. 1: the next one is handed out, to whichever process, only when
    this one is done, so that their order outlives a process that is killed."""
    ack_wait_s: float = 30
    max_deliver: int = 10
    create: bool = True
    """False: somebody else makes the durable consumer (an agent's are made by the scheduler)."""
    single_active: bool = False
    """Of all processes with this consumer only one is handed messages; another takes over when it is
    gone. A rule of thumb and no lock: one that was cut off finishes what it had in hand."""
    confirm: bool = True
    """False: no acknowledgement is waited for. One that is lost brings the message again, even after
    newer ones of its key: only for handlers that know by its content that it is old."""


class BatchConsumer(Struct, frozen=True, kw_only=True):
    """A durable consumer whose handler takes what waits, in order; all are acknowledged when it returns.

    A batch that fails is delivered again one by one, so that one bad message cannot hold up the rest.
    """

    stream: str
    name: str
    description: str
    subjects: tuple[str, ...]
    handler: Callable[[Sequence[Incoming]], Awaitable[None]]
    batch: int = 500
    gather_s: float = 0.0
    """Under load a batch begins no sooner than so long after the one before it began: larger ones cost less
    a message. 0: at once."""
    gather_from: int = 16
    """There is load if the batch before had so many messages."""
    ack_wait_s: float = 30
    max_deliver: int = 10


class Tagged(Struct, frozen=True, kw_only=True):
    """Ready bytes with the tag under which they are true: as long as it is the endpoint's tag, they are
    what the same request would be answered. `body` is None where the asker has them already."""

    tag: str
    body: bytes | None


class Endpoint(Struct, frozen=True, kw_only=True):
    """A NATS micro endpoint at `vireo.svc.<service>.<name>`, or where the service's `address` says.

    The request body is decoded to `request`; the answer is a Struct, ready bytes, also `Tagged`, or a
    `Problem` (sent as a micro error with the problem as its body).
    """

    name: str
    description: str
    request: type[Any]
    handler: Callable[[Any], Awaitable[Struct | bytes | Problem]]
    concurrency: int = 64
    line: int = 1024
    """Most requests that wait until others are done; those beyond are answered 503 at once."""
    tag: Callable[[], Awaitable[str]] | None = None
    """The tag of what is true now; one who knows an answer under it needs no other."""


class Gauge(Struct, frozen=True, kw_only=True):
    """A number of the service's own, asked for when its meters are read."""

    help: str
    read: Callable[[], float]


class Tally(Struct, frozen=True, kw_only=True):
    """Counters of the service's own that only grow, one per value of a label."""

    help: str
    label: str
    read: Callable[[], Mapping[str, float]]


class Service(Struct, frozen=True, kw_only=True):
    """All that `chassis.run` has to keep going until the process is told to stop."""

    description: str
    consumers: Sequence[Consumer | BatchConsumer] = ()
    endpoints: Sequence[Endpoint] = ()
    address: Callable[[str], str] | None = None
    """Endpoint's name → subject, of a service each of whose processes is asked by its own name; None:
    `vireo.svc.<service>.<name>`, and any process answers."""
    background: Sequence[Callable[[], Awaitable[None]]] = ()
    """Loops that run until cancelled; one that returns or raises brings the service down."""
    ready: Callable[[], bool] = lambda: True
    """Whether the service can do its work now (its caches are warm, its stores answer)."""
    alarms: Callable[[], Sequence[str]] = tuple
    """What a person should look at though the service does its work, a sentence each; part of its
    health."""
    gauges: Mapping[str, Gauge] = {}
    """By the names under which they are read: `vireo_…`."""
    tallies: Mapping[str, Tally] = {}
    """The same: `vireo_…_total`."""
    close: Callable[[], Awaitable[None]] | None = None
