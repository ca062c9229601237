"""Plans: moves of VMs that are proposed, shown, compared and checked before anybody makes them.

Values only. A plan says what it relied on, so that it can be told whether that still holds; how one is
made is the scheduler's (`services/scheduler/balance.py`, `drain.py`), how it is checked, too (`plans.py`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import HostName, MessageId, Name, SiteName, VmId
from schemas.resources import Excluded, PlacementRule

MOST_MOVES = 10_000

Share = Annotated[float, Meta(ge=0, le=1)]
MoveCount = Annotated[int, Meta(ge=1, le=MOST_MOVES)]
Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$", description="16 hexadecimal digits")]

PlanKind = Literal["balance", "drain"]
PlanOutcome = Literal["even", "reached", "limited", "stuck"]
"""`even`: within the band, nothing to do. `reached`: with these moves all is as it was asked for.
`limited`: more moves would have been needed than were allowed. `stuck`: no further move may be made, or
none is worth its cost."""


class Imbalance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How unevenly hosts are used: standard deviations of the used share over the hosts, and their
    weighted mean. The formula is in `docs/scheduling.md`."""

    total: float
    cpu: float
    memory: float
    load: float | None = None
    """None where it was measured on fewer than two hosts."""


class Band(Struct, frozen=True, kw_only=True):
    """The band in which a fleet is left alone: moves begin above `start` and go on down to `stop`."""

    start: Share
    stop: Share
    max_moves: MoveCount


class Move(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One VM from one host to another. Moves are made in the order of their plan."""

    vm: VmId
    name: Name
    from_host: HostName
    to_host: HostName
    live: bool
    """Whether it runs (or is paused), so that its memory is copied; of others the disks are."""
    memory_mib: int
    cost_mib: int
    """What is copied."""
    gain: float = 0.0
    """By how much the imbalance falls, where that is what the plan is for."""
    reason: str
    revision: int
    """At which FLEET had the VM's assignment."""


class Stays(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A VM that was to move and cannot, and why."""

    vm: VmId
    name: Name
    detail: str
    excluded_by: dict[PlacementRule, int] = {}
    """How many hosts each rule was the first to exclude."""
    excluded: tuple[Excluded, ...] = ()
    """Some of them, the nearest to fitting first."""


class HostReliance(Struct, frozen=True, kw_only=True):
    """What a plan relied on of a host: its facts and configuration as FLEET had them, and which VMs it
    held (a fingerprint of their ids)."""

    host: HostName
    facts_revision: int
    config_revision: int
    vms: Fingerprint


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Moves that were thought through together, with what comes of them and what they rest on."""

    id: MessageId
    kind: PlanKind
    made_at: datetime
    site: SiteName
    outcome: PlanOutcome
    detail: str
    """The outcome in words."""
    host: HostName | None = None
    """The host to be emptied."""
    band: Band | None = None
    """What was to be reached by evening out."""
    policies: dict[Name, int] = {}
    """The policies by which it was decided, and their versions."""
    before: Imbalance
    after: Imbalance
    cost_mib: int = 0
    moves: Annotated[tuple[Move, ...], Meta(max_length=MOST_MOVES)] = ()
    stays: Annotated[tuple[Stays, ...], Meta(max_length=MOST_MOVES)] = ()
    relies_on: Annotated[tuple[HostReliance, ...], Meta(max_length=2 * MOST_MOVES)] = ()


class PlanCheck(Struct, frozen=True, kw_only=True):
    """A plan that still holds: nothing that it relied on has changed."""

    plan: MessageId
    valid: Literal[True] = True
    checked_at: datetime


# requests


class PlanBalance(Struct, frozen=True, kw_only=True):
    """Scheduler `balance.plan`: a `Plan`. What is left out is what the site's settings say."""

    start: Share | None = None
    stop: Share | None = None
    max_moves: MoveCount | None = None


class PlanDrain(Struct, frozen=True, kw_only=True):
    """Scheduler `drain.plan`: a `Plan`."""

    host: HostName
