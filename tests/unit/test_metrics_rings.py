"""The last hour: what a frame leaves in the rings, and what it does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.ids import uuid7
from schemas.telemetry import (
    GuestSample,
    HostFrame,
    HostInterface,
    HostSample,
    Temperature,
    VmColumns,
)
from services.metrics.columns import measured
from services.metrics.model import Garbled
from services.metrics.rings import RingLimits, Rings, Tick
from services.metrics.series import HOST_SERIES, VM_SERIES
from services.metrics.timing import grown_over, placed_at

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
START_S = START.timestamp()
SECOND_NS = 1_000_000_000
KEY = ("lab", "h1")


def vm_id(number: int) -> str:
    return uuid7(1_700_000_000_000 + number, b"0123456789")


WEB, DB, NEW = (vm_id(number) for number in range(3))


def frame(tick: int, ids: tuple[str, ...] = (WEB, DB), **columns: Any) -> HostFrame:
    """The `tick`-th frame of a host, five seconds after the one before."""
    return HostFrame(
        host="h1",
        site="lab",
        at=START + timedelta(seconds=5 * tick),
        sequence=tick,
        interval_s=5.0,
        sample=HostSample(cpu_busy=0.5, memory_total_mib=2),
        vms=VmColumns(ids=ids, **columns),
    )


def put(rings: Rings, each: HostFrame, *, key: tuple[str, str] = KEY, late_s: float = 0.0) -> None:
    arrays = measured(each)
    assert not isinstance(arrays, Garbled)
    at_s = each.at.timestamp()
    rings.put(
        key,
        Tick(
            measured=arrays,
            at_s=at_s,
            now_s=at_s + late_s,
            heard_s=at_s + late_s - START_S,
            sequence=each.sequence,
            interval_s=each.interval_s,
        ),
    )


def with_sample(each: HostFrame, **told: Any) -> HostFrame:
    return replace(each, sample=replace(each.sample, **told))


def host_series(rings: Rings, name: str) -> list[Any]:
    at = [each.name for each in HOST_SERIES].index(name)
    values = [value for _, rows in rings.host("h1", 0, 1e12) for value in rows[:, at].tolist()]
    return [None if np.isnan(value) else pytest.approx(value) for value in values]


def vm_series(rings: Rings, vm: str, name: str) -> list[float | None]:
    at = [each.name for each in VM_SERIES].index(name)
    pieces = rings.vm(vm, 0, 1e12)
    values = np.concatenate([rows[:, at] for _, rows in pieces]).tolist() if pieces else []
    return [None if np.isnan(value) else value for value in values]


def test_gauges_are_kept_in_base_units_and_what_is_not_told_is_a_gap() -> None:
    rings = Rings(RingLimits())
    put(rings, frame(0, memory_rss_kib=(4, None)))
    assert vm_series(rings, WEB, "memory_resident") == [4096.0]
    assert vm_series(rings, DB, "memory_resident") == [None]
    assert vm_series(rings, WEB, "cpus") == [None]
    ((_, rows),) = rings.host("h1", 0, 1e12)
    told = dict(zip((each.name for each in HOST_SERIES), rows[0].tolist(), strict=True))
    assert (told["cpu_busy"], told["memory_total"]) == (0.5, 2 * 1024 * 1024)
    assert np.isnan(told["load1"])


def test_counters_become_rates_over_the_time_that_passed_on_the_host() -> None:
    rings = Rings(RingLimits())
    for tick, cpu_ns in ((0, 0), (1, 5 * SECOND_NS), (3, 10 * SECOND_NS)):
        put(rings, frame(tick, cpu_time_ns=(cpu_ns, None)))
    assert vm_series(rings, WEB, "cpu_busy") == [None, 1.0, 0.5]
    assert vm_series(rings, DB, "cpu_busy") == [None, None, None]


def test_a_host_s_rates_are_the_sum_over_its_cards() -> None:
    """The tick in which a card appears is a gap: what it had counted by then is nobody's rate."""
    rings = Rings(RingLimits())
    for tick, counted in enumerate(((0, 50), (500, 150), (1000, 250, 10**9), (1500, 350, 10**9))):
        cards = tuple(
            HostInterface(name=f"eth{number}", receive_bytes=told, receive_drops=tick)
            for number, told in enumerate(counted)
        )
        put(rings, with_sample(frame(tick), interfaces=cards))
    assert host_series(rings, "net_received") == [None, 120.0, None, 120.0]
    assert host_series(rings, "net_receive_drops") == [None, pytest.approx(0.4), None, 0.6]
    assert host_series(rings, "net_sent") == [None] * 4


