"""Subscriptions: a name under which programs share events, each handled at least once.

Whoever takes an event has a lease on it: an event that is not settled in time is handed out again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from schemas.ids import HostName, Name, SiteName, VmId
from schemas.queries import EventName

Receipt = Annotated[str, Meta(max_length=300)]
MOST_EVENTS = 100


class Subscription(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which events are handed out under a name. All that is given must hold, one of `types`."""

    name: Name
    types: Annotated[tuple[EventName, ...], Meta(max_length=20)] = ()
    vm: VmId | None = None
    """Events of this VM's own: `vm.…`."""
    host: HostName | None = None
    """What this host's agent says."""
    site: SiteName | None = None
    begin: Literal["now", "start"] = "now"
    """With what comes, or with all that the stream still has. Only where the name is new."""
    lease_s: Annotated[float, Meta(ge=1, le=3600)] = 30
    """An event that is not settled for so long is handed out again."""


class SubscriptionState(Struct, frozen=True, kw_only=True):
    name: Name
    waiting: int
    """Events that are not settled yet."""


class TakeEvents(Struct, frozen=True, kw_only=True):
    """Body of `/v1/subscriptions/{name}/take`: waits until there is an event, or so long."""

    limit: Annotated[int, Meta(ge=1, le=MOST_EVENTS)] = 1
    wait_s: Annotated[float, Meta(ge=0, le=60)] = 20


class TakenEvent(Struct, frozen=True, kw_only=True):
    sequence: int
    delivered: int
    """How often it was handed out, this time included."""
    receipt: Receipt
    """To settle it with."""
    event: Raw
    """The CloudEvent."""


class TakenEvents(Struct, frozen=True, kw_only=True):
    items: tuple[TakenEvent, ...]


class Again(Struct, frozen=True, kw_only=True):
    receipt: Receipt
    after_s: Annotated[float, Meta(ge=0, le=3600)] = 0


class Given(Struct, frozen=True, kw_only=True):
    receipt: Receipt
    reason: Annotated[str, Meta(max_length=2000)]


Receipts = Annotated[tuple[Receipt, ...], Meta(max_length=MOST_EVENTS)]


class SettleEvents(Struct, frozen=True, kw_only=True):
    """Body of `/v1/subscriptions/{name}/settle`: what became of events that were taken."""

    done: Receipts = ()
    working: Receipts = ()
    """Still in hand: the lease begins anew."""
    again: Annotated[tuple[Again, ...], Meta(max_length=MOST_EVENTS)] = ()
    """To be handed out again."""
    dead: Annotated[tuple[Given, ...], Meta(max_length=MOST_EVENTS)] = ()
    """To the dead letters, and not handed out again."""


class SettledEvents(Struct, frozen=True, kw_only=True):
    settled: int
