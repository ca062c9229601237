"""What benchmarks report."""

from __future__ import annotations

import json

import pytest

from bench.report import Row, Target, json_line, quantile, row, table


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    figure = row("x", [1, 4, 9], "s", baselines=[1, 2, 3], target=Target("at most", 2))
    assert figure == Row(
        name="x", value=4, unit="s", baseline=2, ratio=2, target="at most 2", met=True
    )


def test_without_a_baseline_the_value_itself_is_held_against_the_target() -> None:
    assert row("x", [5, 1, 3], "MiB", target=Target("at most", 2)).met is False


def test_runs_that_are_not_in_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        row("x", [1, 2], "s", baselines=[1])


def test_programs_read_one_object_a_line() -> None:
    line = json.loads(json_line(row("x", [2], "s", baselines=[4])))
    assert (line["name"], line["value"], line["baseline"], line["ratio"]) == ("x", 2, 4, 0.5)


def test_people_read_a_table() -> None:
    shown = table([row("boot", [3.21], "s", baselines=[3], target=Target("at least", 2))])
    assert shown.splitlines() == [
        "name  value   baseline  ratio  target      met  note",
        "boot  3.21 s  3 s       1.07   at least 2  NO",
    ]


def test_the_median_is_the_middle_quantile() -> None:
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile(range(100), 0.99) == 99
