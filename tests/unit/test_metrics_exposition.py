"""What Prometheus is shown: its text format, its names, nothing that is not known."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from schemas.ids import uuid7
from schemas.resources import Host, HostConfig, HostFacts
from schemas.telemetry import (
    CpuModes,
    FileSystem,
    GuestDisk,
    GuestSample,
    HostInterface,
    HostSample,
    NetworkInterface,
    PoolSample,
    Temperature,
)
from services.metrics.exposition import LABELS, text
from services.metrics.model import Fleet, HostNewest, VmNewest, VmSample
from services.metrics.plane import LedgerFacts, Plane, VmName, Walk

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
VM = uuid7(1_700_000_000_000, b"0123456789")
GUEST = GuestSample(
    vm=VM,
    at=AT,
    os='Tiny "1"\nand \\ more',
    kernel="6.1",
    hostname="web-1",
    source="guest-agent",
    agent_version="1",
    clock_offset_s=0.25,
    users=("root",),
    load1=0.1,
    load5=0.2,
    load15=0.3,
    cpu_busy=0.5,
    memory_total_kib=98304,
    memory_available_kib=65536,
    uptime_s=12.5,
    file_systems=(
        FileSystem(mountpoint="/", type="ext4", total_bytes=1000, used_bytes=10),
        FileSystem(mountpoint="/", type="ext4", total_bytes=2000, used_bytes=20),
    ),
    interfaces=(NetworkInterface(name="eth0", receive_bytes=1, transmit_bytes=2),),
    disks=(GuestDisk(name="vda", read_bytes=3, write_bytes=4),),
)
PACKAGE = Temperature(
    part="cpu",
    chip="coretemp",
    device="coretemp.0",
    sensor="Package id 0",
    celsius=54.0,
    critical_celsius=100.0,
)
SENSOR = (
    *(("chip", "coretemp"), ("device", "coretemp.0"), ("host", "h1"), ("part", "cpu")),
    *(("sensor", "Package id 0"), ("site", "lab")),
)
FULL = Fleet(
    hosts={
        ("lab", "h1"): HostNewest(
            host="h1",
            site="lab",
            at=AT,
            sequence=1,
            interval_s=5.0,
            heard_s=0.0,
            sample=HostSample(
                cpu_busy=0.25,
                io_wait=0.125,
                cpu_modes=CpuModes(user=0.125, system=0.0625),
                pools=(PoolSample(name="fast", total_bytes=2000, free_bytes=500),),
                power_watts=184.5,
                cpu_pressure=0.5,
                memory_pressure=0.0,
                io_pressure=0.25,
                load1=1.0,
                load5=0.5,
                load15=0.25,
                memory_total_mib=4096,
                memory_available_mib=1024,
                swap_total_mib=2048,
                swap_used_mib=0,
                interfaces=(
                    HostInterface(
                        name="eno1",
                        receive_bytes=10,
                        receive_packets=11,
                        receive_errors=12,
                        receive_drops=13,
                        transmit_bytes=14,
                        transmit_packets=15,
                        transmit_errors=16,
                        transmit_drops=17,
                    ),
                ),
                temperatures=2 * (PACKAGE,),
                disk_total_bytes=10_000_000_000,
                disk_free_bytes=5_000_000_000,
                uptime_s=3600.0,
                vms_running=1,
            ),
            vms={
                VM: VmNewest(
                    sample=VmSample(
                        state="running",
                        cpus=2,
                        cpu_time_ns=1_500_000_000,
                        cpu_steal_ns=250_000_000,
                        memory_max_kib=131_072,
                        memory_rss_kib=98_304,
                        memory_available_kib=120_000,
                        memory_unused_kib=100_000,
                        block_read_bytes=1,
                        block_write_bytes=2,
                        block_read_requests=3,
                        block_write_requests=4,
                        net_receive_bytes=5,
                        net_transmit_bytes=6,
                    ),
                    cpu_busy=0.5,
                    guest=GUEST,
                )
            },
        )
    },
    frames={"taken": 3, "garbled": 1, "stale": 0, "refused": 0},
)
PLANE = Plane(
    hosts=(
        Host(
            name="h1",
            site="lab",
            state="silent",
            facts=HostFacts(
                host="h1",
                site="lab",
                hypervisor="QEMU",
                domain_type="kvm",
                arch="x86_64",
                cpus=4,
                memory_mib=4096,
                disk_gib=10,
                cpu_model="Quick",
                kernel="6.12",
            ),
            config=HostConfig(host="h1"),
            reserved_cpus=2,
            reserved_memory_mib=512,
            reserved_disk_gib=1,
            vms=1,
            registered_at=AT,
            updated_at=AT,
        ),
    ),
    names={VM: VmName(name="web1", project="shop")},
    ready={"gateway": True, "inventory": False},
    behind={("EVENTS", "inventory"): 7},
    dead_letters=3,
    ledger=LedgerFacts(rows=100, gaps={"open": 2, "missing": 0, "unreadable": 0}, alarms=1),
    walk=Walk(through=40, faults=1),
)


def samples(
    fleet: Fleet, plane: Plane | None = None
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """As Prometheus' own client reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text(fleet, plane))
        for sample in family.samples
    }


