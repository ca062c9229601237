"""Series as little bars."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vireo.cli.sparklines import BARS, sparkline


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([0, 1, 2, 3, 4, 5, 6, 7], BARS),
        ([3.0, 3.0], "▁▁"),
        ([None, None], "  "),
        ([0, None, 7], "▁ █"),
        ([0, math.nan, math.inf, 7], "▁  █"),
        ([-sys.float_info.max, 0, sys.float_info.max], "▁▅█"),
        ([0, 5e-324], "▁█"),
    ],
)
def test_a_series_is_drawn_and_a_gap_stays_a_gap(values: list[float | None], line: str) -> None:
    assert sparkline(values, width=20) == line


def test_a_scale_that_is_given_holds() -> None:
    assert sparkline([0.5, 2.0, -1.0], width=3, lowest=0, highest=1) == "▅█▁"


def test_a_peak_survives_in_a_narrow_line() -> None:
    assert sparkline([0, 0, 9, 0, 0, 0, None, None], width=4) == "▁█▁ "


@given(st.lists(st.none() | st.floats()), st.integers(1, 80))
def test_a_line_is_never_wider_than_asked(values: list[float | None], width: int) -> None:
    assert len(sparkline(values, width=width)) == min(len(values), width)
