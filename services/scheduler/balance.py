"""Evening out a fleet with few moves: above `start` it is taken below `stop`, in between left alone. Pure.

Each step takes the move that is worth most, of all that there are: what it takes off the imbalance, less
what it costs to copy. Moves are weighed by numbers first (`imbalance.py`) and asked about rules in the
order of their worth (`draft.py`). At the end, moves that the others made needless are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.plans import Band, PlanOutcome
from services.scheduler.draft import Draft, Step, cost_mib, movable
from services.scheduler.fleet import Fleet
from services.scheduler.imbalance import LOAD, Matrix, Shares, Weights
from services.scheduler.model import Held

MIB_PER_GIB = 1024
LEAST_GAIN = 1e-9
"""What a move must gain at least: less is rounding."""


class Taste(Struct, frozen=True, kw_only=True):
    """How moves are weighed."""

    weights: Weights = Weights()
    cost_per_gib: float = 0.0005
    """What copying a GiB must bring: in the fall of the imbalance, times the number of hosts, so that it
    means the same in small fleets and in large ones."""
    pairs: int = 200_000
    """VMs times hosts weighed at once: first those of the hosts that are furthest from the mean."""


class Balanced(Struct, frozen=True):
    """The moves in their order, each with the figure after it."""

    outcome: PlanOutcome
    steps: tuple[Step, ...]
    scores: tuple[float, ...]
    """Before the first move, and after each."""
    before: Shares
    after: Shares


class _Mover(Struct, frozen=True):
    """A VM that may be moved, in numbers."""

    held: Held
    row: int
    amounts: NDArray[np.float64]
    cost_gib: float


def balance(fleet: Fleet, band: Band, taste: Taste, *, now: float) -> Balanced:
    run = _Run(fleet, taste, now=now)
    before, scores = run.shares.copy(), [run.shares.score()]
    outcome: PlanOutcome = "even"
    if scores[0] > band.start:
        outcome = run.go(band)
    steps = _without_needless(fleet, run, before, band.stop) if outcome == "reached" else run.steps
    after = before.copy()
    for mover, target in steps:
        after.move(mover.amounts, source=mover.row, target=target)
        scores.append(after.score())
    names = run.draft.fleet.table.columns.names
    moves = tuple(Step(mover.held, names[target]) for mover, target in steps)
    return Balanced(outcome, moves, tuple(scores), before, after)


_Moves = list[tuple[_Mover, int]]


class _Run:
    """One way down, step by step."""

    def __init__(self, fleet: Fleet, taste: Taste, *, now: float) -> None:
        self.draft = Draft(fleet, now=now)
        self.shares = Shares(self.draft.fleet.table, taste.weights)
        self.steps: _Moves = []
        self._taste = taste
        self._movers = _movers(self.draft.fleet, self.shares)

    def go(self, band: Band) -> PlanOutcome:
        while self.shares.score() > band.stop:
            if len(self.steps) == band.max_moves:
                return "limited"
            best = self._best()
            if best is None:
                return "stuck"
            self._make(*best)
        return "reached"

    def _make(self, mover: _Mover, target: int) -> None:
        """Each VM moves once at most: then no move undoes another."""
        names = self.draft.fleet.table.columns.names
        self.draft.lift(mover.held)
        self.draft.put(mover.held, names[target])
        self.shares.move(mover.amounts, source=mover.row, target=target)
        self.steps.append((mover, target))
        self._movers.remove(mover)

    def _best(self) -> tuple[_Mover, int] | None:
        for some in self._in_parts():
            best = self._best_of(some)
            if best is not None:
                return best
        return None

    def _in_parts(self) -> Iterator[list[_Mover]]:
        """All that may move, at most `pairs` weighed at once, from the most uneven hosts first."""
        hosts = int(self.shares.counts.sum())
        size = max(self._taste.pairs // max(hosts, 1), 1)
        movers = self._movers
        if len(movers) > size:
            shares = self.shares.shares()
            full = (self.shares.weight[:, None] * shares).sum(axis=0)
            movers = sorted(movers, key=lambda one: -full[one.row])
        for first in range(0, len(movers), size):
            yield movers[first : first + size]

    def _best_of(self, movers: Sequence[_Mover]) -> tuple[_Mover, int] | None:
        """The move worth most that breaks no rule: rules are asked in the order of what the VM could be
        worth at best, until nobody left could be worth more."""
        worth = self._worth(movers)
        top = worth.max(axis=1)
        known = np.zeros(len(movers), np.bool_)
        while True:
            place = int(top.argmax())
            if top[place] == -np.inf:
                return None
            if known[place]:
                return movers[place], int(worth[place].argmax())
            worth[place][~self.draft.allowed(movers[place].held)] = -np.inf
            top[place], known[place] = worth[place].max(), True

    def _worth(self, movers: Sequence[_Mover]) -> Matrix:
        """Of every move of these VMs to every host; minus infinity for those that are worth nothing."""
        amounts = np.stack([one.amounts for one in movers])
        rows = np.array([one.row for one in movers], np.intp)
        cost = np.array([one.cost_gib for one in movers])
        gain = self.shares.score() - self.shares.scores_after(amounts, rows)
        worth: Matrix = gain * self.shares.counts.sum() - self._taste.cost_per_gib * cost[:, None]
        left = self.shares.most - self.shares.used
        for of in range(LOAD):
            worth[amounts[:, of, None] > left[of]] = -np.inf
        worth[:, ~self.shares.counts] = -np.inf
        worth[np.arange(len(rows)), rows] = -np.inf
        worth[(gain < LEAST_GAIN) | (worth <= 0)] = -np.inf
        return worth


def _movers(fleet: Fleet, shares: Shares) -> list[_Mover]:
    """VMs on hosts that count, and pinned to none. A VM's part of its host's load is that of its CPUs
    among all that run there."""
    found = []
    for name, row in fleet.table.columns.row_of.items():
        if not shares.counts[row]:
            continue
        here = fleet.holdings.on(name)
        running = sum(one.assignment.spec.cpus for one in here if one.assignment.power == "running")
        for held in movable(here):
            if held.assignment.spec.on.host is None:
                amounts = np.array([held.demand.cpus, held.demand.memory_mib, 0.0])
                if held.assignment.power == "running":
                    amounts[LOAD] = shares.used[LOAD, row] * held.demand.cpus / running
                found.append(_Mover(held, row, amounts, cost_mib(held) / MIB_PER_GIB))
    return found


# leaving out


def _without_needless(fleet: Fleet, run: _Run, before: Shares, stop: float) -> _Moves:
    """Leave out moves, the costliest first, as long as the others alone do it, by the rules."""
    steps, now = run.steps, run.draft.now
    while True:
        for one in sorted(steps, key=lambda step: -step[0].cost_gib):
            fewer = [step for step in steps if step is not one]
            if _falls_below(before, fewer, stop) and _may_be_made(fleet, fewer, now):
                steps = fewer
                break
        else:
            return steps


def _falls_below(before: Shares, steps: _Moves, stop: float) -> bool:
    """Whether each of these moves brings the figure down, and all of them below `stop`."""
    shares = before.copy()
    score = shares.score()
    for mover, target in steps:
        shares.move(mover.amounts, source=mover.row, target=target)
        if shares.score() > score - LEAST_GAIN:
            return False
        score = shares.score()
    return score <= stop


def _may_be_made(fleet: Fleet, steps: _Moves, now: float) -> bool:
    draft = Draft(fleet, now=now)
    names = draft.fleet.table.columns.names
    for mover, target in steps:
        if not draft.allowed(mover.held)[target]:
            return False
        draft.lift(mover.held)
        draft.put(mover.held, names[target])
    return True
