"""Which hosts hold VMs of a selector, and how many: kept as VMs come and go.

Rules about other VMs ask for a selector's counts per host. A label's pair knows its VMs, so that a new
selector looks through those of its rarest pair only; its counts then follow every change. Counts are
sparse: they cost by the VMs that match, not by the hosts there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from services.scheduler.columns import Floats, Ints
from services.scheduler.selectors import Selector, matches

CACHED_GROUPS = 4096
FIRST_ROOM = 4
Pair = tuple[str, str]


class RowCounts:
    """How many per row, for the rows that have any: arrays without holes."""

    def __init__(self) -> None:
        self._place: dict[int, int] = {}
        self._rows: Ints = np.empty(FIRST_ROOM, np.int32)
        self._counts: Floats = np.empty(FIRST_ROOM, np.float64)

    def copy(self) -> RowCounts:
        twin = RowCounts()
        twin._place = self._place.copy()
        twin._rows, twin._counts = self._rows.copy(), self._counts.copy()
        return twin

    @property
    def rows(self) -> Ints:
        return self._rows[: len(self._place)]

    @property
    def counts(self) -> Floats:
        return self._counts[: len(self._place)]

    def has(self, row: int) -> bool:
        return row in self._place

    def add(self, row: int, count: int) -> None:
        """`count` may be negative; a row that falls to nothing is dropped."""
        place = self._place.get(row)
        if place is None:
            place = self._append(row)
        self._counts[place] += count
        if self._counts[place] == 0:
            self._remove(row, place)

    def _append(self, row: int) -> int:
        place = len(self._place)
        if place == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
            self._counts = np.concatenate([self._counts, np.empty_like(self._counts)])
        self._rows[place], self._counts[place] = row, 0.0
        self._place[row] = place
        return place

    def _remove(self, row: int, place: int) -> None:
        last = len(self._place) - 1
        moved = int(self._rows[last])
        self._rows[place], self._counts[place] = moved, self._counts[last]
        self._place[moved] = place
        del self._place[row]

    def move(self, moved: Ints) -> None:
        """Rows have new numbers."""
        self._rows[: len(self._place)] = moved[self.rows]
        self._place = {int(row): place for place, row in enumerate(self.rows)}


class AntiTerm(Struct, frozen=True):
    """A required anti-affinity of VMs that are placed: it keeps others away, too."""

    chosen: Selector
    topology: str | None


class Member(Struct, frozen=True):
    """A placed VM as groups see it."""

    row: int
    labels: Mapping[str, str]
    keeps_away: tuple[AntiTerm, ...] = ()


class Groups:
    """All placed VMs by label."""

    def __init__(self) -> None:
        self._members: dict[Any, Member] = {}
        self._by_pair: dict[Pair, dict[Any, None]] = {}
        self._counts: dict[Selector, RowCounts] = {}
        self._counted = _Index()
        self._holders: dict[AntiTerm, RowCounts] = {}
        self._held = _Index()
        self._answer: tuple[Mapping[str, str], list[tuple[AntiTerm, RowCounts]]] | None = None
        """What was said last of who keeps a VM away: to be said again for each host in words."""

    def copy(self) -> Groups:
        """The same, to be changed without harm. Counts of selectors are made anew when asked for."""
        twin = Groups()
        twin._members = self._members.copy()
        twin._by_pair = {pair: keys.copy() for pair, keys in self._by_pair.items()}
        twin._holders = {term: counts.copy() for term, counts in self._holders.items()}
        twin._held = self._held.copy()
        return twin

    def add(self, key: Any, member: Member) -> None:
        self._members[key] = member
        for pair in member.labels.items():
            self._by_pair.setdefault(pair, {})[key] = None
        self._count(member, 1)

    def remove(self, key: Any) -> None:
        member = self._members.pop(key)
        for pair in member.labels.items():
            keys = self._by_pair[pair]
            del keys[key]
            if not keys:
                del self._by_pair[pair]
        self._count(member, -1)

    def counts(self, chosen: Selector) -> RowCounts:
        """How many VMs of a selector each host holds."""
        found = self._counts.get(chosen)
        if found is None:
            found = self._look_through(chosen)
            if len(self._counts) >= CACHED_GROUPS:
                oldest = next(iter(self._counts))
                del self._counts[oldest]
                self._counted.remove(oldest, oldest)
            self._counts[chosen] = found
            self._counted.add(chosen, chosen)
        return found

    def keeping_away(self, labels: Mapping[str, str]) -> list[tuple[AntiTerm, RowCounts]]:
        """The anti-affinities of placed VMs that are about a VM of these labels, and who holds them."""
        if self._answer is None or self._answer[0] is not labels:
            terms = self._held.about(labels.items())
            found = [(term, self._holders[term]) for term in terms if matches(term.chosen, labels)]
            self._answer = labels, found
        return self._answer[1]

    def move(self, moved: Ints) -> None:
        """Rows have new numbers."""
        self._members = {
            key: Member(int(moved[one.row]), one.labels, one.keeps_away)
            for key, one in self._members.items()
        }
        for counts in (*self._counts.values(), *self._holders.values()):
            counts.move(moved)

    def _count(self, member: Member, count: int) -> None:
        self._answer = None
        for chosen in self._counted.about(member.labels.items()):
            if matches(chosen, member.labels):
                self._counts[chosen].add(member.row, count)
        for term in member.keeps_away:
            self._hold(term, member.row, count)

    def _hold(self, term: AntiTerm, row: int, count: int) -> None:
        holders = self._holders.get(term)
        if holders is None:
            holders = self._holders[term] = RowCounts()
            self._held.add(term, term.chosen)
        holders.add(row, count)
        if not len(holders.rows):
            del self._holders[term]
            self._held.remove(term, term.chosen)

    def _look_through(self, chosen: Selector) -> RowCounts:
        pairs: list[Collection[Any]] = [self._by_pair.get(pair, {}) for pair in chosen.pairs]
        keys: Collection[Any] = min(pairs, key=len) if pairs else self._members
        found = RowCounts()
        for key in keys:
            member = self._members[key]
            if matches(chosen, member.labels):
                found.add(member.row, 1)
        return found


class _Index:
    """Things with a selector, found by the first pair of it, so that few are asked whether they match."""

    def __init__(self) -> None:
        self._by_pair: dict[Pair | None, dict[Any, None]] = {}

    def copy(self) -> _Index:
        twin = _Index()
        twin._by_pair = {pair: things.copy() for pair, things in self._by_pair.items()}
        return twin

    def add(self, thing: Any, chosen: Selector) -> None:
        self._by_pair.setdefault(_first(chosen), {})[thing] = None

    def remove(self, thing: Any, chosen: Selector) -> None:
        things = self._by_pair[_first(chosen)]
        del things[thing]
        if not things:
            del self._by_pair[_first(chosen)]

    def about(self, pairs: Iterable[Pair]) -> list[Any]:
        found: list[Any] = list(self._by_pair.get(None, ()))
        for pair in pairs:
            found += self._by_pair.get(pair, ())
        return found


def _first(chosen: Selector) -> Pair | None:
    return chosen.pairs[0] if chosen.pairs else None
