"""What `vireo top` shows, as values. Pure: two tables, sorted, cut to the height there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from schemas.loads import HostLoad, VmLoad
from vireo.cli.layout import Page, Section, Table, narrowed
from vireo.cli.sparklines import sparkline
from vireo.cli.words import NOTHING, age, celsius, counted, number, of_bytes, share

TICKS = 20
"""Characters of a sparkline, and ticks that are asked for."""


class Sort(StrEnum):
    """What the rows are sorted by; all but names the largest first."""

    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    NETWORK = "network"
    NAME = "name"


class Look(Struct, frozen=True, kw_only=True):
    """All of the fleet at one moment."""

    at: datetime
    hosts: tuple[HostLoad, ...]
    vms: tuple[VmLoad, ...]


class View(Struct, frozen=True, kw_only=True):
    """How it is looked at. `skipped` VMs are above what is seen; the page is at most `lines` high and
    `width` wide."""

    sort: Sort = Sort.CPU
    skipped: int = 0
    lines: int | None = None
    width: int | None = None


_HOST_KEYS: dict[Sort, Callable[[HostLoad], float | None]] = {
    Sort.CPU: lambda host: host.cpu_busy,
    Sort.MEMORY: lambda host: _part(host.memory_used_bytes, host.memory_total_bytes),
    Sort.DISK: lambda host: None if host.disk_free_bytes is None else -host.disk_free_bytes,
    Sort.NETWORK: lambda host: _sum(host.received_bytes_s, host.sent_bytes_s),
}
_VM_KEYS: dict[Sort, Callable[[VmLoad], float | None]] = {
    Sort.CPU: lambda vm: vm.cpu_busy,
    Sort.MEMORY: lambda vm: vm.memory_used_bytes,
    Sort.DISK: lambda vm: _sum(vm.read_bytes_s, vm.written_bytes_s),
    Sort.NETWORK: lambda vm: _sum(vm.received_bytes_s, vm.sent_bytes_s),
}


def ordered(look: Look, sort: Sort) -> Look:
    """The same, sorted; what is not known comes last, and what is equal by name."""
    hosts = sorted(look.hosts, key=lambda host: host.host)
    vms = sorted(look.vms, key=lambda vm: (vm.name or vm.vm, vm.vm))
    if sort is not Sort.NAME:
        hosts.sort(key=lambda host: _largest_first(_HOST_KEYS[sort](host)))
        vms.sort(key=lambda vm: _largest_first(_VM_KEYS[sort](vm)))
    return replace(look, hosts=tuple(hosts), vms=tuple(vms))


def top_page(look: Look, view: View) -> Page:
    """The whole page: of more hosts or VMs than there is room for, the first ones."""
    shown = ordered(look, view.sort)
    hosts, vms = _fitting(shown, view)
    running = sum(vm.state == "running" for vm in look.vms)
    title = (
        f"{counted(len(look.hosts), 'host')}, {counted(len(look.vms), 'VM')}, {running} running; "
        f"by {view.sort.value}; {look.at:%H:%M:%S}"
    )
    return Page(
        title=title,
        sections=(
            Section(
                title=_of("Hosts", hosts, look.hosts),
                table=_narrowed(host_table(hosts, now=look.at), view, _SPARE_OF_HOSTS),
            ),
            Section(
                title=_of("VMs", vms, look.vms),
                table=_narrowed(vm_table(vms), view, _SPARE_OF_VMS),
            ),
        ),
    )


Spare = tuple[tuple[str, ...], ...]

_SPARE_OF_HOSTS: Spare = (
    *(("waits",), ("in", "out"), ("recent",), ("power",), ("cpu temp",), ("load",)),
    *(("disk",), ("memory",), ("told",), ("vms",)),
)
"""What a narrow terminal goes without, the first ones first; never the names."""
_SPARE_OF_VMS: Spare = (
    *(("read", "write"), ("in", "out"), ("recent",), ("host",), ("state",), ("memory",)),
    ("cpus",),
)
_SORTED_BY: dict[Sort, tuple[str, ...]] = {
    Sort.CPU: ("cpu", "cpus"),
    Sort.MEMORY: ("memory",),
    Sort.DISK: ("disk", "read", "write"),
    Sort.NETWORK: ("in", "out"),
    Sort.NAME: (),
}


def _narrowed(table: Table, view: View, spare: Spare) -> Table:
    """What it is sorted by stays."""
    if view.width is None:
        return table
    kept = _SORTED_BY[view.sort]
    names = [names for names in spare if not set(names) & set(kept)]
    return narrowed(table, width=view.width, spare=names)


def scrolled(view: View, by: int, look: Look) -> View:
    """So many VMs further down, or up."""
    return replace(view, skipped=max(0, min(view.skipped + by, len(look.vms) - 1)))


def sorted_by_next(view: View, by: int) -> View:
    """The next order, or the one before."""
    sorts = list(Sort)
    return replace(view, sort=sorts[(sorts.index(view.sort) + by) % len(sorts)], skipped=0)


FRAME_LINES = 7
"""Lines that are no rows: title, two blank ones, the sections' titles, two heads."""


