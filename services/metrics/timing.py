"""When a frame counts as made, and over how long its counters grew. Pure.

Hosts' clocks are wrong at times. A frame stands where its host says it was made as long as our own clock
agrees, else at its arrival; and no rate is taken over a step of the host's clock, or over a gap.
"""

from __future__ import annotations

LATE_TICKS = 3.5
"""A rate over more ticks than this is no rate but the trace of a gap."""

ODD = 0.5
"""By so much of it may a time by the host's clock differ from the same time by another."""


def placed_at(at_s: float, *, now_s: float, skew_s: float, last_s: float | None) -> float | None:
    """Where a frame made at `at_s` stands; None if that is not after the last one."""
    place_s = at_s if abs(at_s - now_s) <= skew_s else now_s
    if last_s is not None and place_s <= last_s:
        place_s = now_s
    return None if last_s is not None and place_s <= last_s else place_s


def grown_over(
    *, by_host_s: float, by_arrival_s: float, frames: int, interval_s: float
) -> float | None:
    """Seconds between two frames for the sake of rates; None where they cannot be known.

    `frames`: by how many the host's count of frames grew, zero or less if it began anew. What the host's
    clock says holds if its own count or our clock says about the same: frames are held up on their way,
    and an agent that restarts counts anew, but seldom both.
    """
    if not 0 < by_host_s <= LATE_TICKS * interval_s:
        return None
    others = (frames * interval_s, by_arrival_s)
    agreed = any(abs(by_host_s - other_s) <= ODD * by_host_s for other_s in others)
    return by_host_s if agreed else None
