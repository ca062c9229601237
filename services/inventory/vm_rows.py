"""How an event changes a VM's row. Pure.

State follows the newest event that says one; an ending VM only ever becomes deleted; what was assigned
follows the generation. So late and repeated events are harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from schemas import events
from schemas.resources import VmSpec, VmState
from services.inventory.columns import json_of, labels_column, site_of, text
from services.inventory.model import (
    COMMAND_OF_POWER,
    STATE_SAID,
    UNBORN,
    Fact,
    OperationRow,
    VmRow,
)


def new_vm(fact: Fact, id: str) -> VmRow:
    return VmRow(
        id=id,
        site=site_of(fact.envelope),
        created_at=fact.at,
        updated_at=fact.at,
        position=-1,
    )


def vm_after(row: VmRow, fact: Fact) -> VmRow:
    data = fact.envelope.data
    change = VM_CHANGES.get(type(data))
    row = _with_state(row, fact, _state_after(row, data))
    if change is not None:
        row = change(row, fact)
    return _touched(row, fact)


def _touched(row: VmRow, fact: Fact) -> VmRow:
    if fact.position <= row.position:
        return row
    return replace(
        row,
        position=fact.position,
        updated_at=max(row.updated_at, fact.at),
        operation=fact.envelope.operation or row.operation,
    )


def _state_after(row: VmRow, data: Any) -> VmState | None:
    """The state that an event says, or None where it says nothing of it."""
    if row.state == "deleted":
        return None
    said = STATE_SAID.get(type(data))
    if said == "deleted":
        return said
    if row.ending:
        return None
    if isinstance(data, events.VmDefined):
        return "creating" if row.state in UNBORN or row.state == "failed" else None
    if isinstance(data, events.VmFailed):
        return "failed" if row.state in UNBORN else None
    return said


def _with_state(row: VmRow, fact: Fact, state: VmState | None) -> VmRow:
    late = fact.position < row.state_position
    if state is None or (late and state != "deleted"):
        return row
    return replace(
        row,
        state=state,
        state_position=max(fact.position, row.state_position),
        deleted=state == "deleted",
        problem="",
    )


def vm_in_birth(row: VmRow, fact: Fact, operation: OperationRow) -> VmRow:
    """A VM under way, by the operation that makes it; once that succeeded, the VM is as wished.

    Of a VM which is made and left stopped nothing else is ever said. It is a conclusion and no word
    of the VM's own, so whatever the VM's events say, however late, still counts: the state's position
    stays.
    """
    if row.state not in UNBORN or row.ending or not _gives_birth(row, operation):
        return row
    if operation.phase == "succeeded":
        return _touched(replace(row, state=row.power, problem=""), fact)
    if operation.phase == "running":
        return _touched(replace(row, state="creating"), fact)
    return row


def _gives_birth(row: VmRow, operation: OperationRow) -> bool:
    """The create, or what was wished of the VM before it stood."""
    superseded = operation.id == row.operation and operation.command in COMMAND_OF_POWER.values()
    return operation.command == "vm.create" or superseded


TELLS_OF_BIRTH = (events.OperationProgressed, events.OperationSucceeded)


def _scheduled(row: VmRow, fact: Fact) -> VmRow:
    data: events.VmScheduled = fact.envelope.data
    if row.spec is not None and data.generation < row.generation:
        return row
    spec = data.spec
    newest = data.generation >= row.generation
    return replace(
        row,
        name=spec.name,
        host=data.host if newest else row.host,
        power=spec.power if newest else row.power,
        generation=max(data.generation, row.generation),
        cpus=spec.cpus,
        memory_mib=spec.memory_mib,
        disk_gib=sum(disk.size_gib for disk in spec.disks),
        unsized=json_of(_unsized(spec)),
        labels=labels_column(spec.labels),
        spec=json_of(spec),
        placement=json_of(data.placement),
        created_at=min(row.created_at, fact.at),
    )


def _unsized(spec: VmSpec) -> list[str]:
    """Images of the disks that take their image's size, which only the host knows."""
    return [disk.image for disk in spec.disks if disk.image is not None and not disk.size_gib]


def _reassigned(row: VmRow, fact: Fact) -> VmRow:
    data: events.VmReassigned = fact.envelope.data
    ending = row.ending or data.ended
    if data.ended and not row.deleted:
        row = replace(row, state="deleting", state_position=max(fact.position, row.state_position))
    if data.generation < row.generation:
        return replace(row, ending=ending)
    return replace(
        row,
        ending=ending,
        host=data.host,
        power=data.power,
        generation=data.generation,
        problem="",
    )


def _said_problem(row: VmRow, fact: Fact) -> VmRow:
    if fact.position < row.state_position or row.deleted:
        return row
    return replace(row, problem=text(PROBLEM_SAID[type(fact.envelope.data)](fact.envelope.data)))


def _no_problem(row: VmRow, fact: Fact) -> VmRow:
    return row if fact.position < row.state_position else replace(row, problem="")


def _guest_changed(row: VmRow, fact: Fact) -> VmRow:
    if fact.position <= row.guest_position:
        return row
    guest = json_of(fact.envelope.data.guest)
    return replace(row, guest=guest, guest_position=fact.position)


PROBLEM_SAID: dict[type[Any], Callable[[Any], str]] = {
    events.VmCrashed: lambda data: data.detail or "The guest crashed.",
    events.VmFailed: lambda data: data.detail or "The assignment could not be carried out.",
    events.VmDrifted: lambda data: f"Found {data.found}, expected {data.expected}.",
}

VM_CHANGES: dict[type[Any], Callable[[VmRow, Fact], VmRow]] = {
    events.VmScheduled: _scheduled,
    events.VmReassigned: _reassigned,
    events.VmDefined: _no_problem,
    events.VmCrashed: _said_problem,
    events.VmFailed: _said_problem,
    events.VmDrifted: _said_problem,
    events.VmGuestChanged: _guest_changed,
}
"""What an event changes besides the state."""