def _fitting(look: Look, view: View) -> tuple[tuple[HostLoad, ...], tuple[VmLoad, ...]]:
    if view.lines is None:
        return look.hosts, look.vms[view.skipped :]
    room = max(view.lines - FRAME_LINES, 2)
    # VMs are what there are many of: hosts take a third, or what VMs leave.
    of_hosts = min(len(look.hosts), max(room // 3, room - len(look.vms)))
    vms = look.vms[view.skipped : view.skipped + room - of_hosts]
    return look.hosts[:of_hosts], vms


SOME_TELL = ("cpu temp", "power")
"""Columns that stand there only where some host has such a thing."""


def host_table(hosts: Sequence[HostLoad], *, now: datetime) -> Table:
    rows = [_host_cells(host, now) for host in hosts]
    columns = tuple(name for name in _HOST_COLUMNS if name not in SOME_TELL or _is_told(name, rows))
    return Table(columns=columns, rows=tuple(tuple(row[name] for name in columns) for row in rows))


_HOST_COLUMNS = (
    *("host", "cpu", "recent", "load", "memory", "disk", "waits", "in", "out"),
    *("cpu temp", "power", "vms", "told"),
)


def _host_cells(host: HostLoad, now: datetime) -> dict[str, str]:
    return {
        "host": host.host,
        "cpu": share(host.cpu_busy),
        "recent": sparkline(host.recent_cpu, width=TICKS, lowest=0.0, highest=1.0),
        "load": number(host.load1),
        "memory": _of_whole(host.memory_used_bytes, host.memory_total_bytes),
        "disk": share(_disk_used(host)),
        "waits": share(host.io_pressure),
        "in": _rate(host.received_bytes_s),
        "out": _rate(host.sent_bytes_s),
        "cpu temp": celsius(host.cpu_celsius),
        "power": NOTHING if host.power_watts is None else f"{host.power_watts:.0f} W",
        "vms": str(host.vms_running),
        "told": age(host.at, now),
    }


def _is_told(name: str, rows: Sequence[dict[str, str]]) -> bool:
    return any(row[name] != NOTHING for row in rows)


def vm_table(vms: Sequence[VmLoad]) -> Table:
    return Table(
        columns=("vm", "host", "state", "cpus", "recent", "memory", "read", "write", "in", "out"),
        rows=tuple(
            (
                vm.name or vm.vm,
                vm.host,
                vm.state or NOTHING,
                _cpus(vm),
                sparkline(vm.recent_cpu, width=TICKS, lowest=0.0, highest=float(vm.cpus or 1)),
                _of_whole(vm.memory_used_bytes, vm.memory_max_bytes),
                *(
                    _rate(each)
                    for each in (
                        vm.read_bytes_s,
                        vm.written_bytes_s,
                        vm.received_bytes_s,
                        vm.sent_bytes_s,
                    )
                ),
            )
            for vm in vms
        ),
    )


def _of(title: str, shown: Sequence[Any], every: Sequence[Any]) -> str:
    return title if len(shown) == len(every) else f"{title} ({len(shown)} of {len(every)})"


def _cpus(vm: VmLoad) -> str:
    if vm.cpu_busy is None:
        return NOTHING if vm.cpus is None else f"- of {vm.cpus}"
    return f"{vm.cpu_busy:.2f}" + (f" of {vm.cpus}" if vm.cpus else "")


def _of_whole(used: int | None, whole: int | None) -> str:
    if used is None:
        return NOTHING if whole is None else f"- of {of_bytes(whole)}"
    return of_bytes(used) if whole is None else f"{of_bytes(used)} of {of_bytes(whole)}"


def _rate(bytes_s: float | None) -> str:
    return NOTHING if bytes_s is None else f"{of_bytes(round(bytes_s))}/s"


def _disk_used(host: HostLoad) -> float | None:
    if host.disk_free_bytes is None or not host.disk_total_bytes:
        return None
    return 1 - host.disk_free_bytes / host.disk_total_bytes


def _part(used: int | None, whole: int | None) -> float | None:
    return None if used is None or not whole else used / whole


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _largest_first(value: float | None) -> float:
    return float("inf") if value is None else -value
