"""How the past is summed up, and from which of it a question is answered."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.entries import (
    bucketed,
    entry_type,
    joined,
    none_of,
    of_ticks,
    read_entries,
    summed_up,
)
from services.metrics.levels import DAY_S, HOUR_S, LEVELS, Level, Reading, plan
from services.metrics.settings import KeepSettings

NOW_S = 2_000_000_000.0


def rows(*values: list[float | None]) -> Any:
    return np.array(values, dtype=np.float32)


def shown(array: Any) -> list[Any]:
    return [
        [None if np.isnan(value) else value for value in row] for row in np.asarray(array).tolist()
    ]


def test_ticks_are_summed_up_to_their_average_least_and_most() -> None:
    ticks = np.stack([rows([1, None], [None, None]), rows([4, 6], [None, None])])
    web, db = summed_up(60, ticks)
    assert (web["at"], web["count"].tolist()) == (60, [2, 1])
    assert shown([web["avg"], web["min"], web["max"]]) == [[2.5, 6.0], [1.0, 6.0], [4.0, 6.0]]
    assert (db["count"].tolist(), shown([db["avg"], db["max"]])) == ([0, 0], [[None, None]] * 2)


def test_averages_are_joined_by_weight_and_peaks_outlive_it() -> None:
    minute = summed_up(0, np.stack([rows([1, 1])] * 3))
    peak = summed_up(60, np.stack([rows([9, None])]))
    (one,) = joined([minute, peak], at_s=0)
    assert one["count"].tolist() == [4, 3]
    assert shown([one["avg"], one["min"], one["max"]]) == [[3.0, 1.0], [1.0, 1.0], [9.0, 1.0]]


def test_entries_are_cut_into_buckets_and_a_gap_stays_a_gap() -> None:
    times = np.array([100.2, 105.2, 140.0, 500.0])
    ticks = of_ticks(times, rows([1], [3], [None], [7]))
    made = bucketed([none_of(1), ticks], from_s=100, step_s=20, buckets=3)
    assert made.count.tolist() == [[2], [0], [0]]
    assert shown(made.avg) == [[2.0], [None], [None]]
    assert (shown(made.min), shown(made.max)) == ([[1.0], [None], [None]], [[3.0], [None], [None]])


@given(
    st.lists(st.lists(st.none() | st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2)),
    st.integers(1, 30),
)
def test_cutting_in_two_steps_says_what_cutting_at_once_does(ticks: Any, step: int) -> None:
    values = np.array(ticks, dtype=np.float32).reshape(-1, 2)
    entries = of_ticks(np.arange(len(values), dtype=np.float64), values)
    many = -(-max(len(values), 1) // (2 * step))
    at_once = bucketed([entries], from_s=0, step_s=2 * step, buckets=many)
    fine = [
        summed_up(first, values[first : first + step, None, :])
        for first in range(0, len(values), step)
    ]
    in_steps = bucketed([none_of(2), *fine], from_s=0, step_s=2 * step, buckets=many)
    assert at_once.count.tolist() == in_steps.count.tolist()
    np.testing.assert_allclose(at_once.avg, in_steps.avg, rtol=1e-4, atol=1.0)
    np.testing.assert_array_equal(at_once.min, in_steps.min)
    np.testing.assert_array_equal(at_once.max, in_steps.max)


def test_what_was_stored_with_fewer_series_reads_with_gaps() -> None:
    stored = summed_up(60, np.stack([rows([1, 2])])).tobytes()
    assert len(stored) == entry_type(2).itemsize == 8 + 2 * 16
    (read,) = read_entries(stored, 2, wanted=3)
    assert (read["at"], read["count"].tolist()) == (60, [1, 1, 0])
    assert shown([read["avg"], read["max"]]) == [[1.0, 2.0, None]] * 2
    with pytest.raises(ValueError, match="multiple"):
        read_entries(stored[:-1], 2, wanted=2)


def planned(
    *,
    back_s: float,
    step_s: float | None = None,
    ring_s: float = HOUR_S,
    kept_for: tuple[Level, ...] = LEVELS,
) -> Reading:
    return plan(
        from_s=NOW_S - back_s,
        to_s=NOW_S,
        step_s=step_s,
        points=300,
        levels=kept_for,
        now_s=NOW_S,
        ring_from_s=NOW_S - ring_s,
        tick_s=5.0,
    )


@pytest.mark.parametrize(
    ("back_s", "asked_s", "step_s", "levels"),
    [
        (600, None, 5, []),
        (HOUR_S, None, 15, []),
        (HOUR_S, 1.0, 5, []),
        (2 * HOUR_S, 5.0, 60, ["1m"]),
        (DAY_S, None, 300, ["1m"]),
        (DAY_S, 3600.0, 3600, ["30m", "1m"]),
        (7 * DAY_S, None, 3600, ["30m", "1m"]),
        (31 * DAY_S, None, 5 * 1800, ["30m", "1m"]),
        (365 * DAY_S, None, 5 * 21_600, ["6h", "30m", "1m"]),
        (365 * DAY_S, 60.0, 21_600, ["6h", "30m", "1m"]),
        (3650 * DAY_S, None, 2 * 7 * DAY_S, ["1w", "6h", "30m", "1m"]),
        (9000 * DAY_S, None, 5 * 7 * DAY_S, ["1w", "6h", "30m", "1m"]),
    ],
)
def test_a_question_is_answered_from_the_coarsest_that_is_fine_enough(
    back_s: float, asked_s: float | None, step_s: int, levels: list[str]
) -> None:
    reading = planned(back_s=back_s, step_s=asked_s)
    assert (reading.step_s, [level.name for level in reading.levels]) == (step_s, levels)
    assert reading.from_s % step_s == 0
    assert reading.from_s <= NOW_S - back_s < reading.from_s + step_s
    assert reading.from_s + reading.buckets * step_s >= NOW_S


def test_after_a_restart_the_hour_is_read_back_by_the_minute() -> None:
    reading = planned(back_s=HOUR_S, ring_s=60)
    assert (reading.step_s, [level.name for level in reading.levels]) == (60, ["1m"])


def test_what_is_kept_for_longer_is_seen_closely_for_longer() -> None:
    longer = KeepSettings(minutes=7, half_hours=60).levels()
    reading = planned(back_s=5 * DAY_S, step_s=60.0, kept_for=longer)
    assert (reading.step_s, [level.name for level in reading.levels]) == (60, ["1m"])
    reading = planned(back_s=50 * DAY_S, step_s=60.0, kept_for=longer)
    assert (reading.step_s, [level.name for level in reading.levels]) == (1800, ["30m", "1m"])


def test_settings_keep_each_level_for_as_long_as_it_is_said() -> None:
    assert KeepSettings().levels() == LEVELS
    days = [level.keep_s // DAY_S for level in KeepSettings(weeks=400, six_hours=400).levels()]
    assert days == [1, 31, 400, 400]


def test_a_coarser_level_is_kept_no_shorter_and_every_fault_is_named() -> None:
    with pytest.raises(ValueError, match=r"30m .* 1m; .* 1w .* 6h"):
        KeepSettings(minutes=60, half_hours=31, weeks=365)


def test_the_least_that_can_be_set_is_enough_to_make_the_next_level() -> None:
    least = KeepSettings(minutes=1, half_hours=1, six_hours=14, weeks=14).levels()
    for finer, coarser in itertools.pairwise(least):
        assert finer.keep_s >= 2 * coarser.step_s


def test_levels_fit_into_one_another() -> None:
    for finer, coarser in itertools.pairwise(LEVELS):
        assert coarser.step_s % finer.step_s == 0
        assert coarser.step_s < finer.keep_s
    for level in LEVELS:
        assert level.chunk_s % level.step_s == 0
        assert level.part_s % level.chunk_s == 0
