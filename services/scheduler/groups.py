"""Which hosts hold VMs of a selector, and how many: kept as VMs come and go.

Rules about other VMs ask for a selector's counts per host. A label's pair knows its VMs, so that a new
selector looks through those of its rarest pair only; its counts then follow every change. Counts are
sparse: they cost by the VMs that match, not by the hosts there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from services.scheduler.columns import Floats, Ints
from services.scheduler.selectors import Selector, matches

CACHED_GROUPS = 4096
FIRST_ROOM = 4
Pair = tuple[str, str]
RowNumbers = NDArray[np.intp]
"""Rows in the type that NumPy indexes by: any other is converted each time, which costs more than
to look up a few rows."""


class RowCounts:
    """How many per row, for the rows that have any: arrays without holes."""

    def __init__(self) -> None:
        self._place: dict[int, int] = {}
        self._rows: RowNumbers = np.empty(FIRST_ROOM, np.intp)
        self._counts: Floats = np.empty(FIRST_ROOM, np.float64)

    def copy(self) -> RowCounts:
        twin = RowCounts()
        twin._place = self._place.copy()
        twin._rows, twin._counts = self._rows.copy(), self._counts.copy()
        return twin

    @property
    def rows(self) -> RowNumbers:
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
            self._append(row, count)
            return
        left = self._counts[place] + count
        if left:
            self._counts[place] = left
        else:
            self._remove(row, place)

    def _append(self, row: int, count: int) -> None:
        place = len(self._place)
        if place == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
            self._counts = np.concatenate([self._counts, np.empty_like(self._counts)])
        self._rows[place], self._counts[place] = row, count
        self._place[row] = place

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


class AntiTerm(Struct, frozen=True, gc=False):
    """A required anti-affinity of VMs that are placed: it keeps others away, too."""

    chosen: Selector
    topology: str | None
    mutual: bool
    """Those who hold it are selected by it themselves, as copies are that keep apart: wherever it is
    held, there is a VM of the selector."""


class Member(Struct, frozen=True, gc=False):
    """A placed VM as groups see it."""

    row: int
    labels: Mapping[str, str]
    keeps_away: tuple[AntiTerm, ...] = ()


class Apart(Struct, frozen=True):
    """Where a VM may not be: the hosts of those it shuns, and of those that shun it."""

    shunned: Sequence[tuple[AntiTerm, RowCounts]]
    shunning: Sequence[tuple[AntiTerm, RowCounts]]
    """Without those that are shunned themselves: where both shun alike the term is mutual, and who
    holds it is among those that it selects."""


EVERYWHERE = Apart((), ())
"""Where nobody shuns anybody."""


class Groups:
    """All placed VMs by label."""

    def __init__(self) -> None:
        self._members: dict[Any, Member] = {}
        self._by_pair: dict[Pair, dict[Any, None]] = {}
        self._counts: dict[Selector, RowCounts] = {}
        self._counted = _Index()
        self._holders: dict[AntiTerm, RowCounts] = {}
        self._held = _Index()
        self._answer: tuple[Mapping[str, str], Sequence[AntiTerm], Apart] | None = None
        """What was said last of where a VM may not be: it is asked again to put it in words."""

    def copy(self) -> Groups:
        """The same, to be changed without harm. Counts of selectors are made anew when asked for."""
        twin = Groups()
        twin._members = self._members.copy()
        twin._by_pair = {pair: keys.copy() for pair, keys in self._by_pair.items()}
        for term, holders in self._holders.items():
            twin._holders[term] = holders.copy()
            twin._held.add(term, term.chosen, twin._holders[term])
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
            self._counted.add(chosen, chosen, found)
        return found

    def apart(self, labels: Mapping[str, str], shuns: Sequence[AntiTerm]) -> Apart:
        """Where a VM of these labels, which shuns so, may not be."""
        if not shuns and not self._holders:
            return EVERYWHERE
        answer = self._answer
        if answer is None or answer[0] is not labels or answer[1] is not shuns:
            shunned = [(term, self.counts(term.chosen)) for term in shuns]
            shunning = [
                (term, holders)
                for term, holders in self._held.about(labels.items())
                if term not in shuns and matches(term.chosen, labels)
            ]
            answer = self._answer = labels, shuns, Apart(shunned, shunning)
        return answer[2]

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
        for chosen, counts in self._counted.about(member.labels.items()):
            if matches(chosen, member.labels):
                counts.add(member.row, count)
        for term in member.keeps_away:
            self._hold(term, member.row, count)

    def _hold(self, term: AntiTerm, row: int, count: int) -> None:
        holders = self._holders.get(term)
        if holders is None:
            holders = self._holders[term] = RowCounts()
            self._held.add(term, term.chosen, holders)
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
    """Counts of things with a selector, found by the first pair of it, so that few are asked whether
    they match."""

    def __init__(self) -> None:
        self._by_pair: dict[Pair | None, dict[Any, RowCounts]] = {}

    def add(self, thing: Any, chosen: Selector, counts: RowCounts) -> None:
        self._by_pair.setdefault(_first(chosen), {})[thing] = counts

    def remove(self, thing: Any, chosen: Selector) -> None:
        things = self._by_pair[_first(chosen)]
        del things[thing]
        if not things:
            del self._by_pair[_first(chosen)]

    def about(self, pairs: Iterable[Pair]) -> list[tuple[Any, RowCounts]]:
        found = list(self._by_pair.get(None, {}).items())
        for pair in pairs:
            if things := self._by_pair.get(pair):
                found += things.items()
        return found


def _first(chosen: Selector) -> Pair | None:
    return chosen.pairs[0] if chosen.pairs else None
