"""What a host measures of itself: from folders that look like a kernel's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from schemas.telemetry import CpuModes, HostSample
from services.hostagent import host_sample, power
from services.hostagent.host_sample import Counters
from services.hostagent.power import Counter, Energy

STAT = "cpu  30 0 10 50 6 1 2 1 9 0\ncpu0 30 0 10 50 6 1 2 1 9 0\n"
LATER = "cpu  50 10 20 90 26 2 6 6 9 0\ncpu0 50 10 20 90 26 2 6 6 9 0\n"
MEMINFO = "MemTotal: 4096 kB\nMemAvailable: 1024 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\n"
STALLED = (
    "some avg10=12.50 avg60=3.00 avg300=1.00 total=9\nfull avg10=99.00 avg60=0 avg300=0 total=0\n"
)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def read(
    folder: Path,
    *,
    before: Counters | None = None,
    at_s: float = 10.0,
    pools: Mapping[str, Path] | None = None,
    memory: tuple[int, int] | None = None,
) -> tuple[HostSample, Counters]:
    return host_sample.read(
        proc=folder / "proc",
        sys=folder / "sys",
        disk=folder,
        pools=pools or {},
        before=before or Counters(),
        at_s=at_s,
        running=3,
        memory=memory,
    )


def test_the_host_is_read_from_proc(tmp_path: Path) -> None:
    proc = {"meminfo": MEMINFO, "loadavg": "0.1 0.2 0.3 1/99 7\n", "uptime": "12.5 3\n"}
    write(tmp_path / "proc", proc)

    sample, _ = read(tmp_path, memory=(2, 9))

    assert (sample.load1, sample.load15, sample.uptime_s) == (0.1, 0.3, 12.5)
    assert (sample.memory_total_mib, sample.memory_available_mib) == (2, 1)
    assert (sample.swap_used_mib, sample.vms_running) == (1, 3)


def test_the_time_of_cpus_is_told_by_mode(tmp_path: Path) -> None:
    write(tmp_path, {"proc/stat": STAT})
    _, before = read(tmp_path)
    write(tmp_path, {"proc/stat": LATER})

    sample, _ = read(tmp_path, before=before)

    assert (sample.cpu_busy, sample.io_wait) == (50 / 110, 20 / 110)
    assert sample.cpu_modes == CpuModes(
        user=20 / 110, nice=10 / 110, system=10 / 110, irq=1 / 110, softirq=4 / 110, steal=5 / 110
    )


def test_a_count_of_waiting_that_goes_backward_is_none_of_the_time(tmp_path: Path) -> None:
    write(tmp_path, {"proc/stat": LATER})
    _, before = read(tmp_path)
    write(tmp_path, {"proc/stat": LATER.replace("90 26", "140 20")})

    assert read(tmp_path, before=before)[0].io_wait == 0.0


def test_pressure_is_the_share_of_time_in_which_some_task_waited(tmp_path: Path) -> None:
    write(tmp_path, {"proc/pressure/io": STALLED, "proc/pressure/cpu": "some avg10=nonsense\n"})

    sample, _ = read(tmp_path)

    assert (sample.io_pressure, sample.cpu_pressure, sample.memory_pressure) == (0.125, None, None)


def test_what_a_host_does_not_offer_is_left_out(tmp_path: Path) -> None:
    """A machine without `/proc` and `/sys`, so to say."""
    sample, counters = read(tmp_path, memory=(64, 32))

    again, _ = read(tmp_path, before=counters, at_s=20.0, memory=(64, 32))
    space = (sample.disk_total_bytes, sample.disk_free_bytes)
    assert sample == HostSample(
        memory_total_mib=64,
        memory_available_mib=32,
        disk_total_bytes=space[0],
        disk_free_bytes=space[1],
        vms_running=3,
    )
    assert again.power_watts is None


def test_pools_are_measured_where_they_are_there(tmp_path: Path) -> None:
    sample, _ = read(tmp_path, pools={"nvme": tmp_path, "away": tmp_path / "not-mounted"})

    assert [pool.name for pool in sample.pools] == ["nvme"]
    assert sample.pools[0].total_bytes >= sample.pools[0].free_bytes > 0


def rapl(zone: str, name: str, energy_uj: int) -> dict[str, str]:
    folder = f"sys/class/powercap/{zone}"
    return {
        f"{folder}/name": f"{name}\n",
        f"{folder}/energy_uj": f"{energy_uj}\n",
        f"{folder}/max_energy_range_uj": "1000000000\n",
    }


def test_power_is_the_energy_of_packages_and_memory_over_time(tmp_path: Path) -> None:
    """Cores are part of their package, and the second interface shows the same package again."""
    for package, cores, memory in ((0, 0, 0), (200_000_000, 90_000_000, 50_000_000)):
        write(tmp_path, rapl("intel-rapl:0", "package-0", package))
        write(tmp_path, rapl("intel-rapl:0:0", "core", cores))
        write(tmp_path, rapl("intel-rapl:0:1", "dram", memory))
        write(tmp_path, rapl("intel-rapl-mmio:0", "package-0", package))
        if not package:
            _, before = read(tmp_path, at_s=10.0)

    assert read(tmp_path, before=before, at_s=15.0)[0].power_watts == pytest.approx(50.0)


def test_a_counter_of_energy_begins_at_zero_again() -> None:
    before = Energy(0.0, {"intel-rapl:0": Counter(990_000_000, 1_000_000_000)})
    now = Energy(1.0, {"intel-rapl:0": Counter(30_000_000, 1_000_000_000)})

    assert power.watts_between(before, now) == pytest.approx(40.0)


@pytest.mark.parametrize(
    "before",
    [
        None,
        Energy(1.0, {"intel-rapl:0": Counter(1, 10)}),
        Energy(0.0, {"intel-rapl:1": Counter(1, 10)}),
        Energy(0.0, {"intel-rapl:0": Counter(99, 10)}),
    ],
)
def test_power_that_cannot_be_compared_is_not_told(before: Energy | None) -> None:
    assert power.watts_between(before, Energy(1.0, {"intel-rapl:0": Counter(5, 10)})) is None


def test_a_meter_of_the_whole_machine_is_believed_before_its_processors(tmp_path: Path) -> None:
    write(tmp_path, rapl("intel-rapl:0", "package-0", 1))
    meter = "sys/class/hwmon/hwmon3"
    write(tmp_path, {f"{meter}/name": "power_meter\n", f"{meter}/power1_average": "184500000\n"})
    card = "sys/class/hwmon/hwmon4"
    write(tmp_path, {f"{card}/name": "amdgpu\n", f"{card}/power1_average": "30000000\n"})

    assert read(tmp_path)[0].power_watts == pytest.approx(184.5)
