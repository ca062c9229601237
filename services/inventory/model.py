"""The inventory's values: a stored event, the rows that are projected from events, and their tables.

What belongs here: rows as Structs (their fields are the columns of the tables of the same name), the
order of phases, which event says which state. What does not: how a row changes (`decide`), SQL.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from schemas import events
from schemas.envelope import Envelope
from schemas.ledger import GENESIS, SEQUENCE_BITS
from schemas.resources import OperationPhase, PowerState, VmState

MAX_POSITION = (1 << 63) - 1


def position_of(epoch: int, sequence: int) -> int:
    """Where an event stands in the order of all events.

    A stream that was lost and made anew counts from 1 again; it then gets the next epoch, so that
    what it says is newer than everything the lost one said.
    """
    return epoch << SEQUENCE_BITS | sequence


class Head(Struct, frozen=True, kw_only=True):
    """The end of a stream's ledger: its last row, and the furthest place in the stream accounted for."""

    epoch: int = 0
    number: int = 0
    position: int = 0
    hash: bytes = GENESIS
    received_at: datetime


class Arrival(Struct, frozen=True, kw_only=True):
    """A decoded event as the stream holds it; `raw` are its bytes, kept for ever unchanged."""

    envelope: Envelope[Any]
    raw: bytes
    sequence: int


class Fact(Struct, frozen=True, kw_only=True):
    """An event at its position; `at` is its time in UTC."""

    envelope: Envelope[Any]
    position: int
    at: datetime


class VmRow(Struct, frozen=True, kw_only=True):
    """A VM. `spec` is None until `vm.scheduled` has told it: such a row is never shown.

    `position`, `state_position` and `guest_position` are those of the newest event that touched the
    row, its state and its guest: an older event that comes late changes nothing that is newer.
    `labels` and `unsized` (images whose own size a disk has) are JSON, like spec, guest, placement.
    """

    id: str
    site: str
    created_at: datetime
    updated_at: datetime
    position: int
    state_position: int = -1
    guest_position: int = -1
    name: str = ""
    host: str = ""
    state: VmState = "scheduled"
    power: PowerState = "running"
    generation: int = 0
    ending: bool = False
    deleted: bool = False
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    unsized: str = "[]"
    labels: str = "{}"
    spec: str | None = None
    guest: str | None = None
    placement: str | None = None
    operation: str | None = None
    problem: str = ""


class OperationRow(Struct, frozen=True, kw_only=True):
    """An operation. Whichever of its events comes first makes the row; `problem`, `placement` are JSON."""

    id: str
    command: str = ""
    kind: str = "vm"
    target: str = ""
    phase: OperationPhase = "accepted"
    actor: str = ""
    created_at: datetime
    updated_at: datetime
    position: int
    progress: float = 0.0
    detail: str = ""
    host: str | None = None
    problem: str | None = None
    placement: str | None = None


class HostRow(Struct, frozen=True, kw_only=True):
    """A host. `facts` (JSON) is None until it has registered: such a row is never shown.

    `labels` are those that count: the operators' over the agent's.
    """

    name: str
    site: str
    state: str = "online"
    facts: str | None = None
    config: str | None = None
    config_generation: int = -1
    labels: str = "{}"
    registered_at: datetime
    updated_at: datetime
    state_position: int = -1
    facts_position: int = -1


class Rows(Struct, frozen=True, kw_only=True):
    """The rows that one event concerns; None where there is none (yet)."""

    vm: VmRow | None = None
    operation: OperationRow | None = None
    host: HostRow | None = None


class Tables(Struct, frozen=True, kw_only=True):
    """Rows by id: what a batch of events concerns, or what it changed."""

    vms: dict[str, VmRow] = {}
    operations: dict[str, OperationRow] = {}
    hosts: dict[str, HostRow] = {}


PHASE_RANK: dict[OperationPhase, int] = {
    "accepted": 0,
    "scheduled": 1,
    "running": 2,
    "succeeded": 3,
    "failed": 3,
    "cancelled": 3,
}
"""A phase gives way only to one of a higher rank: operations never go back, and end once."""

PHASE_SAID: dict[type[Any], OperationPhase] = {
    events.OperationAccepted: "accepted",
    events.VmScheduled: "scheduled",
    events.VmReassigned: "scheduled",
    events.OperationProgressed: "running",
    events.VmDefined: "running",
    events.VmStarted: "running",
    events.VmStopped: "running",
    events.VmPaused: "running",
    events.VmResumed: "running",
    events.VmRebooted: "running",
    events.VmDeleted: "running",
    events.VmFailed: "running",
    events.HostConfigured: "running",
    events.FleetRestored: "running",
    events.OperationSucceeded: "succeeded",
    events.OperationFailed: "failed",
}

STATE_SAID: dict[type[Any], VmState] = {
    events.VmScheduled: "scheduled",
    events.VmStarted: "running",
    events.VmResumed: "running",
    events.VmPaused: "paused",
    events.VmStopped: "stopped",
    events.VmCrashed: "crashed",
    events.VmDeleted: "deleted",
}
"""Events after which a VM is in one state, whatever it was before. The others: `decide`."""

UNBORN: frozenset[VmState] = frozenset({"scheduled", "creating"})
"""States of a VM of which the agent has not yet said that it stands."""

COMMAND_OF_POWER: dict[PowerState, str] = {
    "running": "vm.start",
    "stopped": "vm.stop",
    "paused": "vm.pause",
}
"""Which command a new generation came from, while `operation.accepted` has not been seen."""
