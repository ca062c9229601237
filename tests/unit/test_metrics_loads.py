"""A fleet as rows: each host and VM once, in pages, with what is known and nothing else."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from schemas.ids import uuid7
from schemas.loads import MOST_RECENT, HostLoad, ListHostLoads, ListVmLoads, VmLoad
from schemas.samples import HOST_LOAD, VM_LOAD
from schemas.telemetry import GuestSample, HostSample
from services.metrics.loads import Rows, host_loads, vm_loads
from services.metrics.model import Fleet, HostNewest, VmNewest, VmSample
from services.metrics.plane import VmName
from services.metrics.series import SERIES, Kind

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
A, B, C = (uuid7(1_700_000_000_000 + n, b"0123456789") for n in range(3))


def host(name: str, *vms: str, heard_s: float = 0.0) -> HostNewest:
    sample = VmSample(state="running", cpus=2, memory_max_kib=1024, memory_rss_kib=512)
    return HostNewest(
        host=name,
        site="lab",
        at=AT,
        sequence=1,
        interval_s=5.0,
        sample=HostSample(cpu_busy=0.5, memory_total_mib=4, memory_available_mib=1),
        heard_s=heard_s,
        vms={vm: VmNewest(sample=sample) for vm in vms},
    )


def fleet(*hosts: HostNewest) -> Fleet:
    return Fleet(hosts={(each.site, each.host): each for each in hosts})


def nothing(_kind: Kind, _name: str, _count: int) -> Rows:
    return ()


def row(kind: Kind, **values: float) -> list[float]:
    return [values.get(series.name, math.nan) for series in SERIES[kind]]


def test_a_host_is_a_row_in_bytes_and_shares() -> None:
    page = host_loads(fleet(host("h1", A)), ListHostLoads(), nothing)
    assert page.items == (
        HostLoad(
            host="h1",
            site="lab",
            at=AT,
            cpu_busy=0.5,
            memory_total_bytes=4 << 20,
            memory_used_bytes=3 << 20,
        ),
    )
    assert page.next is None


def test_pages_follow_one_another_without_a_gap() -> None:
    hosts = fleet(host("h1", C, A), host("h2", B))
    first = vm_loads(hosts, {}, ListVmLoads(limit=2), nothing)
    rest = vm_loads(hosts, {}, ListVmLoads(limit=2, after=first.next), nothing)
    assert [load.vm for load in first.items] == [A, B]
    assert [load.vm for load in rest.items] == [C]
    assert (first.next, rest.next) == (B, None)


def test_of_two_hosts_that_tell_of_a_vm_the_one_heard_last_counts() -> None:
    hosts = fleet(host("h1", A, heard_s=2.0), host("h2", A, heard_s=1.0))
    assert [load.host for load in vm_loads(hosts, {}, ListVmLoads(), nothing).items] == ["h1"]
    only = vm_loads(hosts, {}, ListVmLoads(host="h2"), nothing)
    assert [load.host for load in only.items] == ["h2"]


def test_rates_and_the_ticks_before_come_from_the_rings_and_a_gap_stays_one() -> None:
    ticks = [row("vm", cpu_busy=0.25), row("vm"), row("vm", cpu_busy=0.5, net_sent=10.0)]

    def recent(_kind: Kind, _name: str, count: int) -> Rows:
        return ticks[-count:]

    hosts = fleet(host("h1", A))
    load = vm_loads(hosts, {}, ListVmLoads(recent=3), recent).items[0]
    assert load.recent_cpu == (0.25, None, 0.5)
    assert (load.sent_bytes_s, load.read_bytes_s) == (10.0, None)
    assert vm_loads(hosts, {}, ListVmLoads(), recent).items[0] == replace(load, recent_cpu=())


def test_a_host_s_network_and_heat_are_those_of_its_newest_tick() -> None:
    def recent(_kind: Kind, _name: str, count: int) -> Rows:
        return [row("host", net_received=1.0), row("host", net_sent=10.0, cpu_temperature=54.0)][
            -count:
        ]

    load = host_loads(fleet(host("h1")), ListHostLoads(), recent).items[0]
    assert (load.received_bytes_s, load.sent_bytes_s, load.cpu_celsius) == (None, 10.0, 54.0)
    assert load.recent_cpu == ()


def test_memory_is_what_the_guest_says_where_it_says_it() -> None:
    told = GuestSample(vm=A, at=AT, memory_total_kib=1000, memory_available_kib=900)
    one = host("h1", A, B)
    one = replace(one, vms={**one.vms, A: replace(one.vms[A], guest=told)})
    names = {A: VmName(name="web1", project="shop")}
    loads = vm_loads(fleet(one), names, ListVmLoads(), nothing).items
    assert [(each.name, each.memory_used_bytes) for each in loads] == [
        ("web1", 100 * 1024),
        ("", 512 * 1024),
    ]


def test_the_largest_page_fits_into_a_message() -> None:
    ticks = tuple(0.1234 for _ in range(MOST_RECENT))
    rates = {"received_bytes_s": 123456.78, "sent_bytes_s": 123456.78}
    whole: list[VmLoad | HostLoad] = [
        replace(VM_LOAD, recent_cpu=ticks, read_bytes_s=123456.78, written_bytes_s=123456.78),
        replace(HOST_LOAD, recent_cpu=ticks, load1=12.34, power_watts=250.25, **rates),
    ]
    assert all(len(msgspec.json.encode(each)) * 1000 < 1 << 20 for each in whole)
