"""The host's own numbers from `/proc`, as a telemetry sample. Parsing is pure; `read` is the rim."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from schemas.telemetry import HostSample

KIB_PER_MIB = 1024


class CpuTimes(Struct, frozen=True):
    """Ticks since boot over all CPUs."""

    busy: int
    total: int


def cpu_times(stat: str) -> CpuTimes | None:
    """From the first line of `/proc/stat` (proc(5)): user nice system idle iowait irq softirq steal …

    Guest time is part of user time already.
    """
    fields = stat.partition("\n")[0].split()
    if len(fields) < 5 or fields[0] != "cpu":
        return None
    ticks = [int(field) for field in fields[1:9]]
    idle = ticks[3] + (ticks[4] if len(ticks) > 4 else 0)
    return CpuTimes(sum(ticks) - idle, sum(ticks))


def busy_share(before: CpuTimes | None, now: CpuTimes | None) -> float | None:
    if before is None or now is None or now.total <= before.total:
        return None
    return max(0.0, min(1.0, (now.busy - before.busy) / (now.total - before.total)))


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
    proc: Path, disk: Path, *, before: CpuTimes | None, running: int, memory: tuple[int, int] | None
) -> tuple[HostSample, CpuTimes | None]:
    """The sample now, and the counters that the next one is measured from.

    `memory` is what the hypervisor says (total and available, MiB); `/proc/meminfo` is asked for the
    rest, and for all of it where the hypervisor says nothing.
    """
    now = cpu_times(_text(proc / "stat"))
    info = meminfo(_text(proc / "meminfo"))
    load1, load5, load15 = loads(_text(proc / "loadavg"))
    uptime = _text(proc / "uptime").split()
    available = _mib(info.get("MemAvailable"))
    if available is None and memory is not None:
        available = memory[1]
    space = os.statvfs(disk)
    sample = HostSample(
        cpu_busy=busy_share(before, now),
        load1=load1,
        load5=load5,
        load15=load15,
        memory_total_mib=memory[0] if memory else _mib(info.get("MemTotal")),
        memory_available_mib=available,
        swap_used_mib=_mib(info.get("SwapTotal", 0) - info.get("SwapFree", 0)),
        disk_total_bytes=space.f_frsize * space.f_blocks,
        disk_free_bytes=space.f_frsize * space.f_bavail,
        uptime_s=float(uptime[0]) if uptime else None,
        vms_running=running,
    )
    return sample, now


def _mib(kib: int | None) -> int | None:
    return None if kib is None else kib // KIB_PER_MIB


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