def test_a_host_without_cards_and_sensors_tells_nothing_of_them() -> None:
    rings = Rings(RingLimits())
    put(rings, frame(0))
    put(rings, frame(1))
    assert host_series(rings, "net_received") == [None, None]
    assert host_series(rings, "cpu_temperature") == [None, None]


def test_the_hottest_sensor_of_a_part_counts() -> None:
    shown: list[tuple[Literal["cpu", "disk", "other"], float]]
    shown = [("cpu", 51.0), ("cpu", 63.0), ("disk", 40.0), ("other", 99.0)]
    sensors = tuple(
        Temperature(part=part, chip="c", device=f"d{number}", sensor="s", celsius=celsius)
        for number, (part, celsius) in enumerate(shown)
    )
    rings = Rings(RingLimits())
    put(rings, with_sample(frame(0), temperatures=sensors))
    assert host_series(rings, "cpu_temperature") == [63.0]
    assert host_series(rings, "disk_temperature") == [40.0]


def test_a_rate_is_exact_however_large_its_counter_is() -> None:
    rings = Rings(RingLimits())
    huge = (1 << 62) + 1
    for tick in range(2):
        put(rings, frame(tick, block_read_bytes=(huge + 15 * tick, 0)))
    assert vm_series(rings, WEB, "block_read") == [None, 3.0]
    assert vm_series(rings, DB, "block_read") == [None, 0.0]


def test_a_counter_that_began_anew_is_a_gap_of_one_tick() -> None:
    rings = Rings(RingLimits())
    for tick, told in enumerate((1000, 1500, 10, 20)):
        put(rings, frame(tick, net_receive_bytes=(told, told)))
    assert vm_series(rings, WEB, "net_received") == [None, 100.0, None, 2.0]


def test_vms_come_and_go_and_change_places() -> None:
    rings = Rings(RingLimits())
    for tick, ids in enumerate(((WEB, DB), (DB, WEB), (NEW, WEB), (WEB,), (DB, WEB))):
        told = {WEB: 500 * tick, DB: 1000 * tick, NEW: 1}
        put(rings, frame(tick, ids, block_write_bytes=tuple(told[id] for id in ids)))
    assert vm_series(rings, WEB, "block_written") == [None, 100.0, 100.0, 100.0, 100.0]
    assert vm_series(rings, DB, "block_written") == [None, 200.0, None, None, None]
    assert vm_series(rings, NEW, "block_written") == [None] * 5


def test_what_a_guest_says_stands_beside_what_is_seen_from_outside() -> None:
    rings = Rings(RingLimits())
    said = GuestSample(vm=DB, at=START - timedelta(days=900), load1=0.25)
    stranger = GuestSample(vm=NEW, at=START, load1=9.0)
    put(rings, HostFrame(**{**_fields(frame(0, cpus=(1, 2))), "guests": (said, stranger)}))
    assert vm_series(rings, DB, "guest_load1") == [0.25]
    assert vm_series(rings, WEB, "guest_load1") == [None]
    assert rings.vm(NEW, 0, 1e12) == []


def _fields(each: HostFrame) -> dict[str, Any]:
    return {name: getattr(each, name) for name in each.__struct_fields__}


def test_ten_minutes_without_the_bus_are_a_gap_and_no_zeros() -> None:
    rings = Rings(RingLimits())
    for tick in (0, 1, 121, 122):
        put(rings, frame(tick, cpu_time_ns=(tick * 5 * SECOND_NS, 0)))
    pieces = rings.vm(WEB, 0, 1e12)
    times = np.concatenate([times for times, _ in pieces]) - START_S
    assert times.tolist() == [0.0, 5.0, 605.0, 610.0]
    assert vm_series(rings, WEB, "cpu_busy") == [None, 1.0, None, 1.0]


def test_a_vm_that_moved_is_read_from_both_hosts() -> None:
    rings = Rings(RingLimits())
    put(rings, frame(0, cpus=(1, 1)))
    put(rings, frame(1, (WEB,), cpus=(1,)), key=("lab", "h2"))
    assert [float(t) - START_S for times, _ in rings.vm(WEB, 0, 1e12) for t in times] == [0.0, 5.0]
    assert len(rings.vm(DB, 0, 1e12)) == 1


def test_more_is_dropped_the_older_it_is() -> None:
    rings = Rings(RingLimits(window_s=100, block_ticks=4))
    for tick in range(40):
        put(rings, frame(tick, cpus=(1, 1)))
    rings.forget(now_s=START_S + 195)
    kept = vm_series(rings, WEB, "cpus")
    assert 20 <= len(kept) <= 24
    rings.forget(now_s=START_S + 10_000)
    assert (rings.nbytes, rings.vm(WEB, 0, 1e12)) == (0, [])
    assert [*rings.slices(0, 1e12)] == []


