"""Telemetry: samples. The newest wins, loss is fine, nothing is stored on the bus.

One `HostFrame` per host and tick goes to `vireo.tel.<site>.<host>`. The VMs' samples are columns: the
i-th element of each belongs to `vms.ids[i]`. What a host or guest does not offer is None, never zero.
Counters grow since the start of the guest or host; whoever wants rates subtracts two frames.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import HostName, Name, SiteName, VmId

MAX_VMS_PER_FRAME = 4096


class CpuModes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What CPUs were busy with since the frame before, as shares of all their time, 0 to 1."""

    user: float | None = None
    nice: float | None = None
    system: float | None = None
    irq: float | None = None
    softirq: float | None = None
    steal: float | None = None
    """Waited for a CPU that a hypervisor below gave to others."""


class PoolSample(Struct, frozen=True, kw_only=True):
    """The file system of a storage pool."""

    name: Name
    total_bytes: int
    free_bytes: int


Label = Annotated[str, Meta(min_length=1, max_length=64)]


class HostInterface(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network card of the host, as its kernel counts since it is there."""

    name: Label
    receive_bytes: int | None = None
    receive_packets: int | None = None
    receive_errors: int | None = None
    receive_drops: int | None = None
    transmit_bytes: int | None = None
    transmit_packets: int | None = None
    transmit_errors: int | None = None
    transmit_drops: int | None = None


class Temperature(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one sensor of the host shows."""

    part: Literal["cpu", "disk", "other"]
    """What it is a sensor of."""
    chip: Label
    """The kind of chip, as its driver calls it: `coretemp`, `nvme`."""
    device: Label
    """Which one of that kind: `coretemp.0`, `nvme1`."""
    sensor: Label
    celsius: float
    critical_celsius: float | None = None
    """Where the chip says that its part takes harm."""


class HostSample(Struct, frozen=True, kw_only=True, omit_defaults=True):
    cpu_busy: float | None = None
    """Share of all CPUs busy since the frame before, 0 to 1."""
    io_wait: float | None = None
    """Share of the time since the frame before in which CPUs waited for disks, 0 to 1."""
    power_watts: float | None = None
    """On average since the frame before: of the whole machine where a meter measures it, else of its
    processors and memory."""
    cpu_modes: CpuModes | None = None
    cpu_pressure: float | None = None
    """Share of the last ten seconds in which some task waited for a CPU, 0 to 1 (the kernel's pressure
    stall information)."""
    memory_pressure: float | None = None
    """The same for memory."""
    io_pressure: float | None = None
    """The same for disks."""
    load1: float | None = None
    load5: float | None = None
    load15: float | None = None
    memory_total_mib: int | None = None
    memory_available_mib: int | None = None
    swap_total_mib: int | None = None
    swap_used_mib: int | None = None
    disk_total_bytes: int | None = None
    """Of the file system that holds the VMs' disks."""
    disk_free_bytes: int | None = None
    pools: Annotated[tuple[PoolSample, ...], Meta(max_length=64)] = ()
    """The host's other storage pools, where they are there."""
    interfaces: Annotated[tuple[HostInterface, ...], Meta(max_length=64)] = ()
    """Its network cards. What bridges, bonds, VLANs and guests' taps carry to the outside is counted by
    these, and nowhere else."""
    temperatures: Annotated[tuple[Temperature, ...], Meta(max_length=64)] = ()
    uptime_s: float | None = None
    vms_running: int = 0


Ints = tuple[int | None, ...]
Floats = tuple[float | None, ...]


class VmColumns(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From outside, by libvirt's bulk stats; all columns have the length of `ids` or are empty."""

    ids: Annotated[tuple[VmId, ...], Meta(max_length=MAX_VMS_PER_FRAME)] = ()
    state: tuple[str, ...] = ()
    """`running`, `paused`, `stopped`, `crashed`"""
    cpus: Ints = ()
    cpu_time_ns: Ints = ()
    cpu_steal_ns: Ints = ()
    """Its CPUs were ready to run and waited for one of the host's: what the guest sees as steal."""
    memory_max_kib: Ints = ()
    memory_rss_kib: Ints = ()
    memory_available_kib: Ints = ()
    memory_unused_kib: Ints = ()
    block_read_bytes: Ints = ()
    block_write_bytes: Ints = ()
    block_read_requests: Ints = ()
    block_write_requests: Ints = ()
    net_receive_bytes: Ints = ()
    net_transmit_bytes: Ints = ()


class FileSystem(Struct, frozen=True, kw_only=True):
    mountpoint: str
    type: str
    total_bytes: int | None = None
    used_bytes: int | None = None


class NetworkInterface(Struct, frozen=True, kw_only=True):
    name: str
    mac: str = ""
    addresses: tuple[str, ...] = ()
    receive_bytes: int | None = None
    transmit_bytes: int | None = None


class GuestDisk(Struct, frozen=True, kw_only=True):
    name: str
    read_bytes: int | None = None
    write_bytes: int | None = None


class GuestSample(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From inside: by the guest agent where it speaks, else by QEMU's. Never by both at a time."""

    vm: VmId
    at: datetime
    source: Literal["qga", "guest-agent"] = "qga"
    """Who said it: QEMU's agent was asked, or Vireo's guest agent spoke."""
    os: str | None = None
    kernel: str | None = None
    hostname: str | None = None
    agent_version: str | None = None
    load1: float | None = None
    load5: float | None = None
    load15: float | None = None
    cpus_online: int | None = None
    cpu_busy: float | None = None
    memory_total_kib: int | None = None
    memory_available_kib: int | None = None
    uptime_s: float | None = None
    clock_offset_s: float | None = None
    """By how much the guest's clock is ahead of its host's."""
    users: tuple[str, ...] | None = None
    """Who is logged in, each once."""
    file_systems: tuple[FileSystem, ...] = ()
    interfaces: tuple[NetworkInterface, ...] = ()
    disks: tuple[GuestDisk, ...] = ()
    error: str = ""
    """Why the guest's agent gave no or only part of an answer."""


class HostFrame(Struct, frozen=True, kw_only=True, omit_defaults=True):
    host: HostName
    site: SiteName
    at: datetime
    sequence: int
    """Counts frames since the agent started."""
    interval_s: float
    sample: HostSample
    vms: VmColumns = VmColumns()
    guests: tuple[GuestSample, ...] = ()
    """Only those that were asked since the frame before."""


class VmReading(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The newest known of one VM, as the metrics service answers it."""

    vm: VmId
    host: HostName
    at: datetime
    state: str = ""
    cpu_busy: float | None = None
    """In CPUs: 1.5 is one and a half CPUs busy."""
    cpu_steal: float | None = None
    """In CPUs: so many more it would have kept busy, had the host had them."""
    cpus: int | None = None
    memory_max_kib: int | None = None
    memory_rss_kib: int | None = None
    memory_available_kib: int | None = None
    block_read_bytes: int | None = None
    block_write_bytes: int | None = None
    net_receive_bytes: int | None = None
    net_transmit_bytes: int | None = None
    guest: GuestSample | None = None


class HostReading(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The newest known of one host, as the metrics service answers it."""

    host: HostName
    site: SiteName
    at: datetime
    interval_s: float
    sample: HostSample
    vms: int = 0
