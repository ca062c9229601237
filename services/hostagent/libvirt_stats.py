"""libvirt's bulk statistics as columns of a telemetry frame. Pure.

Field names are those of `virConnectGetAllDomainStats`; what a driver leaves out is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.ids import VmId
from schemas.telemetry import MAX_VMS_PER_FRAME, VmColumns
from services.hostagent.model import Power, StopCause

Stats = Mapping[str, Any]

# The values of virDomainState in libvirt-domain.h
RUNNING, BLOCKED, PAUSED, SHUTDOWN, SHUTOFF, CRASHED, PM_SUSPENDED = 1, 2, 3, 4, 5, 6, 7

POWER: dict[int, Power] = {
    RUNNING: "running",
    BLOCKED: "running",
    PAUSED: "paused",
    SHUTDOWN: "running",
    SHUTOFF: "stopped",
    CRASHED: "stopped",
    # A guest that put itself to sleep runs: it wakes itself, and `resume` would not wake it.
    PM_SUSPENDED: "running",
}

# virDomainShutoffReason: the guest shut down; crashed; QEMU failed
STOP_CAUSES: dict[int, StopCause] = {1: "guest", 3: "crashed", 6: "crashed"}

# virDomainPausedReason: why a domain may be paused without anybody's wish to leave it so
PASSING_PAUSES = {
    2: "migrating",
    3: "being saved",
    4: "being dumped",
    7: "being restored from a snapshot",
    8: "shutting down",
    9: "having a snapshot taken",
    11: "starting up",
}
PAUSE_DETAILS = {5: "I/O error", 6: "watchdog"}
PAUSED_CRASHED = 10
"""Its guest has panicked: QEMU stands still, and nothing will run in it again."""


def power_of(state: int) -> Power:
    return POWER.get(state, "stopped")


def columns(ours: Sequence[tuple[VmId, Stats]]) -> VmColumns:
    """One column per number, one row per domain; at most as many rows as a frame may have."""
    rows = sorted(ours, key=lambda row: row[0])[:MAX_VMS_PER_FRAME]
    stats = [row[1] for row in rows]

    def column(name: str) -> tuple[int | None, ...]:
        return tuple(one.get(name) for one in stats)

    def total(group: str, field: str) -> tuple[int | None, ...]:
        return tuple(_total(one, group, field) for one in stats)

    return VmColumns(
        ids=tuple(row[0] for row in rows),
        state=tuple(_state(one) for one in stats),
        cpus=column("vcpu.current"),
        cpu_time_ns=column("cpu.time"),
        cpu_steal_ns=tuple(_steal_ns(one) for one in stats),
        memory_max_kib=column("balloon.maximum"),
        memory_rss_kib=column("balloon.rss"),
        memory_available_kib=column("balloon.available"),
        memory_unused_kib=column("balloon.unused"),
        block_read_bytes=total("block", "rd.bytes"),
        block_write_bytes=total("block", "wr.bytes"),
        block_read_requests=total("block", "rd.reqs"),
        block_write_requests=total("block", "wr.reqs"),
        net_receive_bytes=total("net", "rx.bytes"),
        net_transmit_bytes=total("net", "tx.bytes"),
    )


def _state(stats: Stats) -> str:
    state, reason = stats.get("state.state", 0), stats.get("state.reason", 0)
    if state == CRASHED or (state == SHUTOFF and STOP_CAUSES.get(reason) == "crashed"):
        return "crashed"
    return power_of(state)


def _steal_ns(stats: Stats) -> int | None:
    """How long a domain's CPUs stood in the host's queue (`vcpu.<n>.delay`, from the kernel's
    `/proc/<pid>/task/<tid>/schedstat`). A kernel that does not count it is told as zero by libvirt, and
    nobody has run for a while and never waited a nanosecond."""
    return _total(stats, "vcpu", "delay", count="maximum") or None


def _total(stats: Stats, group: str, field: str, *, count: str = "count") -> int | None:
    """The sum over all devices of a kind; None where none of them counts."""
    values = [
        stats[name]
        for index in range(int(stats.get(f"{group}.{count}", 0)))
        if (name := f"{group}.{index}.{field}") in stats
    ]
    return sum(values) if values else None
