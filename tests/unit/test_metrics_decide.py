"""What is newest after a frame, and what may be made of two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.ids import uuid7
from schemas.telemetry import (
    GuestSample,
    HostFrame,
    HostReading,
    HostSample,
    VmColumns,
    VmReading,
)
from services.metrics.decide import host_reading, read, take, vm_reading
from services.metrics.frame_vms import cpus_busy
from services.metrics.model import Garbled, HostNewest, Stale, VmSample
from services.metrics.newest import Newest

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WEB, DB = (uuid7(1_700_000_000_000 + number, b"0123456789") for number in (1, 2))
SAMPLE = HostSample(cpu_busy=0.25, memory_total_mib=4096, vms_running=2)


def frame(sequence: int, *, host: str = "h1", **changes: Any) -> HostFrame:
    """The `sequence`-th frame of a host with two VMs, one of which takes half a CPU."""
    at = START + timedelta(seconds=5 * sequence)
    made = HostFrame(
        host=host,
        site="lab",
        at=at,
        sequence=sequence,
        interval_s=5.0,
        sample=SAMPLE,
        vms=VmColumns(
            ids=(WEB, DB),
            state=("running", "stopped"),
            cpus=(2, 1),
            cpu_time_ns=(2_500_000_000 * sequence, None),
        ),
    )
    return replace(made, **changes)


def taken(*frames: HostFrame) -> HostNewest:
    newest: HostNewest | None = None
    for number, each in enumerate(frames):
        after = take(newest, each, now_s=float(number))
        assert isinstance(after, HostNewest)
        newest = after
    assert newest is not None
    return newest


def test_a_frame_is_read() -> None:
    said = frame(1)
    assert read(msgspec.json.encode(said), subject="vireo.tel.lab.h1") == said


@pytest.mark.parametrize(
    ("raw", "subject", "reason"),
    [
        (b"\xff", "vireo.tel.lab.h1", "malformed"),
        (b"{}", "vireo.tel.lab.h1", "missing required field"),
        (msgspec.json.encode(frame(1)), "vireo.tel.lab.h2", "not its subject's"),
        (msgspec.json.encode(frame(1)), "vireo.tel.other.h1", "not its subject's"),
        (
            msgspec.json.encode(frame(1, vms=VmColumns(ids=(WEB,), cpus=(1, 2)))),
            "vireo.tel.lab.h1",
            "another length than ids: cpus",
        ),
    ],
)
def test_what_is_no_frame_of_its_host_is_garbled(raw: bytes, subject: str, reason: str) -> None:
    found = read(raw, subject=subject)
    assert isinstance(found, Garbled)
    assert reason in found.reason


def test_the_newest_of_a_host_reads() -> None:
    assert host_reading(taken(frame(1), frame(2))) == HostReading(
        host="h1",
        site="lab",
        at=START + timedelta(seconds=10),
        interval_s=5.0,
        sample=SAMPLE,
        vms=2,
    )


def test_the_newest_of_a_vm_reads_with_the_cpus_it_took() -> None:
    guest = GuestSample(vm=WEB, at=START, os="Tiny", load1=0.5)
    newest = taken(frame(1, guests=(guest,)), frame(2))
    assert vm_reading(newest, WEB) == VmReading(
        vm=WEB,
        host="h1",
        at=START + timedelta(seconds=10),
        state="running",
        cpu_busy=0.5,
        cpus=2,
        guest=guest,
    )
    assert vm_reading(newest, DB).cpu_busy is None


@pytest.mark.parametrize(
    ("before_ns", "now_ns", "elapsed_s", "busy"),
    [
        (0, 7_500_000_000, 5.0, 1.5),
        (5_000_000_000, 5_000_000_000, 5.0, 0.0),
        (9_000_000_000, 1_000_000_000, 5.0, None),
        (None, 1, 5.0, None),
        (1, None, 5.0, None),
        (0, 1, 0.0, None),
        (0, 1, -1.0, None),
    ],
)
def test_cpus_busy_come_from_counters_that_may_begin_anew(
    before_ns: int | None, now_ns: int | None, elapsed_s: float, busy: float | None
) -> None:
    assert cpus_busy(before_ns=before_ns, now_ns=now_ns, elapsed_s=elapsed_s) == busy


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.floats(-1e6, 1e6, allow_nan=False))
def test_cpus_busy_are_never_negative(before_ns: int, now_ns: int, elapsed_s: float) -> None:
    busy = cpus_busy(before_ns=before_ns, now_ns=now_ns, elapsed_s=elapsed_s)
    assert busy is None or busy >= 0


def test_a_frame_that_comes_late_or_twice_is_stale() -> None:
    newest = taken(frame(1), frame(3))
    assert [take(newest, frame(number), now_s=9.0) for number in (2, 3)] == [Stale(), Stale()]


def test_a_restarted_agent_and_a_clock_set_back_are_heard() -> None:
    newest = taken(frame(5))
    restarted = frame(1, at=START + timedelta(seconds=60))
    set_back = frame(6, at=START)
    assert isinstance(take(newest, restarted, now_s=9.0), HostNewest)
    assert isinstance(take(newest, set_back, now_s=9.0), HostNewest)


def test_a_vm_that_a_frame_does_not_name_is_gone() -> None:
    newest = taken(frame(1), frame(2, vms=VmColumns(ids=(DB,))))
    assert dict(newest.vms)[DB].sample == VmSample()
    assert WEB not in newest.vms


def kept(**limits: Any) -> Newest:
    return Newest(**({"max_hosts": 2, "stale_s": 60.0} | limits))


def test_hosts_beyond_the_limit_are_refused_and_counted() -> None:
    newest = kept()
    outcomes = [newest.put(frame(1, host=host), now_s=0.0) for host in ("h1", "h2", "h3", "h1")]
    assert outcomes == ["taken", "taken", "refused", "stale"]
    assert newest.fleet().frames == {"taken": 2, "garbled": 0, "stale": 1, "refused": 1}


def test_a_silent_host_is_forgotten_with_its_vms() -> None:
    newest = kept()
    newest.put(frame(1), now_s=0.0)
    assert newest.forget_stale(now_s=60.0) == []
    assert newest.forget_stale(now_s=60.1) == ["h1"]
    assert (newest.host("h1"), newest.host_of_vm(WEB)) == (None, None)


def test_a_vm_is_found_on_the_host_that_told_of_it_last() -> None:
    newest = kept()
    newest.put(frame(1, host="h1"), now_s=0.0)
    newest.put(frame(1, host="h2"), now_s=1.0)
    newest.put(frame(2, host="h1", vms=VmColumns()), now_s=2.0)
    found = newest.host_of_vm(WEB)
    assert found is not None
    assert found.host == "h2"


def test_a_vm_that_its_host_no_longer_names_is_not_found() -> None:
    newest = kept()
    newest.put(frame(1), now_s=0.0)
    newest.put(frame(2, vms=VmColumns()), now_s=1.0)
    assert newest.host_of_vm(WEB) is None
