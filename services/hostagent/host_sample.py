"""The host's own numbers from `/proc` and `/sys`, as a telemetry sample. Parsing is pure; `read` is the
rim. What a kernel or machine does not offer is left out, never zero.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct

from schemas.telemetry import CpuModes, HostSample, PoolSample
from services.hostagent import network, power, sensors, sysfs
from services.hostagent.power import Energy

KIB_PER_MIB = 1024
MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The order of `/proc/stat` (proc(5)). Guest time is part of user time already."""
SHOWN_MODES = ("user", "nice", "system", "irq", "softirq", "steal")


class CpuTimes(Struct, frozen=True):
    """Ticks since boot over all CPUs; `by_mode` where the modes are told apart."""

    busy: int
    total: int
    by_mode: Mapping[str, int] = {}


class Counters(Struct, frozen=True, kw_only=True):
    """What the next sample is measured from."""

    cpu: CpuTimes | None = None
    energy: Energy | None = None


def cpu_times(stat: str) -> CpuTimes | None:
    """From the first line of `/proc/stat`."""
    fields = stat.partition("\n")[0].split()
    if len(fields) < 5 or fields[0] != "cpu":
        return None
    ticks = dict(zip(MODES, (int(field) for field in fields[1:]), strict=False))
    total = sum(ticks.values())
    return CpuTimes(total - ticks["idle"] - ticks.get("iowait", 0), total, ticks)


def busy_share(before: CpuTimes | None, now: CpuTimes | None) -> float | None:
    if before is None or now is None or now.total <= before.total:
        return None
    return max(0.0, min(1.0, (now.busy - before.busy) / (now.total - before.total)))


def share_in(mode: str, before: CpuTimes | None, now: CpuTimes | None) -> float | None:
    """Share of all time that CPUs spent in a mode of `/proc/stat`."""
    if before is None or now is None or now.total <= before.total:
        return None
    if mode not in before.by_mode or mode not in now.by_mode:
        return None
    spent = now.by_mode[mode] - before.by_mode[mode]
    # The kernel's count of I/O wait may go backward.
    return max(0.0, min(1.0, spent / (now.total - before.total)))


def cpu_modes(before: CpuTimes | None, now: CpuTimes | None) -> CpuModes | None:
    shares = {mode: share_in(mode, before, now) for mode in SHOWN_MODES}
    known = any(share is not None for share in shares.values())
    return CpuModes(**shares) if known else None


def pressure(text: str) -> float | None:
    """`some avg10=` of a file of `/proc/pressure` (the kernel's accounting/psi), as a share."""
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind != "some":
            continue
        for field in fields:
            name, _, value = field.partition("=")
            if name == "avg10":
                return _share_of_percent(value)
    return None


def _share_of_percent(text: str) -> float | None:
    try:
        return round(float(text) / 100, 6)
    except ValueError:
        return None


def meminfo(text: str) -> dict[str, int]:
    """`/proc/meminfo` in KiB by name."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0])
    return found


def loads(text: str) -> tuple[float | None, float | None, float | None]:
    """The three averages of `/proc/loadavg`."""
    try:
        one, five, fifteen = (float(word) for word in text.split()[:3])
    except ValueError:
        return None, None, None
    return one, five, fifteen


def read(
    *,
    proc: Path,
    sys: Path,
    disk: Path,
    pools: Mapping[str, Path],
    meters: Collection[str],
    before: Counters,
    at_s: float,
    running: int,
    memory: tuple[int, int] | None,
) -> tuple[HostSample, Counters]:
    """The sample now, and the counters that the next one is measured from.

    `memory` is what the hypervisor says (total and available, MiB); `/proc/meminfo` is asked for the
    rest, and for all of it where the hypervisor says nothing. `meters`: chips that measure the whole
    machine's power.
    """
    now = Counters(cpu=cpu_times(sysfs.text(proc / "stat")), energy=power.energy(sys, at_s=at_s))
    info = meminfo(sysfs.text(proc / "meminfo"))
    load1, load5, load15 = loads(sysfs.text(proc / "loadavg"))
    uptime = sysfs.text(proc / "uptime").split()
    available = _mib(info.get("MemAvailable"))
    if available is None and memory is not None:
        available = memory[1]
    space = os.statvfs(disk)
    sample = HostSample(
        cpu_busy=busy_share(before.cpu, now.cpu),
        io_wait=share_in("iowait", before.cpu, now.cpu),
        power_watts=_watts(sys, meters, before.energy, now.energy),
        cpu_modes=cpu_modes(before.cpu, now.cpu),
        cpu_pressure=pressure(sysfs.text(proc / "pressure" / "cpu")),
        memory_pressure=pressure(sysfs.text(proc / "pressure" / "memory")),
        io_pressure=pressure(sysfs.text(proc / "pressure" / "io")),
        load1=load1,
        load5=load5,
        load15=load15,
        memory_total_mib=memory[0] if memory else _mib(info.get("MemTotal")),
        memory_available_mib=available,
        swap_total_mib=_mib(info.get("SwapTotal")),
        swap_used_mib=_swap_used_mib(info),
        disk_total_bytes=space.f_frsize * space.f_blocks,
        disk_free_bytes=space.f_frsize * space.f_bavail,
        pools=tuple(_pool_samples(pools)),
        interfaces=network.interfaces(proc, sys),
        temperatures=sensors.temperatures(sys),
        uptime_s=float(uptime[0]) if uptime else None,
        vms_running=running,
    )
    return sample, now


def _watts(
    sys: Path, meters: Collection[str], before: Energy | None, now: Energy | None
) -> float | None:
    metered = power.metered_watts(sys, meters)
    return metered if now is None or metered is not None else power.watts_between(before, now)


def _pool_samples(pools: Mapping[str, Path]) -> list[PoolSample]:
    """A pool that is not mounted now is left out."""
    found = []
    for name, folder in sorted(pools.items()):
        try:
            space = os.statvfs(folder)
        except OSError:
            continue
        size, free = space.f_frsize * space.f_blocks, space.f_frsize * space.f_bavail
        found.append(PoolSample(name=name, total_bytes=size, free_bytes=free))
    return found


def _swap_used_mib(info: Mapping[str, int]) -> int | None:
    total, free = info.get("SwapTotal"), info.get("SwapFree")
    return None if total is None or free is None else _mib(total - free)


def _mib(kib: int | None) -> int | None:
    return None if kib is None else kib // KIB_PER_MIB
