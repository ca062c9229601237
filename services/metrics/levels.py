"""How finely the past is kept, and from which of it a question is answered. Pure.

Four levels, each with its step, how long it is kept, and how much time one row of the table holds. How long
they are kept is for settings to say; steps, rows and partitions are how things are stored, and stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


class Level(Struct, frozen=True, kw_only=True):
    """`step_s` is one entry's time, `chunk_s` one row's, `part_s` one partition's; each is so many of the
    one before."""

    number: int
    name: str
    step_s: int
    keep_s: int
    chunk_s: int
    part_s: int


LEVELS: tuple[Level, ...] = (
    Level(
        number=0,
        name="1m",
        step_s=MINUTE_S,
        keep_s=DAY_S,
        chunk_s=10 * MINUTE_S,
        part_s=6 * HOUR_S,
    ),
    Level(
        number=1,
        name="30m",
        step_s=30 * MINUTE_S,
        keep_s=31 * DAY_S,
        chunk_s=DAY_S,
        part_s=7 * DAY_S,
    ),
    Level(
        number=2,
        name="6h",
        step_s=6 * HOUR_S,
        keep_s=366 * DAY_S,
        chunk_s=28 * DAY_S,
        part_s=56 * DAY_S,
    ),
    Level(
        number=3,
        name="1w",
        step_s=7 * DAY_S,
        keep_s=3653 * DAY_S,
        chunk_s=364 * DAY_S,
        part_s=728 * DAY_S,
    ),
)
"""As long as they are kept unless settings say otherwise."""
FINEST = LEVELS[0]


def kept(days: Sequence[int]) -> tuple[Level, ...]:
    """The levels, each kept for so many days. Raises ValueError with every one that is kept for less time
    than a finer one."""
    levels = tuple(
        replace(level, keep_s=each * DAY_S) for level, each in zip(LEVELS, days, strict=True)
    )
    faults = [
        f"steps of {coarser.name} are kept for less time than those of {finer.name}"
        for finer, coarser in pairwise(levels)
        if coarser.keep_s < finer.keep_s
    ]
    if faults:
        raise ValueError("; ".join(faults))
    return levels


class Reading(Struct, frozen=True, kw_only=True):
    """How a question is answered: regular steps, and the levels to read, coarsest first; what they do not
    have yet comes from the next one, and at last from the ring."""

    from_s: int
    step_s: int
    buckets: int
    levels: tuple[Level, ...]


def floored(at_s: float, step_s: int) -> int:
    return int(at_s // step_s) * step_s


def plan(
    *,
    from_s: float,
    to_s: float,
    step_s: float | None,
    points: int,
    levels: tuple[Level, ...],
    now_s: float,
    ring_from_s: float,
    tick_s: float,
) -> Reading:
    """`step_s` is the wish, or left out so that there are about `points`. A step is never finer than what
    is kept of the time at which the question begins, and a whole number of that. What the ring has whole
    is read from nowhere else. `ring_from_s`: since when it is whole."""
    finest = None if ring_from_s <= from_s else _finest_at(now_s - from_s, levels)
    natural_s = max(1, math.ceil(tick_s)) if finest is None else finest.step_s
    wished_s = step_s if step_s is not None else (to_s - from_s) / points
    wished_s = max(wished_s, natural_s)
    usable = [
        level
        for level in (levels[finest.number :] if finest is not None else ())
        if level.step_s <= wished_s
    ]
    base_s = usable[-1].step_s if usable else natural_s
    whole_s = math.ceil(wished_s / base_s) * base_s
    begin_s = floored(from_s, whole_s)
    return Reading(
        from_s=begin_s,
        step_s=whole_s,
        buckets=max(1, math.ceil((to_s - begin_s) / whole_s)),
        levels=levels[usable[-1].number :: -1] if usable else (),
    )


def _finest_at(age_s: float, levels: tuple[Level, ...]) -> Level:
    """The finest level that goes back so far."""
    return next((level for level in levels if age_s <= level.keep_s), levels[-1])
