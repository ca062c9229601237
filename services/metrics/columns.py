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

from schemas.telemetry import HostFrame, HostSample, VmColumns
from services.metrics.model import Garbled
from services.metrics.series import (
    COUNTERS,
    GAUGES,
    GUEST,
    HOST_COUNTERS,
    HOST_SERIES,
    VM_SERIES,
    card_row,
    guest_row,
    host_row,
    places,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNKNOWN = -1
"""A counter that is not told."""

_GAUGES_AT = places(GAUGES)
_COUNTERS_AT = places(COUNTERS)
_GUEST_AT = places(GUEST)
_GAUGE_SCALES = np.array([[each.scale] for each in GAUGES])
_COUNTER_SCALES = np.array([[each.scale] for each in COUNTERS])
_CARDS_AT = places(HOST_COUNTERS, HOST_SERIES)
_CARD_SCALES = np.array([[each.scale] for each in HOST_COUNTERS])


class Counted(Struct, frozen=True):
    """Counters of some things: a row per series, a column per thing."""

    ids: tuple[str, ...]
    counters: Ints


class Measured(Struct, frozen=True, kw_only=True):
    """A frame as arrays; `gauges` has a row per series, a column per VM."""

    host: Floats
    cards: Counted
    """The host's network cards."""
    vms: Counted
    gauges: Floats
    guests: Mapping[int, list[float | None]]
    """By the VM's place in `vms.ids`."""


def measured(frame: HostFrame) -> Measured | Garbled:
    """The frame's values. Numbers that no machine counts to make it garbled."""
    columns = frame.vms
    try:
        return Measured(
            host=np.array(host_row(frame.sample), dtype=np.float64),
            cards=_cards(frame.sample),
            vms=Counted(columns.ids, _counters(columns)),
            gauges=np.array(_gauges(columns), dtype=np.float64) * _GAUGE_SCALES,
            guests=_guests(frame),
        )
    except OverflowError:
        return Garbled(reason="a number is too large")


def _gauges(columns: VmColumns) -> list[Sequence[float | None]]:
    absent = (None,) * len(columns.ids)
    return [getattr(columns, each.source) or absent for each in GAUGES]


def _counters(columns: VmColumns) -> Ints:
    absent = (UNKNOWN,) * len(columns.ids)
    return _whole([getattr(columns, each.source) or absent for each in COUNTERS])


def _cards(sample: HostSample) -> Counted:
    """Of two cards of one name the last."""
    told = {card.name: card_row(card) for card in sample.interfaces}
    return Counted(tuple(told), _whole(list(told.values())).T)


def _whole(told: list[Any]) -> Ints:
    try:
        return np.array(told, dtype=np.int64)
    except TypeError:
        # Some thing does not tell of some; that is rarer, and slower.
        known = [[UNKNOWN if value is None else value for value in row] for row in told]
        return np.array(known, dtype=np.int64)


def _guests(frame: HostFrame) -> dict[int, list[float | None]]:
    if not frame.guests:
        return {}
    at = {id: place for place, id in enumerate(frame.vms.ids)}
    return {at[guest.vm]: guest_row(guest) for guest in frame.guests if guest.vm in at}


def host_values(now: Measured, before: Measured | None, elapsed_s: float) -> Floats:
    """A value per series. What a card counts that was not there before is not known, and so no sum."""
    if before is None or elapsed_s <= 0 or not now.cards.ids:
        return now.host
    values = now.host.copy()
    values[_CARDS_AT] = rates(before.cards, now.cards, elapsed_s, scales=_CARD_SCALES).sum(axis=1)
    return values


def vm_values(now: Measured, before: Measured | None, elapsed_s: float) -> NDArray[np.float32]:
    """A row per VM, a column per series. Without a time to divide by, rates are unknown."""
    values = np.full((len(VM_SERIES), len(now.vms.ids)), np.nan)
    values[_GAUGES_AT] = now.gauges
    if before is not None and elapsed_s > 0:
        values[_COUNTERS_AT] = rates(before.vms, now.vms, elapsed_s, scales=_COUNTER_SCALES)
    for place, row in now.guests.items():
        values[_GUEST_AT, place] = np.array(row, dtype=np.float64)
    with np.errstate(over="ignore"):
        return values.T.astype(np.float32)


def rates(before: Counted, now: Counted, elapsed_s: float, *, scales: Floats) -> Floats:
    """Growth per second times `scales`, of what is there now; unknown where one of the two is, or where a
    counter began anew: how far it had come by then nobody knows."""
    former = counters_before(before, now)
    grown = now.counters - former
    known = (former >= 0) & (now.counters >= 0) & (grown >= 0)
    return np.where(known, grown * (scales / elapsed_s), np.nan)


def counters_before(before: Counted, now: Counted) -> Ints:
    """The former counters of what there is now, in its order."""
    if before.ids == now.ids:
        return before.counters
    at = {id: place for place, id in enumerate(before.ids)}
    found = np.full_like(now.counters, UNKNOWN)
    kept = [(place, at[id]) for place, id in enumerate(now.ids) if id in at]
    if kept:
        here, there = zip(*kept, strict=True)
        found[:, list(here)] = before.counters[:, list(there)]
    return found
