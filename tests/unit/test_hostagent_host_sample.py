"""What a host measures of itself: from folders that look like a kernel's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from schemas.telemetry import CpuModes, HostInterface, HostSample, Temperature
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
        meters=("power_meter", "corsairpsu"),
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
    assert (sample.swap_used_mib, sample.swap_total_mib, sample.vms_running) == (1, 2, 3)


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


DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     900       9    0    0    0     0          0         0      900       9    0    0    0     0       0          0
  eno1: 5000000    4000    3    2    0     0          0         7  2000000    3000    1    4    0     0       0          0
   br0:     800       8    0    0    0     0          0         0      800       8    0    0    0     0       0          0
 vnet7:     700       7    0    0    0     0          0         0      700       7    0    0    0     0       0          0
eno1v0:     600       6    0    0    0     0          0         0      600       6    0    0    0     0       0          0
"""  # noqa: E501


def test_the_network_is_what_cards_count_and_not_what_is_made_of_them(tmp_path: Path) -> None:
    """Guests' taps, bridges and a card's virtual functions carry what the card carries."""
    write(tmp_path, {"proc/net/dev": DEV})
    for name in ("lo", "br0", "vnet7"):
        (tmp_path / "sys/class/net" / name).mkdir(parents=True)
    (tmp_path / "sys/class/net/eno1/device").mkdir(parents=True)
    (tmp_path / "sys/class/net/eno1v0/device/physfn").mkdir(parents=True)

    assert read(tmp_path)[0].interfaces == (
        HostInterface(
            name="eno1",
            receive_bytes=5_000_000,
            receive_packets=4000,
            receive_errors=3,
            receive_drops=2,
            transmit_bytes=2_000_000,
            transmit_packets=3000,
            transmit_errors=1,
            transmit_drops=4,
        ),
    )


def chip(tmp_path: Path, number: int, device: str, files: Mapping[str, str]) -> None:
    """A chip of hwmon, whose number is not the same after the next boot."""
    folder = tmp_path / f"sys/class/hwmon/hwmon{number}"
    write(folder, files)
    (tmp_path / "devices" / device).mkdir(parents=True)
    (folder / "device").symlink_to(tmp_path / "devices" / device)


def test_temperatures_are_told_of_each_sensor_that_is_well(tmp_path: Path) -> None:
    disk = {"name": "nvme\n", "temp1_input": "38850\n", "temp1_label": "Composite\n"}
    chip(tmp_path, 4, "nvme0", disk | {"temp1_crit": "84850\n"})
    board = {"name": "nct6775\n", "temp1_input": "-5000\n", "temp2_input": "127000\n"}
    chip(tmp_path, 1, "nct6775.656", board | {"temp2_fault": "1\n", "temp3_input": "\n"})

    assert read(tmp_path)[0].temperatures == (
        Temperature(
            part="disk",
            chip="nvme",
            device="nvme0",
            sensor="Composite",
            celsius=38.85,
            critical_celsius=84.85,
        ),
        Temperature(
            part="other", chip="nct6775", device="nct6775.656", sensor="temp1", celsius=-5.0
        ),
    )


def test_a_processor_with_a_sensor_as_a_whole_is_not_asked_core_by_core(tmp_path: Path) -> None:
    package = {"name": "coretemp\n", "temp1_input": "61000\n", "temp1_label": "Package id 0\n"}
    cores = {"temp2_input": "64000\n", "temp2_label": "Core 0\n"}
    chip(tmp_path, 2, "coretemp.0", package | cores)

    told = read(tmp_path)[0].temperatures

    assert [(one.part, one.sensor, one.celsius) for one in told] == [("cpu", "Package id 0", 61.0)]


def test_what_a_host_tells_of_its_parts_fits_into_a_frame(tmp_path: Path) -> None:
    for number in range(100):
        chip(tmp_path, number, f"nvme{number}", {"name": "nvme\n", "temp1_input": "1000\n"})
        (tmp_path / f"sys/class/net/eth{number}/device").mkdir(parents=True)
    lines = (f"eth{number}: {' '.join(16 * '1')}" for number in range(100))
    write(tmp_path, {"proc/net/dev": "\n".join(lines)})

    sample, _ = read(tmp_path)

    assert msgspec.json.decode(msgspec.json.encode(sample), type=HostSample) == sample
    assert (len(sample.interfaces), len(sample.temperatures)) == (64, 64)


def test_of_a_meter_the_first_channel_is_the_whole(tmp_path: Path) -> None:
    supply = {"name": "corsairpsu\n", "power1_input": "95000000\n", "power2_input": "70000000\n"}
    chip(tmp_path, 0, "0003:1B1C.0001", supply)

    assert read(tmp_path)[0].power_watts == pytest.approx(95.0)