def test_a_host_that_floods_with_new_vms_shortens_its_own_past_alone() -> None:
    rings = Rings(RingLimits(host_mib=1, block_ticks=10))
    for tick in range(10):
        put(rings, frame(tick, (WEB,), cpus=(1,)), key=("lab", "quiet"))
    for tick in range(50):
        ids = tuple(vm_id(1000 * (tick + 1) + number) for number in range(500))
        put(rings, frame(tick, ids, cpus=(1,) * 500))
    assert rings.nbytes <= 1.1 * 1024 * 1024
    assert rings.dropped > 0
    assert rings.whole_since("host", "h1") > START_S
    assert rings.whole_since("vm", WEB) == 0.0
    assert vm_series(rings, WEB, "cpus") == [1.0] * 10


def test_when_all_is_full_the_oldest_goes_first() -> None:
    rings = Rings(RingLimits(memory_mib=1, block_ticks=60))
    for tick in range(600):
        host = f"h{tick // 60}"
        ids = tuple(vm_id(number) for number in range(64))
        put(rings, frame(tick, ids, cpus=(1,) * 64), key=("lab", host))
    assert rings.nbytes <= 1024 * 1024
    assert rings.host("h9", 0, 1e12) != []
    assert rings.host("h0", 0, 1e12) == []


@pytest.mark.parametrize(
    ("at_s", "last_s", "place_s"),
    [
        (100.0, None, 100.0),
        (95.0, 90.0, 95.0),
        (4_000_000_000.0, 90.0, 100.0),
        (0.0, 90.0, 100.0),
        (95.0, 96.0, 100.0),
        (110.0, 105.0, 110.0),
        (95.0, 101.0, None),
    ],
)
def test_a_frame_from_the_future_or_the_past_stands_where_it_was_heard(
    at_s: float, last_s: float | None, place_s: float | None
) -> None:
    assert placed_at(at_s, now_s=100.0, skew_s=30.0, last_s=last_s) == place_s


@pytest.mark.parametrize(
    ("by_host_s", "by_arrival_s", "frames", "seconds"),
    [
        (5.0, 5.0, 1, 5.0),
        (5.0, 0.01, 1, 5.0),
        (15.0, 15.2, -40, 15.0),
        (10.0, 10.0, 2, 10.0),
        (3605.0, 5.0, 1, None),
        (-3595.0, 5.0, 1, None),
        (12.0, 5.0, 1, None),
        (600.0, 600.0, 120, None),
        (0.0, 0.0, 0, None),
    ],
)
def test_rates_are_taken_over_a_time_that_two_clocks_agree_on(
    by_host_s: float, by_arrival_s: float, frames: int, seconds: float | None
) -> None:
    found = grown_over(
        by_host_s=by_host_s, by_arrival_s=by_arrival_s, frames=frames, interval_s=5.0
    )
    assert found == seconds


def test_a_number_that_no_machine_counts_to_makes_a_frame_garbled() -> None:
    for columns in ({"cpu_time_ns": (1 << 70, 0)}, {"memory_rss_kib": (10**400, 0)}):
        assert measured(frame(0, (WEB, DB), **columns)) == Garbled(reason="a number is too large")


Telling = st.lists(
    st.tuples(
        st.permutations(range(4)), st.integers(0, 4), st.lists(st.integers(0, 50), min_size=4)
    ),
    max_size=12,
)


@given(Telling)
def test_the_rings_agree_with_a_plain_dictionary(telling: list[Any]) -> None:
    """However VMs come, go and change places: each series is what one would write down by hand."""
    rings = Rings(RingLimits(block_ticks=3))
    written: dict[int, list[float | None]] = {}
    counters: dict[int, int] = {}
    for tick, (order, many, growth) in enumerate(telling):
        chosen = order[:many]
        before, counters = counters, {n: counters.get(n, 1000) + growth[n] - 5 for n in chosen}
        ids = tuple(vm_id(n) for n in chosen)
        told = tuple(counters[n] for n in chosen)
        put(rings, frame(tick, ids, block_read_requests=told))
        for n in chosen:
            grown = counters[n] - before[n] if n in before else -1
            written.setdefault(n, []).append(grown / 5 if grown >= 0 else None)
    for n, series in written.items():
        found = vm_series(rings, vm_id(n), "block_reads")
        assert [v for v in found if v is not None] == pytest.approx(
            [v for v in series if v is not None]
        )
