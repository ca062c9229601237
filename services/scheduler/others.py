"""The rules that placed VMs have about others, for moves: what one VM's leaving or coming does to them.

Pure. A new VM is judged by its own rules, and a required anti-affinity works both ways there. A VM that
moves takes itself away, too: another's required affinity may lose the one it is near to, and another's
spread may become uneven. Here it is told which hosts a VM may go to without breaking what held.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np
from msgspec import Struct

from services.scheduler.columns import Bools, Floats, Ints
from services.scheduler.compiled import CompiledPolicy, judge_hosts
from services.scheduler.fleet import Fleet
from services.scheduler.groups import RowCounts
from services.scheduler.model import Held
from services.scheduler.requests import Request
from services.scheduler.rules import CODE, FITS
from services.scheduler.selectors import Selector, matches


class Concern(Struct, frozen=True):
    """A required rule about other VMs, held by VMs of one kind: `kind` is what decides which hosts count
    for their spread. `max_skew` is None for affinity."""

    chosen: Selector
    topology: str | None
    max_skew: int | None = None
    kind: Hashable = None


class _Holders(Struct):
    """Who holds a concern, per host: those that it is about themselves, of these the ones that were moved
    here, and the others."""

    own: RowCounts
    moved: RowCounts
    other: RowCounts
    request: Request
    policy: CompiledPolicy


class Others:
    """The concerns of the VMs on a fleet. Who lifts or puts a VM says so here."""

    def __init__(self, fleet: Fleet) -> None:
        """The fleet's rows stay as they are, and so do time and what operators have set."""
        self._fleet = fleet
        self._held: dict[Concern, _Holders] = {}
        self._counted: dict[Hashable, Bools] = {}
        for host in fleet.hosts():
            for held in fleet.holdings.on(host.name):
                self.put(held)

    def put(self, held: Held, *, moved: bool = False) -> None:
        """The VM is on its host; `moved`: not where it was at first. Such a one is not lifted again."""
        for holders, row, is_own in self._concerned(held):
            (holders.own if is_own else holders.other).add(row, 1)
            if moved and is_own:
                holders.moved.add(row, 1)

    def lift(self, held: Held) -> None:
        for holders, row, is_own in self._concerned(held):
            (holders.own if is_own else holders.other).add(row, -1)

    def allows(self, held: Held) -> Bools | None:
        """For a VM that was lifted from its host, the hosts that it may go to; None: no concern is
        about it."""
        allowed: Bools | None = None
        row = self._fleet.table.columns.row_of[held.assignment.host]
        labels = held.assignment.spec.labels
        for concern, holders in self._held.items():
            if matches(concern.chosen, labels):
                here = self._allows(concern, holders, row)
                allowed = here if allowed is None else allowed & here
        return allowed

    # parts

    def _concerned(self, held: Held) -> Iterator[tuple[_Holders, int, bool]]:
        """The holders that a VM is one of, its row, and whether each concern is about itself."""
        here = held.assignment
        if here.ended or not (here.spec.on.affinity or here.spec.on.spread):
            return
        policy = self._fleet.policy_of(here.spec)
        if policy is None:
            return
        request = self._fleet.request(here.spec)
        row = self._fleet.table.columns.row_of[here.host]
        for concern in _concerns(request, policy):
            holders = self._held.get(concern)
            if holders is None:
                holders = _Holders(RowCounts(), RowCounts(), RowCounts(), request, policy)
                self._held[concern] = holders
            yield holders, row, matches(concern.chosen, here.spec.labels)

    def _allows(self, concern: Concern, holders: _Holders, row: int) -> Bools:
        codes, count = self._domains(concern.topology)
        there = _per_domain(self._fleet.table.groups.counts(concern.chosen), codes, count)
        own = _per_domain(holders.own, codes, count)
        other = _per_domain(holders.other, codes, count)
        if concern.max_skew is None:
            moved = _per_domain(holders.moved, codes, count)
            return _keeps_near(codes, there, own, moved, other, row)
        counted = np.zeros(count, np.bool_)
        possible = codes[self._may_count(holders)]
        counted[possible[possible >= 0]] = True
        return _keeps_even(codes, there, own + other > 0, counted, row, concern.max_skew)

    def _domains(self, topology: str | None) -> tuple[Ints, int]:
        table = self._fleet.table
        if topology is None:
            return np.arange(len(table.columns), dtype=np.int32), len(table.columns)
        return table.labels.domains(topology)

    def _may_count(self, holders: _Holders) -> Bools:
        """The hosts where such a VM could ever be: those that no rule up to `taints` excludes."""
        key = (holders.request.shape, holders.policy.key)
        found = self._counted.get(key)
        if found is None:
            table = self._fleet.table
            verdicts = judge_hosts(table, holders.request, holders.policy, table.columns.all)
            found = self._counted[key] = (verdicts == FITS) | (verdicts > CODE["taints"])
        return found


def _concerns(request: Request, policy: CompiledPolicy) -> Iterator[Concern]:
    required = {code for code, _ in policy.fleet_rules}
    if CODE["affinity"] in required:
        for chosen, near in request.near:
            if near.required:
                yield Concern(chosen, near.topology)
    if CODE["spread"] in required:
        kind = (request.shape, policy.key)
        for chosen, said in request.spread:
            if said.required:
                yield Concern(chosen, said.topology, said.max_skew, kind)


def _per_domain(counts: RowCounts, codes: Ints, domains: int) -> Floats:
    at = codes[counts.rows]
    there = at >= 0
    return np.bincount(at[there], counts.counts[there], minlength=domains).astype(np.float64)


def _keeps_near(
    codes: Ints, there: Floats, own: Floats, moved: Floats, other: Floats, row: int
) -> Bools:
    """Who asks to be near the VM must still have somebody: one that is chosen, and not itself."""
    home = codes[row]
    if there.sum() == 1 and (moved * there).any():
        # The first of a group that is being moved as a whole waits for the rest.
        waits: Bools = codes == there.argmax()
        return waits
    free = np.ones(len(codes), np.bool_)
    if home < 0:
        return free
    alone = (other[home] > 0 and there[home] < 1) or (own[home] > 0 and there[home] < 2)
    kept: Bools = codes == home if alone else free
    return kept


def _keeps_even(
    codes: Ints,
    there: Floats,
    holding: Bools,
    counted: Bools,
    row: int,
    max_skew: int,
) -> Bools:
    """No domain that holds VMs of this spread may be further above the emptiest than is allowed, or than
    it was with the VM at home."""
    if not holding.any():
        return np.ones(len(codes), np.bool_)
    before, home = there.copy(), codes[row]
    if home >= 0:
        before[home] += 1.0
    bound = np.maximum(before - _least(before, counted), max_skew)
    floor = float((there - bound)[holding].max())
    least, risen = _least(there, counted), _risen(there, counted)
    fits = (risen >= floor) & ~(holding & (there + 1.0 - risen > bound))
    # The last is for hosts in no domain.
    allowed: Bools = np.append(fits, least >= floor)[codes]
    return allowed


def _least(there: Floats, counted: Bools) -> float:
    return float(there[counted].min()) if counted.any() else 0.0


def _risen(there: Floats, counted: Bools) -> Floats:
    """How many the emptiest domain holds with one more in each."""
    low = np.sort(there[counted])
    if not len(low):
        return np.zeros(len(there))
    alone = counted & (there == low[0]) & (len(low) < 2 or low[1] > low[0])
    risen: Floats = np.where(alone, low[0] + 1.0, low[0])
    return risen
