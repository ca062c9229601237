"""Choosing a host: an exact scan of the whole fleet, kept per kind of request and brought up to date.

What was worked out for one request holds for the next of the same shape, but for the rows that changed
since: those alone are judged and scored again, and the best is found by one pass over the scores.
Above `Limits.exact_hosts` hosts a part of the fleet is scanned at a time, beginning where the last scan
ended, until one fits; before it is said that none does, all have been seen.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from msgspec import Struct

from services.scheduler.columns import Floats, Rows
from services.scheduler.compiled import (
    CompiledPolicy,
    Verdicts,
    is_local,
    judge_fleet,
    judge_hosts,
    parts,
    score,
)
from services.scheduler.requests import Request
from services.scheduler.rules import FITS, UNSEEN
from services.scheduler.table import Table

KEPT_BYTES = 24 << 20
"""For what is kept of earlier scans, all requests together."""
BYTES_PER_HOST = 9
MOSTLY = 4
"""If more than one row in so many has changed, all are worked out again."""


class Choice(Struct, frozen=True):
    """`scores` are of all hosts, and minus infinity where a rule excludes; `best` is None if all are."""

    best: int | None
    verdicts: Verdicts
    scores: Floats


class _Kept(Struct):
    epoch: int
    noted: int
    verdicts: Verdicts
    scores: Floats
    """Of hosts that fit, before rules about other VMs; minus infinity elsewhere."""


class Chooser:
    """A table and what is kept of the scans of it. One per table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._kept: dict[Hashable, _Kept] = {}

    def choose(
        self, request: Request, policy: CompiledPolicy, *, chance: int, now: float
    ) -> Choice:
        """The best host for a request now. `chance`: 64 random bits, for policies that draw lots."""
        table = self.table
        table.settle()
        table.pass_time(now)
        local = is_local(policy, request)
        if len(table.columns) > table.limits.exact_hosts and local and not request.spread:
            return self._scan_in_parts(request, policy, chance)
        kept = self._up_to_date(request, policy, local)
        verdicts = judge_fleet(table, request, policy, kept.verdicts)
        if local:
            scores = kept.scores.copy()
        else:
            scores = self._scores(request, policy, table.columns.all, verdicts, chance)
        scores[verdicts != FITS] = -np.inf
        return Choice(_best(scores), verdicts, scores)

    def _scores(
        self,
        request: Request,
        policy: CompiledPolicy,
        at: Rows,
        verdicts: Verdicts,
        chance: int,
    ) -> Floats:
        known = parts(self.table, request, policy, at, verdicts=verdicts, chance=chance)
        return score(known, len(self.table.columns.cpus[at]))

    # keeping

    def _up_to_date(self, request: Request, policy: CompiledPolicy, local: bool) -> _Kept:
        key = (request.shape, policy.content, local)
        kept = self._kept.pop(key, None)
        if kept is None or kept.epoch != self.table.epoch:
            kept = self._work_out(request, policy, local)
        else:
            self._follow(kept, request, policy, local)
        self._kept[key] = kept
        while len(self._kept) * max(len(self.table.columns), 1) * BYTES_PER_HOST > KEPT_BYTES:
            if len(self._kept) == 1:
                break
            self._kept.pop(next(iter(self._kept)))
        return kept

    def _work_out(self, request: Request, policy: CompiledPolicy, local: bool) -> _Kept:
        table = self.table
        verdicts = judge_hosts(table, request, policy, table.columns.all)
        scores = np.zeros(0)
        if local:
            scores = self._scores(request, policy, table.columns.all, verdicts, 0)
            scores[verdicts != FITS] = -np.inf
        return _Kept(table.epoch, len(table.notes), verdicts, scores)

    def _follow(self, kept: _Kept, request: Request, policy: CompiledPolicy, local: bool) -> None:
        """Judge and score the rows that changed since."""
        table = self.table
        if kept.noted == len(table.notes):
            return
        changed = set(table.notes[kept.noted :])
        kept.noted = len(table.notes)
        if len(changed) * MOSTLY > len(table.columns):
            anew = self._work_out(request, policy, local)
            kept.verdicts, kept.scores = anew.verdicts, anew.scores
            return
        rows = np.fromiter(changed, np.intp, len(changed))
        verdicts = judge_hosts(table, request, policy, rows)
        kept.verdicts[rows] = verdicts
        if local:
            scores = self._scores(request, policy, rows, kept.verdicts, 0)
            scores[verdicts != FITS] = -np.inf
            kept.scores[rows] = scores

    # very large fleets

    def _scan_in_parts(self, request: Request, policy: CompiledPolicy, chance: int) -> Choice:
        table, count = self.table, len(self.table.columns)
        seen = np.full(count, UNSEEN, np.int8)
        scores = np.full(count, -np.inf)
        size = table.limits.part_hosts
        starts = range(0, count, size)
        first = table.cursor // size % len(starts)
        for start in (*starts[first:], *starts[:first]):
            at = slice(start, min(start + size, count))
            seen[at] = judge_hosts(table, request, policy, at)
            judged = judge_fleet(table, request, policy, seen)
            fits = judged[at] == FITS
            table.cursor = at.stop % count
            if fits.any():
                scores[at] = self._scores(request, policy, at, judged, chance)
                scores[judged != FITS] = -np.inf
                return Choice(_best(scores), judged, scores)
        return Choice(None, judge_fleet(table, request, policy, seen), scores)


def _best(scores: Floats) -> int | None:
    """The first of the best, which is the first of them by name."""
    if not len(scores):
        return None
    best = int(scores.argmax())
    return best if scores[best] > -np.inf else None


def best_rows(scores: Floats, count: int) -> list[int]:
    """The best `count` rows that fit, best first."""
    left, found = scores.copy(), list[int]()
    while len(found) < count and (best := _best(left)) is not None:
        found.append(best)
        left[best] = -np.inf
    return found
