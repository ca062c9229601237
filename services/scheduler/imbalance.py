"""How unevenly a fleet is used, and what a move would do about it, for all moves at once.

Pure. The figure is the weighted mean, over CPU, memory and measured load, of the standard deviation of
the used share over the hosts, as in Ganeti's cluster score and Watcher's workload stabilization. The
formulas stand in `docs/scheduling.md`. Nothing here knows a rule.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.plans import Imbalance
from services.scheduler.columns import Bools, Floats
from services.scheduler.table import Table

DIGITS = 6
CPU, MEMORY, LOAD = 0, 1, 2

Matrix = NDArray[np.float64]


class Weights(Struct, frozen=True, kw_only=True):
    """How much each resource counts."""

    cpu: float = 1.0
    memory: float = 1.0
    load: float = 1.0


class Shares:
    """What each host has and uses of each resource, a row per host of the table, followed through moves.

    Only hosts count that may take VMs: those that answer and are not in maintenance. Load counts where
    it was measured, in CPUs kept busy.
    """

    def __init__(self, table: Table, weights: Weights) -> None:
        columns, at = table.columns, table.columns.all
        self.counts: Bools = columns.alive[at] & ~columns.maintenance[at]
        measured = columns.fresh[at] & ~np.isnan(columns.load[at])
        cpus = columns.cpus[at]
        self.most: Matrix = np.stack([columns.most_cpus[at], columns.most_memory[at], cpus])
        busy = np.where(measured, columns.load[at], 0.0) * cpus
        self.used: Matrix = np.stack([columns.used_cpus[at], columns.used_memory[at], busy])
        self.known: NDArray[np.bool_] = (self.most > 0) & self.counts
        self.known[LOAD] &= measured
        weight = np.array([weights.cpu, weights.memory, weights.load])
        self.weight = np.where(self.known.sum(axis=1) > 1, weight, 0.0)

    def copy(self) -> Shares:
        twin: Shares = object.__new__(Shares)
        twin.counts, twin.most, twin.known = self.counts, self.most, self.known
        twin.weight, twin.used = self.weight, self.used.copy()
        return twin

    def move(self, amounts: Floats, *, source: int, target: int) -> None:
        """A VM of these amounts (one per resource) goes from one row to another."""
        self.used[:, source] -= amounts
        self.used[:, target] += amounts

    def shares(self) -> Matrix:
        """Used ÷ what there is, per resource and host; 0 where that is not known."""
        return np.divide(self.used, self.most, out=np.zeros_like(self.used), where=self.known)

    def imbalance(self) -> Imbalance:
        spread = self._spread(*self._sums(self.shares()))
        cpu, memory, load = (round(float(one), DIGITS) for one in spread)
        total = round(float(self._total(spread)), DIGITS)
        return Imbalance(
            total=total, cpu=cpu, memory=memory, load=load if self.weight[LOAD] else None
        )

    def score(self) -> float:
        """The figure, unrounded."""
        return float(self._total(self._spread(*self._sums(self.shares()))))

    def scores_after(self, amounts: Matrix, sources: NDArray[np.intp]) -> Matrix:
        """The figure after each single move: a row per VM (with its amounts, a column per resource, and
        the row of its host), a column per host."""
        shares = self.shares()
        squares, sums = self._sums(shares)
        total = np.zeros((len(sources), self.used.shape[1]))
        for of in (CPU, MEMORY, LOAD):
            if not self.weight[of]:
                continue
            count = self.known[of].sum()
            taken = self._parts(amounts[:, of], of, sources)
            given = np.divide(
                amounts[:, of, None],
                self.most[of],
                out=np.zeros_like(total),
                where=self.known[of],
            )
            here = shares[of]
            # (u + x)² − u² on both sides; the mean moves where hosts differ in size.
            square = (taken * (taken - 2 * here[sources]))[:, None] + given * (given + 2 * here)
            mean = (sums[of] - taken[:, None] + given) / count
            variance = (squares[of] + square) / count - mean * mean
            total += self.weight[of] * np.sqrt(np.maximum(variance, 0.0))
        whole = float(self.weight.sum())
        return total / whole if whole else total

    def _parts(self, amounts: Floats, of: int, rows: NDArray[np.intp]) -> Floats:
        known, most = self.known[of][rows], self.most[of][rows]
        parts: Floats = np.divide(amounts, most, out=np.zeros_like(amounts), where=known)
        return parts

    def _sums(self, shares: Matrix) -> tuple[Floats, Floats]:
        return (shares * shares).sum(axis=1), shares.sum(axis=1)

    def _spread(self, squares: Floats, sums: Floats) -> Floats:
        """Standard deviations over the hosts that are known, per resource."""
        count = np.maximum(self.known.sum(axis=1), 1)
        variance = squares / count - (sums / count) ** 2
        spread: Floats = np.sqrt(np.maximum(variance, 0.0))
        return spread

    def _total(self, spread: Floats) -> float:
        whole = float(self.weight.sum())
        return float((self.weight * spread).sum() / whole) if whole else 0.0
