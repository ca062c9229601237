"""How metrics look: a line per series, with its last, average and largest value, and a sparkline. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.metrics import LiveSample, Metrics, SeriesValues
from vireo.cli.layout import Table
from vireo.cli.sparklines import sparkline
from vireo.cli.words import NOTHING, celsius, clock, duration, number, of_bytes, share, when

COLUMNS = ("series", "now", "avg", "max", "over time")
WIDE_COLUMNS = ("series", "now", "min", "avg", "max", "unit", "over time")
GRAPH_WIDTH = 40
WIDE_GRAPH_WIDTH = 80


def metrics_table(metrics: Metrics, *, wide: bool) -> Table:
    """The graph shows the largest of each step, so that no peak is lost."""
    rows = [
        _row(name, values, wide=wide)
        for name, values in metrics.series.items()
        if any_known(values)
    ]
    return Table(columns=WIDE_COLUMNS if wide else COLUMNS, rows=tuple(rows))


def span_text(metrics: Metrics) -> str:
    """What the graphs span: `from 2026-03-01 12:00:00 UTC on, 60 steps of 1 min`."""
    step = duration(float(metrics.step_s))
    return f"from {when(metrics.start)} on, {metrics.points} steps of {step}"


def sample_line(sample: LiveSample) -> str:
    """`12:00:05.000  cpu_busy 0.14  memory_resident 411799552`, in the series' own units."""
    told = (f"{name} {_digits(value)}" for name, value in sample.values.items())
    return "  ".join((clock(sample.at), *(told if sample.values else (NOTHING,))))


WHOLE_FROM = 1000


def _digits(value: float) -> str:
    """Never with an exponent: `411799552`, `0.14`."""
    text = f"{value:.0f}" if abs(value) >= WHOLE_FROM else f"{value:.4f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def any_known(values: SeriesValues) -> bool:
    return any(value is not None for value in values.avg)


def quantity(value: float | None, unit: str) -> str:
    """A value with its unit, where the number alone would not say it."""
    if value is None:
        return NOTHING
    if unit in ("bytes", "bytes/s"):
        return of_bytes(round(value)) + ("/s" if unit == "bytes/s" else "")
    if unit == "ratio":
        return share(value)
    if unit == "watts":
        return f"{number(value)} W"
    if unit == "celsius":
        return celsius(value)
    return f"{value:g}" if unit == "vms" else number(value)


def _row(name: str, values: SeriesValues, *, wide: bool) -> tuple[str, ...]:
    def told(value: float | None) -> str:
        return quantity(value, values.unit)

    now, avg = told(_last(values.avg)), told(_average(values.avg))
    low, high = told(_least(values.min)), told(_most(values.max))
    lowest = 0.0 if (_least(values.min) or 0.0) >= 0 else None
    highest = 1.0 if values.unit == "ratio" else None
    width = WIDE_GRAPH_WIDTH if wide else GRAPH_WIDTH
    graph = sparkline(values.max, width=width, lowest=lowest, highest=highest)
    return (
        (name, now, low, avg, high, values.unit, graph) if wide else (name, now, avg, high, graph)
    )


def _last(values: Sequence[float | None]) -> float | None:
    """The newest that is known."""
    return next((value for value in reversed(values) if value is not None), None)


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
