"""Summing up: an entry says of each series how many values there were, their average, least and most.

What belongs here: making, joining and re-cutting entries, and their bytes as they are stored. Pure.
A series that nothing was told of has a count of zero and NaN for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Entries = NDArray[Any]
"""A structured array of `entry_type`, ordered by `at`, when each entry's time begins."""


@cache
def entry_type(width: int) -> np.dtype[Any]:
    """An entry of so many series, as it is stored: little-endian, nothing between the fields."""
    return np.dtype(
        [
            ("at", "<i8"),
            ("count", "<u4", (width,)),
            ("avg", "<f4", (width,)),
            ("min", "<f4", (width,)),
            ("max", "<f4", (width,)),
        ]
    )


def none_of(width: int) -> Entries:
    return np.zeros(0, dtype=entry_type(width))


def read_entries(stored: bytes, width: int, *, wanted: int) -> Entries:
    """Stored entries, widened to the series that there are by now. Raises ValueError if they are torn."""
    found: Entries = np.frombuffer(stored, dtype=entry_type(width))
    if width == wanted:
        return found
    wide = np.zeros(len(found), dtype=entry_type(wanted))
    wide["at"] = found["at"]
    kept = min(width, wanted)
    for name in ("avg", "min", "max"):
        wide[name] = np.nan
    for name in ("count", "avg", "min", "max"):
        wide[name][:, :kept] = found[name][:, :kept]
    return wide


def summed_up(at_s: int, values: NDArray[np.float32]) -> Entries:
    """Ticks × things × series, as one entry per thing."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64)
    entries = np.zeros(values.shape[1], dtype=entry_type(values.shape[2]))
    entries["at"] = at_s
    entries["count"] = count
    entries["avg"] = _average(total, count)
    entries["min"] = np.fmin.reduce(values, axis=0)
    entries["max"] = np.fmax.reduce(values, axis=0)
    return entries


def of_ticks(times: NDArray[np.float64], values: NDArray[np.float32]) -> Entries:
    """Each tick as an entry of its own: times cut to whole seconds."""
    entries = np.zeros(len(times), dtype=entry_type(values.shape[1]))
    entries["at"] = times
    entries["count"] = ~np.isnan(values)
    for name in ("avg", "min", "max"):
        entries[name] = values
    return entries


class Buckets(Struct, frozen=True, kw_only=True):
    """Regular pieces of time, each a row with a column per series."""

    count: NDArray[np.int64]
    avg: NDArray[np.float64]
    min: NDArray[np.float32]
    max: NDArray[np.float32]


def bucketed(pieces: Sequence[Entries], *, from_s: int, step_s: int, buckets: int) -> Buckets:
    """Entries cut anew: averages by weight, the least of the least and the most of the most, so that a
    peak outlives it. `pieces` are not empty and of one width."""
    entries = np.concatenate(pieces)
    width = entries["count"].shape[1]
    at = (entries["at"] - from_s) // step_s
    inside = (at >= 0) & (at < buckets)
    entries, at = entries[inside], at[inside]
    order = np.argsort(at, kind="stable")
    entries, at = entries[order], at[order]
    made = Buckets(
        count=np.zeros((buckets, width), dtype=np.int64),
        avg=np.full((buckets, width), np.nan),
        min=np.full((buckets, width), np.nan, dtype=np.float32),
        max=np.full((buckets, width), np.nan, dtype=np.float32),
    )
    if len(entries):
        _fill(made, entries, at)
    return made


def _fill(made: Buckets, entries: Entries, at: NDArray[np.int64]) -> None:
    firsts = np.flatnonzero(np.diff(at, prepend=-1))
    rows = at[firsts]
    count = entries["count"].astype(np.int64)
    weighed = np.where(count > 0, entries["avg"].astype(np.float64) * count, 0.0)
    counts = np.add.reduceat(count, firsts, axis=0)
    made.count[rows] = counts
    made.avg[rows] = _average(np.add.reduceat(weighed, firsts, axis=0), counts)
    made.min[rows] = np.fmin.reduceat(entries["min"], firsts, axis=0)
    made.max[rows] = np.fmax.reduceat(entries["max"], firsts, axis=0)


def joined(pieces: Sequence[Entries], *, at_s: int) -> Entries:
    """All entries as a single one that begins at `at_s`."""
    entries = np.concatenate(pieces)
    one = np.zeros(1, dtype=entries.dtype)
    count = entries["count"].astype(np.int64)
    total = np.where(count > 0, entries["avg"].astype(np.float64) * count, 0.0).sum(axis=0)
    one["at"] = at_s
    one["count"] = count.sum(axis=0)
    one["avg"] = _average(total, count.sum(axis=0))
    one["min"] = np.fmin.reduce(entries["min"], axis=0)
    one["max"] = np.fmax.reduce(entries["max"], axis=0)
    return one


def _average(total: Any, count: Any) -> Any:
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
