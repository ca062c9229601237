"""From what is newest to one row per host or VM. Pure; what went before comes out of the rings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from schemas.loads import HostLoad, ListHostLoads, ListVmLoads, VmLoad
from schemas.resources import Page
from services.metrics.families import KIB, MIB
from services.metrics.model import Fleet, HostNewest, VmNewest
from services.metrics.plane import VmName
from services.metrics.series import SERIES, Kind

Rows = Sequence[Sequence[float]]
Recent = Callable[[Kind, str, int], Rows]
"""The last so many ticks of a VM or host, oldest first, each a row of its series."""

_AT: dict[Kind, dict[str, int]] = {
    kind: {each.name: place for place, each in enumerate(series)} for kind, series in SERIES.items()
}
_OF_VMS = {
    "read_bytes_s": "block_read",
    "written_bytes_s": "block_written",
    "received_bytes_s": "net_received",
    "sent_bytes_s": "net_sent",
}
_OF_HOSTS = {
    "cpu_celsius": "cpu_temperature",
    "received_bytes_s": "net_received",
    "sent_bytes_s": "net_sent",
}
"""Fields that are taken from the newest tick."""
UNNAMED = VmName(name="", project="")


def host_loads(fleet: Fleet, query: ListHostLoads, recent: Recent) -> Page:
    """A page of hosts, by name."""
    newest: dict[str, HostNewest] = {}
    for host in sorted(fleet.hosts.values(), key=lambda each: each.heard_s):
        newest[host.host] = host
    names, more = _page(newest, query.after, query.limit)
    items = tuple(
        # One tick for the rates, though none may be wished for.
        _host_load(newest[name], recent("host", name, max(query.recent, 1)), wished=query.recent)
        for name in names
    )
    return Page(items=items, next=names[-1] if more else None)


def vm_loads(fleet: Fleet, names: Mapping[str, VmName], query: ListVmLoads, recent: Recent) -> Page:
    """A page of VMs, by id. Of two hosts that tell of one VM the one that was heard last counts."""
    teller: dict[str, HostNewest] = {}
    for host in sorted(fleet.hosts.values(), key=lambda each: each.heard_s):
        if query.host in (None, host.host):
            teller.update(dict.fromkeys(host.vms, host))
    ids, more = _page(teller, query.after, query.limit)
    items = tuple(
        _vm_load(
            id,
            teller[id],
            teller[id].vms[id],
            names.get(id, UNNAMED),
            recent("vm", id, max(query.recent, 1)),
            wished=query.recent,
        )
        for id in ids
    )
    return Page(items=items, next=ids[-1] if more else None)


def _page(things: Mapping[str, Any], after: str | None, limit: int) -> tuple[list[str], bool]:
    """The names that come next, and whether more do."""
    left = sorted(name for name in things if after is None or name > after)
    return left[:limit], len(left) > limit


def _host_load(host: HostNewest, rows: Rows, *, wished: int) -> HostLoad:
    sample = host.sample
    total, available = sample.memory_total_mib, sample.memory_available_mib
    return HostLoad(
        host=host.host,
        site=host.site,
        at=host.at,
        cpu_busy=sample.cpu_busy,
        load1=sample.load1,
        memory_total_bytes=_times(total, MIB),
        memory_used_bytes=_less(_times(total, MIB), _times(available, MIB)),
        disk_total_bytes=sample.disk_total_bytes,
        disk_free_bytes=sample.disk_free_bytes,
        io_pressure=sample.io_pressure,
        power_watts=sample.power_watts,
        vms_running=sample.vms_running,
        recent_cpu=tuple(_column("host", "cpu_busy", rows)) if wished else (),
        **_newest("host", _OF_HOSTS, rows),
    )


def _vm_load(
    id: str, host: HostNewest, vm: VmNewest, name: VmName, rows: Rows, *, wished: int
) -> VmLoad:
    return VmLoad(
        vm=id,
        name=name.name,
        project=name.project,
        host=host.host,
        site=host.site,
        at=host.at,
        state=vm.sample.state or "",
        cpus=vm.sample.cpus,
        cpu_busy=vm.cpu_busy,
        memory_max_bytes=_times(vm.sample.memory_max_kib, KIB),
        memory_used_bytes=_memory_used(vm),
        recent_cpu=tuple(_column("vm", "cpu_busy", rows)) if wished else (),
        **_newest("vm", _OF_VMS, rows),
    )


def _memory_used(vm: VmNewest) -> int | None:
    guest = vm.guest
    inside = (
        None
        if guest is None
        else _less(_times(guest.memory_total_kib, KIB), _times(guest.memory_available_kib, KIB))
    )
    return _times(vm.sample.memory_rss_kib, KIB) if inside is None else inside


def _newest(kind: Kind, fields: Mapping[str, str], rows: Rows) -> dict[str, Any]:
    """Of each field its series' value in the last row."""
    return {
        field: next(iter(_column(kind, series, rows[-1:])), None)
        for field, series in fields.items()
    }


def _column(kind: Kind, series: str, rows: Rows) -> Iterator[float | None]:
    place = _AT[kind][series]
    for row in rows:
        value = float(row[place])
        yield round(value, 4) if math.isfinite(value) else None


def _times(value: int | None, unit: int) -> int | None:
    return None if value is None else value * unit


def _less(value: int | None, part: int | None) -> int | None:
    return None if value is None or part is None else max(value - part, 0)
