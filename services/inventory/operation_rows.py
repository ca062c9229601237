"""How an event changes an operation's row. Pure.

Whichever of an operation's events comes first makes the row; phases only ever go forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from schemas import events
from schemas.resources import OperationPhase
from services.inventory.columns import json_of, text
from services.inventory.model import (
    COMMAND_OF_POWER,
    PHASE_RANK,
    PHASE_SAID,
    Fact,
    OperationRow,
)


def operation_after(row: OperationRow | None, fact: Fact, id: str) -> OperationRow:
    row = row or OperationRow(id=id, created_at=fact.at, updated_at=fact.at, position=-1)
    data = fact.envelope.data
    change = OPERATION_CHANGES.get(type(data))
    ended = PHASE_RANK[row.phase] == PHASE_RANK["succeeded"]
    if change is not None and not (ended and type(data) in _ENDINGS):
        row = change(row, fact)
    return replace(
        row,
        phase=_phase_after(row, data),
        actor=row.actor or text(fact.envelope.actor or ""),
        position=max(row.position, fact.position),
        updated_at=row.updated_at if ended else max(row.updated_at, fact.at),
    )


def _phase_after(row: OperationRow, data: Any) -> OperationPhase:
    said = PHASE_SAID.get(type(data))
    if said is None or PHASE_RANK[said] <= PHASE_RANK[row.phase]:
        return row.phase
    return said


def _accepted(row: OperationRow, fact: Fact) -> OperationRow:
    data: events.OperationAccepted = fact.envelope.data
    return replace(
        row,
        command=text(data.command),
        kind=data.kind,
        target=text(data.target),
        actor=text(fact.envelope.actor or row.actor),
        created_at=fact.at,
    )


def _placed(row: OperationRow, fact: Fact) -> OperationRow:
    data: events.VmScheduled = fact.envelope.data
    return replace(
        row,
        command=row.command or "vm.create",
        target=row.target or data.vm,
        host=data.host,
        placement=json_of(data.placement),
    )


def _taken_up(row: OperationRow, fact: Fact) -> OperationRow:
    data: events.VmReassigned = fact.envelope.data
    guess = "vm.delete" if data.ended else COMMAND_OF_POWER[data.power]
    return replace(row, command=row.command or guess, target=row.target or data.vm, host=data.host)


def _configured(row: OperationRow, fact: Fact) -> OperationRow:
    host = fact.envelope.data.config.host
    if row.target:
        return replace(row, host=host)
    return replace(row, command="host.configure", kind="host", target=host, host=host)


def _progressed(row: OperationRow, fact: Fact) -> OperationRow:
    data: events.OperationProgressed = fact.envelope.data
    if fact.position <= row.position or PHASE_RANK[row.phase] > PHASE_RANK["running"]:
        return row
    share = data.step / data.of if data.of > 0 else 0.0
    progress = max(row.progress, min(max(share, 0.0), 1.0))
    return replace(row, progress=progress, detail=text(data.detail))


def _succeeded(row: OperationRow, fact: Fact) -> OperationRow:
    return replace(row, progress=1.0, detail=text(fact.envelope.data.detail))


def _failed(row: OperationRow, fact: Fact) -> OperationRow:
    problem = fact.envelope.data.problem
    return replace(row, problem=json_of(problem), detail=text(problem.detail or problem.title))


_ENDINGS = (events.OperationSucceeded, events.OperationFailed)

OPERATION_CHANGES: dict[type[Any], Callable[[OperationRow, Fact], OperationRow]] = {
    events.OperationAccepted: _accepted,
    events.VmScheduled: _placed,
    events.VmReassigned: _taken_up,
    events.HostConfigured: _configured,
    events.OperationProgressed: _progressed,
    events.OperationSucceeded: _succeeded,
    events.OperationFailed: _failed,
}
