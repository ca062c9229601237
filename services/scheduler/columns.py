"""The fleet's numbers as NumPy columns: one row per host, in the order of the hosts' names.

Here belong the arrays, their growth and their order, and nothing of what a column means to a rule. Rows
stand in the order of names, so that the first of equally good rows is the one that comes first by name.
Columns are allocated ahead and doubled when full; a column that nobody asked for does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Rows = slice | NDArray[np.intp]
"""Which hosts: all or a run of them, or some by row."""

FIRST_CAPACITY = 16
NO_VALUE = -1

Kind = Literal["flags", "amounts", "codes"]
ABSENT: dict[Kind, Any] = {
    "flags": np.bool_(False),
    "amounts": np.float64(0.0),
    "codes": np.int32(NO_VALUE),
}
"""What a host has that a column of this kind says nothing of; its type is the column's."""


class Columns:
    """The arrays of one fleet. The fixed columns are attributes; those that facts bring along (a label,
    an image, a class of devices) are read by `flags`, `amounts` and `codes`, and made when written."""

    maintenance: Bools
    alive: Bools
    """Its lease is good, as of the last `Table.pass_time`."""
    fresh: Bools
    """Its telemetry is young enough to be weighed, as of the same."""
    has_numa: Bools
    cpus: Floats
    most_cpus: Floats
    most_memory: Floats
    most_disk: Floats
    """`most_…`: what may be promised. MiB, GiB."""
    used_cpus: Floats
    used_memory: Floats
    used_disk: Floats
    """`used_…`: what is promised."""
    vms: Floats
    renewed_at: Floats
    sampled_at: Floats
    average: Floats
    """Moving average of the load, 0 to 1; NaN until measured."""
    load: Floats
    """The same with hysteresis: what is weighed."""
    free_disk: Floats
    """As measured, in GiB; NaN if not."""
    kept_disk: Floats
    idle_watts: Floats
    full_watts: Floats
    watts: Floats
    weight: Floats
    lot: NDArray[np.uint64]
    """64 bits that follow from the host's name."""

    _FIXED: tuple[tuple[str, Any, Any], ...] = (
        ("maintenance", np.bool_, False),
        ("alive", np.bool_, False),
        ("fresh", np.bool_, False),
        ("has_numa", np.bool_, False),
        *((name, np.float64, 0.0) for name in ("cpus", "most_cpus", "most_memory", "most_disk")),
        *((name, np.float64, 0.0) for name in ("used_cpus", "used_memory", "used_disk", "vms")),
        ("renewed_at", np.float64, -np.inf),
        ("sampled_at", np.float64, -np.inf),
        *((name, np.float64, np.nan) for name in ("average", "load", "free_disk")),
        ("kept_disk", np.float64, 0.0),
        *((name, np.float64, np.nan) for name in ("idle_watts", "full_watts", "watts")),
        ("weight", np.float64, 1.0),
        ("lot", np.uint64, 0),
    )

    def __init__(self) -> None:
        self.names: list[str] = []
        self.row_of: dict[str, int] = {}
        self._capacity = FIRST_CAPACITY
        self._extra: dict[tuple[Any, ...], NDArray[Any]] = {}
        self._is_sorted = True
        for name, kind, fill in self._FIXED:
            setattr(self, name, np.full(self._capacity, fill, kind))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def all(self) -> slice:
        return slice(0, len(self.names))

    def add(self, name: str) -> int:
        """The row of a new host."""
        row = len(self.names)
        if row == self._capacity:
            self._grow()
        self._is_sorted = self._is_sorted and (row == 0 or self.names[-1] < name)
        self.names.append(name)
        self.row_of[name] = row
        return row

    def sort(self) -> Ints | None:
        """Put rows in the order of names. Answers old row → new row, or None if nothing moved."""
        if self._is_sorted:
            return None
        order = np.array(sorted(range(len(self.names)), key=self.names.__getitem__), np.intp)
        for array in self._arrays():
            array[: len(order)] = array[order]
        self.names = [self.names[row] for row in order]
        self.row_of = {name: row for row, name in enumerate(self.names)}
        self._is_sorted = True
        moved = np.empty(len(order), np.int32)
        moved[order] = np.arange(len(order), dtype=np.int32)
        return moved

    def copy(self) -> Columns:
        """The same, to be changed without harm."""
        twin = Columns()
        twin.names, twin.row_of = self.names.copy(), self.row_of.copy()
        twin._capacity, twin._is_sorted = self._capacity, self._is_sorted
        twin._extra = {key: array.copy() for key, array in self._extra.items()}
        for name, _, _ in self._FIXED:
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def remove(self, gone: Set[str]) -> Ints:
        """Hosts go; those behind them move up. Answers old row → new row, -1 for those that went."""
        kept = np.array([name not in gone for name in self.names], np.bool_)
        count, left = len(kept), int(kept.sum())
        fills = [fill for _, _, fill in self._FIXED] + [ABSENT[key[0]] for key in self._extra]
        for array, fill in zip(self._arrays(), fills, strict=True):
            array[:left] = array[:count][kept]
            array[left:count] = fill
        self.names = [name for name in self.names if name not in gone]
        self.row_of = {name: row for row, name in enumerate(self.names)}
        moved = np.full(count, NO_VALUE, np.int32)
        moved[kept] = np.arange(left, dtype=np.int32)
        return moved

    # columns by what they are of: what nobody has reads as absent and takes no room

    def flags(self, *key: Any) -> Bools:
        found: Bools = self._read("flags", key)
        return found

    def amounts(self, *key: Any) -> Floats:
        found: Floats = self._read("amounts", key)
        return found

    def codes(self, *key: Any) -> Ints:
        """Numbers that stand for values, -1 where there is none."""
        found: Ints = self._read("codes", key)
        return found

    def writable(self, kind: Kind, *key: Any) -> NDArray[Any]:
        """The same to be written to: made if need be."""
        found = self._extra.get((kind, *key))
        if found is None:
            found = np.full(self._capacity, ABSENT[kind])
            self._extra[(kind, *key)] = found
        return found

    def put(self, row: int, kind: Kind, name: str, values: Mapping[Any, Any]) -> None:
        """A host's cells in all columns `(name, …)`: those not mentioned become absent, and a column
        that no host has a value in is dropped, so that names that were do not pile up."""
        for key in [key for key in self._extra if key[:2] == (kind, name)]:
            if key[2] not in values:
                column = self._extra[key]
                column[row] = ABSENT[kind]
                if (column == ABSENT[kind]).all():
                    del self._extra[key]
        for of, value in values.items():
            self.writable(kind, name, of)[row] = value

    def _read(self, kind: Kind, key: tuple[Any, ...]) -> NDArray[Any]:
        found = self._extra.get((kind, *key))
        return np.broadcast_to(ABSENT[kind], self._capacity) if found is None else found

    def _arrays(self) -> list[NDArray[Any]]:
        fixed = [getattr(self, name) for name, _, _ in self._FIXED]
        return [*fixed, *self._extra.values()]

    def _grow(self) -> None:
        for name, _, fill in self._FIXED:
            setattr(self, name, _doubled(getattr(self, name), fill))
        self._extra = {key: _doubled(array, ABSENT[key[0]]) for key, array in self._extra.items()}
        self._capacity *= 2


def _doubled(array: NDArray[Any], fill: Any) -> NDArray[Any]:
    larger = np.full(2 * len(array), fill, array.dtype)
    larger[: len(array)] = array
    return larger
