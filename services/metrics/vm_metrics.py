"""What is told of VMs: from outside by their hosts, from inside by their guests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from schemas.telemetry import FileSystem, GuestDisk, GuestSample, NetworkInterface
from services.metrics.families import KIB, Known, Labels, Metric, Section, always, labelled, times
from services.metrics.host_metrics import of_host
from services.metrics.model import VmNewest

T = TypeVar("T")

INFO = (
    Metric(
        name="vireo_vm_info",
        help="A VM that its host tells of: its state, its name and project.",
        value=always,
    ),
)

OF_VMS = (
    Metric(name="vireo_vm_cpus", help="CPUs of the VM.", value=lambda vm: vm.sample.cpus),
    Metric(
        name="vireo_vm_cpu_seconds_total",
        help="CPU time that the VM took.",
        value=lambda vm: times(vm.sample.cpu_time_ns, 1e-9),
        kind="counter",
    ),
    Metric(
        name="vireo_vm_cpu_steal_seconds_total",
        help="Time that CPUs of the VM were ready to run and waited for one of the host's.",
        value=lambda vm: times(vm.sample.cpu_steal_ns, 1e-9),
        kind="counter",
    ),
    Metric(
        name="vireo_vm_memory_size_bytes",
        help="Memory that the VM may have.",
        value=lambda vm: times(vm.sample.memory_max_kib, KIB),
    ),
    Metric(
        name="vireo_vm_memory_resident_bytes",
        help="Memory of the host that the VM holds.",
        value=lambda vm: times(vm.sample.memory_rss_kib, KIB),
    ),
    Metric(
        name="vireo_vm_memory_available_bytes",
        help="Memory that the guest sees.",
        value=lambda vm: times(vm.sample.memory_available_kib, KIB),
    ),
    Metric(
        name="vireo_vm_memory_unused_bytes",
        help="Memory that the guest leaves unused.",
        value=lambda vm: times(vm.sample.memory_unused_kib, KIB),
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
    Metric(
        name="vireo_vm_busy_cpus",
        help="CPUs that the VM kept busy since the frame before.",
        value=lambda vm: vm.cpu_busy,
    ),
)

GUEST_INFO = (Metric(name="vireo_guest_info", help="What runs in a VM.", value=always),)

OF_GUESTS = (
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
        value=lambda guest: times(guest.memory_total_kib, KIB),
    ),
    Metric(
        name="vireo_guest_memory_available_bytes",
        help="Memory that the guest has available.",
        value=lambda guest: times(guest.memory_available_kib, KIB),
    ),
    Metric(
        name="vireo_guest_uptime_seconds",
        help="Time since the guest booted.",
        value=lambda guest: guest.uptime_s,
    ),
    Metric(
        name="vireo_guest_last_sample_timestamp_seconds",
        help="When the guest said something last.",
        value=lambda guest: guest.at.timestamp(),
    ),
    Metric(
        name="vireo_guest_clock_offset_seconds",
        help="By how much the guest's clock is ahead of its host's.",
        value=lambda guest: guest.clock_offset_s,
    ),
    Metric(
        name="vireo_guest_users",
        help="Who is logged in, each once.",
        value=lambda guest: None if guest.users is None else len(guest.users),
    ),
)

OF_FILE_SYSTEMS = (
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

OF_INTERFACES = (
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

OF_DISKS = (
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


def _vms(known: Known) -> Iterator[tuple[Labels, VmNewest]]:
    for host in known.hosts:
        for id in sorted(host.vms):
            yield labelled(vm=id) + of_host(host), host.vms[id]


def _infos(known: Known) -> Iterator[tuple[Labels, None]]:
    for labels, vm in _vms(known):
        named = known.plane.names.get(labels[0][1])
        about = labelled(
            state=vm.sample.state,
            name=getattr(named, "name", None),
            project=getattr(named, "project", None),
        )
        yield labels + about, None


def _guests(known: Known) -> Iterator[tuple[Labels, GuestSample]]:
    for host in known.hosts:
        told = {id: vm.guest for id, vm in host.vms.items() if vm.guest and _runs(vm)}
        for id in sorted(told):
            yield labelled(vm=id) + of_host(host), told[id]


def _runs(vm: VmNewest) -> bool:
    """What a guest said once is not so any more when it does not run."""
    return vm.sample.state in (None, "running")


def _guest_infos(known: Known) -> Iterator[tuple[Labels, None]]:
    for labels, guest in _guests(known):
        about = labelled(
            os=guest.os,
            kernel=guest.kernel,
            hostname=guest.hostname,
            source=guest.source,
            agent_version=guest.agent_version,
        )
        yield labels + about, None


def _file_systems(known: Known) -> Iterator[tuple[Labels, FileSystem]]:
    for labels, guest in _guests(known):
        for one in _once(guest.file_systems, lambda each: each.mountpoint):
            yield labels + labelled(mountpoint=one.mountpoint, fstype=one.type), one


def _interfaces(known: Known) -> Iterator[tuple[Labels, NetworkInterface]]:
    for labels, guest in _guests(known):
        for one in _once(guest.interfaces, lambda each: each.name):
            yield labels + labelled(interface=one.name), one


def _disks(known: Known) -> Iterator[tuple[Labels, GuestDisk]]:
    for labels, guest in _guests(known):
        for one in _once(guest.disks, lambda each: each.name):
            yield labels + labelled(device=one.name), one


def _once(things: Iterable[T], name: Callable[[T], str]) -> Iterable[T]:
    """A guest may say anything, one thing twice, too; no series may be told twice."""
    return {name(each): each for each in things}.values()


_VM = ("vm", "host", "site")

VM_SECTIONS = (
    Section(metrics=INFO, labels=(*_VM, "state", "name", "project"), things=_infos),
    Section(metrics=OF_VMS, labels=_VM, things=_vms),
    Section(
        metrics=GUEST_INFO,
        labels=(*_VM, "os", "kernel", "hostname", "source", "agent_version"),
        things=_guest_infos,
    ),
    Section(metrics=OF_GUESTS, labels=_VM, things=_guests),
    Section(metrics=OF_FILE_SYSTEMS, labels=(*_VM, "mountpoint", "fstype"), things=_file_systems),
    Section(metrics=OF_INTERFACES, labels=(*_VM, "interface"), things=_interfaces),
    Section(metrics=OF_DISKS, labels=(*_VM, "device"), things=_disks),
)
