"""From a frame's columns to arrays, and from counters to rates. Pure.

Counters stay whole numbers until their difference is taken: in floating point a counter of nanoseconds
would lose its last digits within months. Unknown is NaN, and -1 in counters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.telemetry import HostFrame, VmColumns
from services.metrics.model import Garbled
from services.metrics.series import COUNTERS, GAUGES, GUEST, VM_SERIES, guest_row, host_row, places

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNKNOWN = -1
"""A counter that is not told."""

_GAUGES_AT = places(GAUGES)
_COUNTERS_AT = places(COUNTERS)
_GUEST_AT = places(GUEST)
_GAUGE_SCALES = np.array([[each.scale] for each in GAUGES])
_COUNTER_SCALES = np.array([[each.scale] for each in COUNTERS])


class Measured(Struct, frozen=True, kw_only=True):
    """A frame as arrays; `gauges` and `counters` have a row per series, a column per VM."""

    ids: tuple[str, ...]
    host: Floats
    gauges: Floats
    counters: Ints
    guests: Mapping[int, list[float | None]]
    """By the VM's place in `ids`."""


class Before(Struct, frozen=True, kw_only=True):
    """Counters as they were told last."""

    ids: tuple[str, ...]
    counters: Ints
    at_s: float


def measured(frame: HostFrame) -> Measured | Garbled:
    """The frame's values. Numbers that no machine counts to make it garbled."""
    columns = frame.vms
    try:
        return Measured(
            ids=columns.ids,
            host=np.array(host_row(frame.sample), dtype=np.float64),
            gauges=np.array(_gauges(columns), dtype=np.float64) * _GAUGE_SCALES,
            counters=_counters(columns),
            guests=_guests(frame),
        )
    except OverflowError:
        return Garbled(reason="a number is too large")


def _gauges(columns: VmColumns) -> list[Sequence[float | None]]:
    absent = (None,) * len(columns.ids)
    return [getattr(columns, each.source) or absent for each in GAUGES]


def _counters(columns: VmColumns) -> Ints:
    absent = (UNKNOWN,) * len(columns.ids)
    told: list[Any] = [getattr(columns, each.source) or absent for each in COUNTERS]
    try:
        return np.array(told, dtype=np.int64)
    except TypeError:
        # Some VM does not tell of some; that is rarer, and slower.
        known = [[UNKNOWN if value is None else value for value in column] for column in told]
        return np.array(known, dtype=np.int64)


def _guests(frame: HostFrame) -> dict[int, list[float | None]]:
    if not frame.guests:
        return {}
    at = {id: place for place, id in enumerate(frame.vms.ids)}
    return {at[guest.vm]: guest_row(guest) for guest in frame.guests if guest.vm in at}


def vm_values(now: Measured, before: Before | None, elapsed_s: float) -> NDArray[np.float32]:
    """A row per VM, a column per series. Without a time to divide by, rates are unknown."""
    values = np.full((len(VM_SERIES), len(now.ids)), np.nan)
    values[_GAUGES_AT] = now.gauges
    if before is not None and elapsed_s > 0:
        values[_COUNTERS_AT] = rates(counters_before(before, now.ids), now.counters, elapsed_s)
    for place, row in now.guests.items():
        values[_GUEST_AT, place] = np.array(row, dtype=np.float64)
    with np.errstate(over="ignore"):
        return values.T.astype(np.float32)


def rates(before: Ints, now: Ints, elapsed_s: float) -> Floats:
    """Growth per second in the series' units; unknown where one of the two is, or where a counter began
    anew: how far it had come by then nobody knows."""
    grown = now - before
    known = (before >= 0) & (now >= 0) & (grown >= 0)
    return np.where(known, grown * (_COUNTER_SCALES / elapsed_s), np.nan)


def counters_before(before: Before, ids: tuple[str, ...]) -> Ints:
    """The former counters of these VMs, in their order."""
    if before.ids == ids:
        return before.counters
    at = {id: place for place, id in enumerate(before.ids)}
    found = np.full((len(COUNTERS), len(ids)), UNKNOWN, dtype=np.int64)
    kept = [(place, at[id]) for place, id in enumerate(ids) if id in at]
    if kept:
        here, there = zip(*kept, strict=True)
        found[:, list(here)] = before.counters[:, list(there)]
    return found
