"""From buckets and ticks to what is answered. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.metrics import LiveSample, Metrics, SeriesValues
from services.metrics.entries import Buckets
from services.metrics.levels import Reading
from services.metrics.series import SERIES, Kind

DIGITS = 7
"""As many as a value in 32 bits has: more would be noise, and half of each answer."""

Piece = tuple[NDArray[np.float64], NDArray[np.float32]]


def unknown_series(kind: Kind, names: Sequence[str]) -> list[str]:
    known = {each.name for each in SERIES[kind]}
    return [name for name in names if name not in known]


def metrics_of(
    kind: Kind, name: str, reading: Reading, buckets: Buckets, wanted: Sequence[str]
) -> Metrics:
    """Those series of which anything is known; only the `wanted`, if any are named."""
    return Metrics(
        vm=name if kind == "vm" else None,
        host=name if kind == "host" else None,
        start=datetime.fromtimestamp(reading.from_s, UTC),
        step_s=reading.step_s,
        points=reading.buckets,
        series={
            each.name: SeriesValues(
                unit=each.unit,
                avg=_column(buckets.avg, place),
                min=_column(buckets.min, place),
                max=_column(buckets.max, place),
            )
            for place, each in enumerate(SERIES[kind])
            if buckets.count[:, place].any() and (not wanted or each.name in wanted)
        },
    )


def live_samples(
    kind: Kind, pieces: Sequence[Piece], wanted: Sequence[str], *, most: int
) -> tuple[LiveSample, ...]:
    """The newest ticks, oldest first; `most` at most."""
    ticks = sorted(_ticks(pieces, most), key=lambda tick: tick[0])[-most:]
    names = [each.name for each in SERIES[kind]]
    return tuple(
        LiveSample(
            at=datetime.fromtimestamp(at_s, UTC),
            values={
                name: value
                for name, value in zip(names, rounded(row).tolist(), strict=True)
                if value == value and (not wanted or name in wanted)
            },
        )
        for at_s, row in ticks
    )


def _ticks(pieces: Sequence[Piece], most: int) -> Iterator[tuple[float, NDArray[np.float32]]]:
    for times, rows in pieces:
        yield from zip(times[-most:].tolist(), rows[-most:], strict=True)


def rounded(values: NDArray[Any]) -> NDArray[np.float64]:
    """To `DIGITS` significant digits."""
    exact = values.astype(np.float64)
    size = np.abs(exact)
    power = np.floor(np.log10(size, out=np.zeros_like(size), where=size > 0))
    factor = np.power(10.0, DIGITS - 1 - np.nan_to_num(power))
    whole: NDArray[np.float64] = np.round(exact * factor) / factor
    return whole


def _column(values: NDArray[Any], place: int) -> tuple[float | None, ...]:
    # NaN is written as null: JSON has no word for it.
    return tuple(rounded(values[:, place]).tolist())