def test_values_are_in_base_units() -> None:
    found = samples(FULL)
    host = (("host", "h1"), ("site", "lab"))
    vm = (*host, ("vm", VM))
    assert {
        name: found[name, labels]
        for name, labels in (
            ("vireo_host_info", host),
            ("vireo_host_memory_size_bytes", host),
            ("vireo_host_cpu_busy_ratio", host),
            ("vireo_host_io_wait_ratio", host),
            ("vireo_host_power_watts", host),
            ("vireo_host_memory_pressure_ratio", host),
            ("vireo_host_io_pressure_ratio", host),
            ("vireo_host_last_frame_timestamp_seconds", host),
            ("vireo_host_swap_size_bytes", host),
            ("vireo_host_network_receive_drops_total", (*host[:1], ("interface", "eno1"), host[1])),
            ("vireo_host_temperature_celsius", SENSOR),
            ("vireo_host_temperature_critical_celsius", SENSOR),
            ("vireo_vm_cpu_steal_seconds_total", vm),
            ("vireo_vm_cpu_seconds_total", vm),
            ("vireo_vm_memory_size_bytes", vm),
            ("vireo_guest_agent_up", vm),
        )
    } == {
        "vireo_host_info": 1,
        "vireo_host_memory_size_bytes": 4096 * 1024 * 1024,
        "vireo_host_cpu_busy_ratio": 0.25,
        "vireo_host_io_wait_ratio": 0.125,
        "vireo_host_power_watts": 184.5,
        "vireo_host_memory_pressure_ratio": 0.0,
        "vireo_host_io_pressure_ratio": 0.25,
        "vireo_host_last_frame_timestamp_seconds": AT.timestamp(),
        "vireo_host_swap_size_bytes": 2048 * 1024 * 1024,
        "vireo_host_network_receive_drops_total": 13,
        "vireo_host_temperature_celsius": 54.0,
        "vireo_host_temperature_critical_celsius": 100.0,
        "vireo_vm_cpu_steal_seconds_total": 0.25,
        "vireo_vm_cpu_seconds_total": 1.5,
        "vireo_vm_memory_size_bytes": 131_072 * 1024,
        "vireo_guest_agent_up": 1,
    }


def test_labels_may_hold_any_text() -> None:
    labels = {
        "host": "h1",
        "site": "lab",
        "vm": VM,
        "os": 'Tiny "1"\nand \\ more',
        "kernel": "6.1",
        "hostname": "web-1",
        "source": "guest-agent",
        "agent_version": "1",
    }
    assert ("vireo_guest_info", tuple(sorted(labels.items()))) in samples(FULL)


def test_names_and_the_control_plane_are_told_too() -> None:
    found = samples(FULL, PLANE)
    host = (("host", "h1"), ("site", "lab"))
    vm = ("name", "web1"), ("project", "shop"), ("site", "lab"), ("state", "running"), ("vm", VM)
    about = (("arch", "x86_64"), ("cpu_model", "Quick"), ("host", "h1"))
    assert [
        found["vireo_host_info", (*about, ("hypervisor", "QEMU"), ("kernel", "6.12"), host[1])],
        found["vireo_vm_info", (host[0], *vm)],
        found["vireo_host_online", host],
        found["vireo_host_reserved_memory_bytes", host],
        found["vireo_host_cpu_mode_ratio", (host[0], ("mode", "user"), host[1])],
        found["vireo_host_pool_free_bytes", (host[0], ("pool", "fast"), host[1])],
        found["vireo_plane_service_ready", (("service", "inventory"),)],
        found["vireo_plane_messages_behind", (("consumer", "inventory"), ("stream", "EVENTS"))],
        found["vireo_plane_dead_letters_total", ()],
        found["vireo_plane_ledger_gap_events", (("state", "open"),)],
        found["vireo_plane_ledger_faults", ()],
    ] == [1, 1, 0, 512 << 20, 0.125, 500, 0, 7, 3, 2, 1]


def test_every_metric_is_listed_with_its_labels() -> None:
    found = samples(FULL, PLANE)
    assert {name for name, _ in found} == set(LABELS)
    assert [
        (name, label) for name, labels in found for label, _ in labels if label not in LABELS[name]
    ] == []


def test_no_series_is_told_twice() -> None:
    lines = [line.rsplit(" ", 1)[0] for line in text(FULL, PLANE).splitlines() if line[0] != "#"]
    assert len(lines) == len(set(lines))


def test_what_is_not_known_is_left_out() -> None:
    host = HostNewest(
        host="h1",
        site="lab",
        at=AT,
        sequence=1,
        interval_s=5.0,
        heard_s=0.0,
        sample=HostSample(),
        vms={VM: VmNewest(sample=VmSample(state="stopped"))},
    )
    names = {name for name, _ in samples(Fleet(hosts={("lab", "h1"): host}))}
    assert names == {
        "vireo_host_info",
        "vireo_host_last_frame_timestamp_seconds",
        "vireo_host_running_vms",
        "vireo_host_tick_seconds",
        "vireo_vm_info",
    }


def test_promtool_finds_nothing_to_complain_of(promtool: str) -> None:
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=text(FULL, PLANE),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
