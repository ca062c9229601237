"""A series as a line of little bars. Pure; a gap stays a gap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
GAP = " "


def sparkline(
    values: Sequence[float | None],
    *,
    width: int,
    lowest: float | None = None,
    highest: float | None = None,
) -> str:
    """At most `width` characters, oldest first. Where several values share a character the largest is
    shown, so that no peak is lost; where nothing is known, a blank.

    The scale goes from `lowest` to `highest`; left out, they are the smallest and the largest value.
    """
    shown = _fitted([_known(value) for value in values], width)
    known = [value for value in shown if value is not None]
    if not known:
        return GAP * len(shown)
    low = min(known) if lowest is None else lowest
    high = max(known) if highest is None else highest
    return "".join(GAP if value is None else _bar(value, low, high) for value in shown)


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _fitted(values: Sequence[float | None], width: int) -> list[float | None]:
    if len(values) <= width:
        return list(values)
    edges = [len(values) * number // width for number in range(width + 1)]
    return [_peak(values[left:right]) for left, right in pairwise(edges)]


def _peak(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _bar(value: float, low: float, high: float) -> str:
    if high <= low:
        return BARS[0]
    if math.isinf(high - low):
        return _bar(value / 2, low / 2, high / 2)
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return BARS[min(int(share * len(BARS)), len(BARS) - 1)]
