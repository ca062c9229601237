"""How metrics look in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.metrics import LiveSample, Metrics, SeriesValues
from vireo.cli.layout import plain_table
from vireo.cli.metrics_view import metrics_table, quantity, sample_line, span_text

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FOUND = Metrics(
    vm=None,
    host="h1",
    start=START,
    step_s=300,
    points=4,
    series={
        "cpu_busy": SeriesValues(
            unit="ratio",
            avg=(0.1, None, 0.3, 0.2),
            min=(0.0, None, 0.1, 0.1),
            max=(0.25, None, 1.0, 0.5),
        ),
        "memory_total": SeriesValues(
            unit="bytes", avg=(2.0**31,) * 4, min=(2.0**31,) * 4, max=(2.0**31,) * 4
        ),
        "power": SeriesValues(unit="watts", avg=(None,) * 4, min=(None,) * 4, max=(None,) * 4),
    },
)


def test_a_series_has_a_line_with_its_peaks_and_one_without_values_has_none() -> None:
    assert plain_table(metrics_table(FOUND, wide=False)).splitlines() == [
        "SERIES        NOW    AVG    MAX    OVER TIME",
        "cpu_busy      20 %   20 %   100 %  ▃ █▅",
        "memory_total  2 GiB  2 GiB  2 GiB  ████",
    ]
    assert plain_table(metrics_table(FOUND, wide=True)).splitlines()[1].split()[:7] == [
        *("cpu_busy", "20", "%", "0", "%", "20", "%")
    ]


def test_what_the_graph_spans_is_said() -> None:
    assert span_text(FOUND) == "from 2026-03-01 12:00:00 UTC on, 4 steps of 5 min"


def test_values_carry_their_units() -> None:
    said = [
        quantity(value, unit) for value, unit in ((1536, "bytes/s"), (0.5, "cpus"), (90, "watts"))
    ]
    assert said == ["1.5 KiB/s", "0.50", "90.00 W"]
    assert quantity(None, "bytes") == "-"


def test_a_sample_is_a_line() -> None:
    values = {"cpu_busy": 0.14, "cpus": 2.0, "memory_resident": 411799552.0, "net_sent": 0.0}
    assert sample_line(LiveSample(at=START, values=values)) == (
        "12:00:00.000  cpu_busy 0.14  cpus 2  memory_resident 411799552  net_sent 0"
    )
    assert sample_line(LiveSample(at=START, values={})) == "12:00:00.000  -"
