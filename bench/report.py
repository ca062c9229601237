"""What a benchmark says: rows, as a table for people and as JSON lines for programs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal

import msgspec
from msgspec import Struct


class Target(Struct, frozen=True):
    """What a ratio (or, without a baseline, a value) should be: at least or at most `bound`."""

    kind: Literal["at least", "at most"]
    bound: float

    def met_by(self, figure: float) -> bool:
        return figure >= self.bound if self.kind == "at least" else figure <= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}"


class Row(Struct, frozen=True, kw_only=True):
    """One figure. `ratio` is value ÷ baseline; None where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""


def row(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    baselines: Sequence[float] = (),
    target: Target | None = None,
    note: str = "",
) -> Row:
    """The medians of interleaved runs: `values[i]` was measured beside `baselines[i]`.

    The ratio is the median of the pairs' ratios, so that a drift of the machine's speed cancels out.
    """
    ratio = median(v / b for v, b in zip(values, baselines, strict=True)) if baselines else None
    figure = ratio if ratio is not None else median(values)
    return Row(
        name=name,
        value=median(values),
        unit=unit,
        baseline=median(baselines) if baselines else None,
        ratio=ratio,
        target=str(target) if target else "",
        met=target.met_by(figure) if target else None,
        note=note,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of `values`, `share` from 0 to 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def json_line(figure: Row) -> str:
    return msgspec.json.encode(figure).decode()


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("name", lambda r: r.name),
    ("value", lambda r: f"{_short(r.value)} {r.unit}"),
    ("baseline", lambda r: "" if r.baseline is None else f"{_short(r.baseline)} {r.unit}"),
    ("ratio", lambda r: "" if r.ratio is None else _short(r.ratio)),
    ("target", lambda r: r.target),
    ("met", lambda r: {None: "", True: "yes", False: "NO"}[r.met]),
    ("note", lambda r: r.note),
)


def table(rows: Sequence[Row]) -> str:
    """The rows in columns, for people."""
    cells = [[title for title, _ in COLUMNS], *([show(r) for _, show in COLUMNS] for r in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
