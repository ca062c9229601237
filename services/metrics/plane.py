"""What is known of the control plane beside telemetry: hosts that should be heard, names, what waits. Pure.

What belongs here: values, and what a message in FLEET makes of them. Asking for them is `watch`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from chassis.bus import Incoming
from chassis.kv import entry
from schemas.audit import LedgerCheck
from schemas.resources import Host

SERVICES = ("gateway", "inventory", "scheduler")
"""Whose readiness is asked for; the metrics service itself is the one that answers."""

GapState = Literal["open", "missing", "unreadable"]


class VmName(Struct, frozen=True, kw_only=True):
    """What a VM is called, and by whom it is owned."""

    name: str
    project: str


class LedgerFacts(Struct, frozen=True, kw_only=True):
    """How the record is."""

    rows: int
    gaps: Mapping[GapState, int]
    """Places that were passed by, by what became of them."""
    alarms: int
    """Sentences that the inventory has to say of it."""


class Walk(Struct, frozen=True, kw_only=True):
    """How far the record's chain was checked, row by row, and what was found wrong."""

    through: int = 0
    faults: int = 0
    broken_before: int | None = None
    """Faults of the last walk that came to its end; None before the first did."""

    @property
    def broken(self) -> int:
        """A fault counts as long as no later walk came by without it."""
        return max(self.faults, self.broken_before or 0)


class Plane(Struct, frozen=True, kw_only=True):
    """All of it; what could not be asked for is None or empty."""

    hosts: tuple[Host, ...] | None = None
    names: Mapping[str, VmName] = {}
    ready: Mapping[str, bool] = {}
    """Services, and whether they can do their work."""
    behind: Mapping[tuple[str, str], int] = {}
    """Messages that a durable consumer has before it, by stream and consumer."""
    dead_letters: int | None = None
    """So many were ever written."""
    ledger: LedgerFacts | None = None
    walk: Walk = Walk()


class _Names(Struct, frozen=True, kw_only=True):
    """What is read of an assignment here."""

    name: str
    project: str | None = None


class _Assignment(Struct, frozen=True, kw_only=True):
    spec: _Names
    ended: bool = False


_assignments = msgspec.json.Decoder(_Assignment)


def learn_name(names: dict[str, VmName], message: Incoming) -> None:
    """What an assignment in FLEET says of its VM's name. A VM may be assigned to two hosts for a while,
    so only the end of it as a whole is forgotten: an assignment that says so, or is gone for good."""
    change = entry(message)
    vm = change.key.split(".")[1]
    if change.value is None:
        names.pop(vm, None)
        return
    try:
        assignment = _assignments.decode(change.value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    names[vm] = VmName(name=assignment.spec.name, project=assignment.spec.project or "")


def walked(before: Walk, found: LedgerCheck) -> Walk:
    """After one more piece of the record was checked; at its end the next walk begins."""
    faults = before.faults + len(found.faults)
    if found.ended or found.through >= found.last:
        return Walk(through=0, faults=0, broken_before=faults)
    return Walk(through=found.through, faults=faults, broken_before=before.broken_before)


def gap_counts(gaps: list[dict[str, Any]]) -> dict[GapState, int]:
    """Places in the stream, by the state of their gap."""
    counts: dict[GapState, int] = {"open": 0, "missing": 0, "unreadable": 0}
    for gap in gaps:
        state = gap["state"]
        if state in counts:
            counts[state] += gap["last"] - gap["first"] + 1
    return counts
