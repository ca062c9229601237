"""What is newest in Prometheus' text format 0.0.4. Pure.

Names keep Prometheus' conventions: base units (bytes, seconds, ratios), `_total` on counters. What is
not known is left out, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

from msgspec import Struct

from schemas.telemetry import FileSystem, GuestDisk, GuestSample, NetworkInterface
from services.metrics.model import Fleet, HostNewest, VmNewest

KIB = 1024
MIB = 1024 * 1024

T = TypeVar("T")
Kind = Literal["gauge", "counter"]


class Metric(Struct, frozen=True, kw_only=True):
    """One metric: how it is called, what it says, and its value of one thing (None: not known)."""

    name: str
    help: str
    value: Callable[[Any], float | None]
    kind: Kind = "gauge"


def _times(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit


HOST_METRICS: tuple[Metric, ...] = (
    Metric(
        name="vireo_host_last_frame_timestamp_seconds",
        help="When the host made its newest frame.",
        value=lambda host: host.at.timestamp(),
    ),
    Metric(
        name="vireo_host_cpu_busy_ratio",
        help="Share of all CPUs busy.",
        value=lambda host: host.sample.cpu_busy,
    ),
    Metric(
        name="vireo_host_io_wait_ratio",
        help="Share of time in which CPUs waited for disks.",
        value=lambda host: host.sample.io_wait,
    ),
    Metric(
        name="vireo_host_power_watts",
        help="Power that the host draws.",
        value=lambda host: host.sample.power_watts,
    ),
    Metric(
        name="vireo_host_cpu_pressure_ratio",
        help="Share of ten seconds in which some task waited for a CPU.",
        value=lambda host: host.sample.cpu_pressure,
    ),
    Metric(
        name="vireo_host_memory_pressure_ratio",
        help="Share of ten seconds in which some task waited for memory.",
        value=lambda host: host.sample.memory_pressure,
    ),
    Metric(
        name="vireo_host_io_pressure_ratio",
        help="Share of ten seconds in which some task waited for disks.",
        value=lambda host: host.sample.io_pressure,
    ),
    Metric(
        name="vireo_host_load1", help="Load over 1 minute.", value=lambda host: host.sample.load1
    ),
    Metric(
        name="vireo_host_load5", help="Load over 5 minutes.", value=lambda host: host.sample.load5
    ),
    Metric(
        name="vireo_host_load15",
        help="Load over 15 minutes.",
        value=lambda host: host.sample.load15,
    ),
    Metric(
        name="vireo_host_memory_size_bytes",
        help="Memory of the host.",
        value=lambda host: _times(host.sample.memory_total_mib, MIB),
    ),
    Metric(
        name="vireo_host_memory_available_bytes",
        help="Memory that can be had without swapping.",
        value=lambda host: _times(host.sample.memory_available_mib, MIB),
    ),
    Metric(
        name="vireo_host_swap_used_bytes",
        help="Swap in use.",
        value=lambda host: _times(host.sample.swap_used_mib, MIB),
    ),
    Metric(
        name="vireo_host_disk_size_bytes",
        help="Size of the file system that holds the VMs' disks.",
        value=lambda host: host.sample.disk_total_bytes,
    ),
    Metric(
        name="vireo_host_disk_free_bytes",
        help="What is free on it.",
        value=lambda host: host.sample.disk_free_bytes,
    ),
    Metric(
        name="vireo_host_uptime_seconds",
        help="Time since the host booted.",
        value=lambda host: host.sample.uptime_s,
    ),
    Metric(
        name="vireo_host_running_vms",
        help="VMs that run on the host.",
        value=lambda host: host.sample.vms_running,
    ),
)

VM_METRICS: tuple[Metric, ...] = (
    Metric(name="vireo_vm_cpus", help="CPUs of the VM.", value=lambda vm: vm.sample.cpus),
    Metric(
        name="vireo_vm_cpu_seconds_total",
        help="CPU time that the VM took.",
        value=lambda vm: _times(vm.sample.cpu_time_ns, 1e-9),
        kind="counter",
    ),
    Metric(
        name="vireo_vm_memory_size_bytes",
        help="Memory that the VM may have.",
        value=lambda vm: _times(vm.sample.memory_max_kib, KIB),
    ),
    Metric(
        name="vireo_vm_memory_resident_bytes",
        help="Memory of the host that the VM holds.",
        value=lambda vm: _times(vm.sample.memory_rss_kib, KIB),
    ),
    Metric(
        name="vireo_vm_memory_available_bytes",
        help="Memory that the guest sees.",
        value=lambda vm: _times(vm.sample.memory_available_kib, KIB),
    ),
    Metric(
        name="vireo_vm_memory_unused_bytes",
        help="Memory that the guest leaves unused.",
        value=lambda vm: _times(vm.sample.memory_unused_kib, KIB),
    ),
    Metric(
        name="vireo_vm_block_read_bytes_total",
        help="Bytes read from the VM's disks.",
        value=lambda vm: vm.sample.block_read_bytes,
        kind="counter",
    ),
    Metric(
        name="vireo_vm_block_written_bytes_total",
        help="Bytes written to the VM's disks.",
        value=lambda vm: vm.sample.block_write_bytes,
        kind="counter",
    ),
    Metric(
        name="vireo_vm_block_reads_total",
        help="Requests that read from the VM's disks.",
        value=lambda vm: vm.sample.block_read_requests,
        kind="counter",
    ),
    Metric(
        name="vireo_vm_block_writes_total",
        help="Requests that wrote to the VM's disks.",
        value=lambda vm: vm.sample.block_write_requests,
        kind="counter",
    ),
    Metric(
        name="vireo_vm_network_receive_bytes_total",
        help="Bytes that the VM received.",
        value=lambda vm: vm.sample.net_receive_bytes,
        kind="counter",
    ),
    Metric(
        name="vireo_vm_network_transmit_bytes_total",
        help="Bytes that the VM sent.",
        value=lambda vm: vm.sample.net_transmit_bytes,
        kind="counter",
    ),
)

GUEST_METRICS: tuple[Metric, ...] = (
    Metric(
        name="vireo_guest_agent_up",
        help="1 if the guest's agent gave a whole answer last.",
        value=lambda guest: float(not guest.error),
    ),
    Metric(
        name="vireo_guest_cpu_busy_ratio",
        help="Share of the guest's CPUs busy, as it says.",
        value=lambda guest: guest.cpu_busy,
    ),
    Metric(
        name="vireo_guest_load1",
        help="The guest's load over 1 minute.",
        value=lambda guest: guest.load1,
    ),
    Metric(
        name="vireo_guest_load5",
        help="The guest's load over 5 minutes.",
        value=lambda guest: guest.load5,
    ),
    Metric(
        name="vireo_guest_load15",
        help="The guest's load over 15 minutes.",
        value=lambda guest: guest.load15,
    ),
    Metric(
        name="vireo_guest_memory_size_bytes",
        help="Memory that the guest counts.",
        value=lambda guest: _times(guest.memory_total_kib, KIB),
    ),
    Metric(
        name="vireo_guest_memory_available_bytes",
        help="Memory that the guest has available.",
        value=lambda guest: _times(guest.memory_available_kib, KIB),
    ),
    Metric(
        name="vireo_guest_uptime_seconds",
        help="Time since the guest booted.",
        value=lambda guest: guest.uptime_s,
    ),
)

FILE_SYSTEM_METRICS: tuple[Metric, ...] = (
    Metric(
        name="vireo_guest_filesystem_size_bytes",
        help="Size of a file system in the guest.",
        value=lambda system: system.total_bytes,
    ),
    Metric(
        name="vireo_guest_filesystem_used_bytes",
        help="What is used of it.",
        value=lambda system: system.used_bytes,
    ),
)

INTERFACE_METRICS: tuple[Metric, ...] = (
    Metric(
        name="vireo_guest_network_receive_bytes_total",
        help="Bytes that a network interface of the guest received.",
        value=lambda interface: interface.receive_bytes,
        kind="counter",
    ),
    Metric(
        name="vireo_guest_network_transmit_bytes_total",
        help="Bytes that a network interface of the guest sent.",
        value=lambda interface: interface.transmit_bytes,
        kind="counter",
    ),
)

DISK_METRICS: tuple[Metric, ...] = (
    Metric(
        name="vireo_guest_disk_read_bytes_total",
        help="Bytes that the guest read from a disk.",
        value=lambda disk: disk.read_bytes,
        kind="counter",
    ),
    Metric(
        name="vireo_guest_disk_written_bytes_total",
        help="Bytes that the guest wrote to a disk.",
        value=lambda disk: disk.write_bytes,
        kind="counter",
    ),
)


def text(fleet: Fleet) -> str:
    """All metrics, each with its help and type."""
    hosts = [fleet.hosts[key] for key in sorted(fleet.hosts)]
    guests = [*_guests(hosts)]
    sections = (
        _infos(hosts, guests),
        _metrics(HOST_METRICS, [(_of_host(host), host) for host in hosts]),
        _metrics(VM_METRICS, [*_vms(hosts)]),
        _metrics(GUEST_METRICS, guests),
        _metrics(FILE_SYSTEM_METRICS, [*_file_systems(guests)]),
        _metrics(INTERFACE_METRICS, [*_interfaces(guests)]),
        _metrics(DISK_METRICS, [*_disks(guests)]),
        _frames(fleet),
    )
    return "".join(f"{line}\n" for section in sections for line in section)


def _metrics(metrics: Iterable[Metric], things: list[tuple[str, T]]) -> Iterator[str]:
    """`things`: each with its labels. A metric that nothing has a value of is left out."""
    for metric in metrics:
        valued = [(label, metric.value(thing)) for label, thing in things]
        known = [(label, value) for label, value in valued if value is not None]
        if known:
            yield from _head(metric.name, metric.help, metric.kind)
            for label, value in known:
                yield f"{metric.name}{{{label}}} {_number(value)}"


def _infos(hosts: list[HostNewest], guests: list[tuple[str, GuestSample]]) -> Iterator[str]:
    """Metrics whose labels are what they say; always 1."""
    infos: tuple[tuple[str, str, list[str]], ...] = (
        ("vireo_host_info", "A host that is heard.", [_of_host(host) for host in hosts]),
        (
            "vireo_vm_info",
            "A VM that its host tells of, and its state.",
            [f"{label},{_labels(state=vm.sample.state or '')}" for label, vm in _vms(hosts)],
        ),
        (
            "vireo_guest_info",
            "What runs in a VM.",
            [
                f"{label},{_labels(os=guest.os, kernel=guest.kernel, hostname=guest.hostname)}"
                for label, guest in guests
            ],
        ),
    )
    for name, help_text, labels in infos:
        if labels:
            yield from _head(name, help_text, "gauge")
            yield from (f"{name}{{{each}}} 1" for each in labels)


def _frames(fleet: Fleet) -> Iterator[str]:
    name = "vireo_telemetry_frames_total"
    yield from _head(name, "Frames of hosts, by what became of them.", "counter")
    for outcome in sorted(fleet.frames):
        yield f"{name}{{{_labels(outcome=outcome)}}} {fleet.frames[outcome]}"


def _vms(hosts: list[HostNewest]) -> Iterator[tuple[str, VmNewest]]:
    for host in hosts:
        for id in sorted(host.vms):
            yield f"{_labels(vm=id)},{_of_host(host)}", host.vms[id]


def _guests(hosts: list[HostNewest]) -> Iterator[tuple[str, GuestSample]]:
    return ((label, vm.guest) for label, vm in _vms(hosts) if vm.guest is not None)


def _file_systems(guests: list[tuple[str, GuestSample]]) -> Iterator[tuple[str, FileSystem]]:
    for label, guest in guests:
        for one in {each.mountpoint: each for each in guest.file_systems}.values():
            yield f"{label},{_labels(mountpoint=one.mountpoint, fstype=one.type)}", one


def _interfaces(
    guests: list[tuple[str, GuestSample]],
) -> Iterator[tuple[str, NetworkInterface]]:
    for label, guest in guests:
        for one in {each.name: each for each in guest.interfaces}.values():
            yield f"{label},{_labels(interface=one.name)}", one


def _disks(guests: list[tuple[str, GuestSample]]) -> Iterator[tuple[str, GuestDisk]]:
    for label, guest in guests:
        for one in {each.name: each for each in guest.disks}.values():
            yield f"{label},{_labels(device=one.name)}", one


def _of_host(host: HostNewest) -> str:
    return _labels(host=host.host, site=host.site)


def _labels(**labels: str | None) -> str:
    return ",".join(f'{name}="{_escaped(value or "")}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _head(name: str, help_text: str, kind: Kind) -> tuple[str, str]:
    return (f"# HELP {name} {help_text}", f"# TYPE {name} {kind}")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
