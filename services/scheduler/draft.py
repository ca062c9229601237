"""A copy of the fleet on which moves are tried, one after the other, by the rules of placement.

Pure. What moves are worth trying is decided in `drain.py` and `balance.py`; here is what a move may not
do: break a rule of the VM on its new host, or one that another VM has about it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from schemas.resources import Excluded, PlacementRule
from services.scheduler.choice import Choice
from services.scheduler.columns import Bools
from services.scheduler.compiled import CompiledPolicy
from services.scheduler.fleet import Fleet
from services.scheduler.model import Ask, Held
from services.scheduler.others import Others
from services.scheduler.placement import NoHost, best_node
from services.scheduler.rules import FITS, ORDER

MIB_PER_GIB = 1024
UNKNOWN_POLICY = "its policy is not known"
NEEDED = "the rules of other VMs would be broken"


class Step(Struct, frozen=True):
    """A move that was tried and may be made."""

    held: Held
    """The VM where it was before."""
    to_host: str
    score: float = 0.0
    """Of the new host, by the VM's policy."""
    fitting: int = 0
    """How many hosts fitted."""


class Refusal(Struct, frozen=True):
    """Why a VM can go nowhere."""

    held: Held
    detail: str
    excluded_by: dict[PlacementRule, int] = {}
    excluded: tuple[Excluded, ...] = ()


class Draft:
    """A fleet to be changed at will, at one moment."""

    def __init__(self, fleet: Fleet, *, now: float) -> None:
        self.fleet = fleet.copy()
        self.now = now
        table = self.fleet.table
        table.settle()
        table.pass_time(now)
        self._others: Others | None = None

    @property
    def others(self) -> Others:
        """Made when it is asked for first: after what is changed of hosts beforehand."""
        if self._others is None:
            self._others = Others(self.fleet)
        return self._others

    def lift(self, held: Held) -> None:
        self.others.lift(held)
        self.fleet.lift(held.assignment.vm, held.assignment.host)

    def put(self, held: Held, host: str | None = None) -> Held:
        """The VM on a host, or where it was."""
        here = held.assignment
        moved = host is not None and host != here.host
        if host is not None and moved:
            row = self.fleet.table.columns.row_of[host]
            node = best_node(self.fleet.table, self.fleet.request(here.spec), row)
            placement = replace(here.placement, host=host, numa_node=node)
            here = replace(here, host=host, placement=placement)
        self.fleet.reserve(here)
        now = self.fleet.holdings.at(here.vm, here.host)
        assert now is not None
        self.others.put(now, moved=moved)
        return now

    def policy_of(self, held: Held) -> CompiledPolicy | None:
        return self.fleet.policy_of(held.assignment.spec)

    def choose(self, held: Held, policy: CompiledPolicy) -> Choice:
        """For a VM that was lifted: every host judged by its own rules."""
        return self.fleet.choose(held.assignment.spec, policy, self._ask(held))

    def allowed(self, held: Held) -> Bools:
        """For a VM that is in its place: the rows of hosts that it may move to."""
        policy = self.policy_of(held)
        if policy is None:
            return np.zeros(len(self.fleet.table.columns), np.bool_)
        self.lift(held)
        fits: Bools = self.choose(held, policy).verdicts == FITS
        bearable = self.others.allows(held)
        self.put(held)
        fits[self.fleet.table.columns.row_of[held.assignment.host]] = False
        return fits if bearable is None else fits & bearable

    def why_not(self, held: Held, host: str) -> str:
        """For a VM that was lifted: what keeps it from this host; empty if nothing does."""
        policy, row = self.policy_of(held), self.fleet.table.columns.row_of[host]
        if policy is None:
            return UNKNOWN_POLICY
        verdict = int(self.choose(held, policy).verdicts[row])
        if verdict != FITS:
            return ORDER[verdict - 1]
        bearable = self.others.allows(held)
        return "" if bearable is None or bearable[row] else NEEDED

    def why_nowhere(self, held: Held) -> Refusal:
        """For a VM that was lifted and found no place, in words."""
        policy = self.policy_of(held)
        if policy is None:
            return Refusal(held, UNKNOWN_POLICY)
        outcome = self.fleet.place(held.assignment.spec, policy, self._ask(held))
        if isinstance(outcome, NoHost):
            detail = outcome.problem.detail
            return Refusal(held, detail, outcome.excluded_by, outcome.excluded)
        detail = f"on each host that would take it, {NEEDED}"
        return Refusal(held, detail, outcome.excluded_by, outcome.excluded)

    def _ask(self, held: Held) -> Ask:
        drawn = hashlib.sha256(held.assignment.vm.encode()).digest()[:8]
        return Ask(now=self.now, chance=int.from_bytes(drawn, "big"))


def is_live(held: Held) -> bool:
    """Whether its memory has to be copied: it runs, or is paused."""
    return held.assignment.power != "stopped"


def cost_mib(held: Held) -> int:
    """What a move copies: the memory of a guest that runs, else its disks."""
    if is_live(held):
        return held.assignment.spec.memory_mib
    pools = sum(count for (kind, _), count in held.demand.counted if kind == "pool")
    return (held.demand.disk_gib + pools) * MIB_PER_GIB


def movable(held: Sequence[Held]) -> list[Held]:
    """Those that are to live on: what has ended goes by itself."""
    return [one for one in held if not one.assignment.ended]
