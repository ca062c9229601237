"""What the inventory says while it makes its tables anew; ids derive from the command's. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from chassis.bus import Outgoing
from schemas import events, subjects
from schemas.commands import RebuildInventory
from schemas.envelope import Envelope
from schemas.ids import derived_id
from schemas.problems import Problem, conflict
from schemas.rebuilds import TableComparison, told
from schemas.subjects import BY_MESSAGE
from schemas.wire import encode, wrap

SENDER = "inventory"
STEPS = 20
"""How often it is told how far it has come."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of it. It is kept, so that a command that comes again comes to the same."""

    rows: int
    tables: tuple[TableComparison, ...]
    taken: bool
    at: datetime

    @property
    def same(self) -> bool:
        return not any(each.differing for each in self.tables)


def step_of(number: int, last: int) -> int:
    """How many of the steps are done."""
    return min(STEPS, number * STEPS // last) if last else STEPS


def progress(
    command: Envelope[RebuildInventory], *, number: int, last: int, site: str, at: datetime
) -> Outgoing:
    step = step_of(number, last)
    said = events.OperationProgressed(step=step, of=STEPS, detail=f"{number} of {last} events")
    return _event(said, f"step {step}", command, site=site, at=at)


def failed(
    command: Envelope[RebuildInventory], problem: Problem, *, site: str, at: datetime
) -> Outgoing:
    """The operation's end where nothing came of it."""
    return _event(
        events.OperationFailed(problem=problem), "operation.failed", command, site=site, at=at
    )


def said_of(outcome: Outcome, command: Envelope[RebuildInventory], *, site: str) -> list[Outgoing]:
    """What was done, then the operation's end. The same each time."""
    done = events.InventoryRebuilt(rows=outcome.rows, tables=outcome.tables, taken=outcome.taken)
    detail = told(outcome.tables, rows=outcome.rows)
    end: Struct = events.OperationSucceeded(detail=detail)
    if command.data.compare_only and not outcome.same:
        end = events.OperationFailed(problem=conflict(detail))
    return [
        _event(each, BY_MESSAGE[type(each)].name, command, site=site, at=outcome.at)
        for each in (done, end)
    ]


def _event(
    data: Any, name: str, command: Envelope[RebuildInventory], *, site: str, at: datetime
) -> Outgoing:
    kind: Literal["inventory", "operation"] = (
        "inventory" if isinstance(data, events.InventoryRebuilt) else "operation"
    )
    about = SENDER if kind == "inventory" else command.id
    envelope = wrap(
        data,
        id=derived_id(command.id, name),
        site=site,
        sender=SENDER,
        at=at,
        about=f"{kind}/{about}",
        operation=command.id,
        cause=command.id,
        actor=command.actor,
        traceparent=command.traceparent,
    )
    subject = subjects.event(type(data), site=site, source=SENDER, id=about)
    return Outgoing(subject=subject, data=encode(envelope), message_id=envelope.id)
