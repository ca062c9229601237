"""Which series are kept of hosts and VMs, in which units, and from what of a frame they come. Pure.

A series' place in its table is its place in what is stored: new ones go to the end, none is taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from schemas.telemetry import GuestSample, HostInterface, HostSample

KIB = 1024.0
MIB = 1024.0 * 1024.0

Kind = Literal["vm", "host"]
"""Of what there are series."""

From = Literal["gauge", "counter", "guest", "hottest"]
"""A column as it is; its growth per second, of a host over all its network cards; what the guest says of
itself; the most that sensors of one part show."""


class Series(Struct, frozen=True, kw_only=True):
    """One series. `source` is the column or field; its values times `scale` are in `unit`."""

    name: str
    unit: str
    help: str
    source: str
    origin: From = "gauge"
    scale: float = 1.0


def _gauge(name: str, unit: str, help: str, source: str, scale: float = 1.0) -> Series:
    return Series(name=name, unit=unit, help=help, source=source, scale=scale)


def _rate(name: str, unit: str, help: str, source: str, scale: float = 1.0) -> Series:
    return Series(name=name, unit=unit, help=help, source=source, origin="counter", scale=scale)


def _guest(name: str, unit: str, help: str, source: str, scale: float = 1.0) -> Series:
    return Series(name=name, unit=unit, help=help, source=source, origin="guest", scale=scale)


def _hottest(name: str, help: str, part: str) -> Series:
    return Series(name=name, unit="celsius", help=help, source=part, origin="hottest")


VM_SERIES: tuple[Series, ...] = (
    _rate("cpu_busy", "cpus", "CPUs that the VM keeps busy", "cpu_time_ns", 1e-9),
    _gauge("cpus", "cpus", "CPUs that the VM has", "cpus"),
    _gauge("memory_max", "bytes", "Memory that the VM may have", "memory_max_kib", KIB),
    _gauge("memory_resident", "bytes", "The host's memory that it holds", "memory_rss_kib", KIB),
    _gauge("memory_available", "bytes", "Memory the guest sees", "memory_available_kib", KIB),
    _gauge("memory_unused", "bytes", "What the guest leaves unused", "memory_unused_kib", KIB),
    _rate("block_read", "bytes/s", "Read from the VM's disks", "block_read_bytes"),
    _rate("block_written", "bytes/s", "Written to the VM's disks", "block_write_bytes"),
    _rate("block_reads", "1/s", "Requests that read", "block_read_requests"),
    _rate("block_writes", "1/s", "Requests that write", "block_write_requests"),
    _rate("net_received", "bytes/s", "Received by the VM", "net_receive_bytes"),
    _rate("net_sent", "bytes/s", "Sent by the VM", "net_transmit_bytes"),
    _guest("guest_cpu_busy", "ratio", "Share of the guest's CPUs busy", "cpu_busy"),
    _guest("guest_load1", "load", "The guest's load over a minute", "load1"),
    _guest("guest_memory_total", "bytes", "Memory the guest counts", "memory_total_kib", KIB),
    _guest(
        *("guest_memory_available", "bytes", "Memory that the guest has available"),
        *("memory_available_kib", KIB),
    ),
    _rate("cpu_steal", "cpus", "CPUs of the host that the VM waited for", "cpu_steal_ns", 1e-9),
)

HOST_SERIES: tuple[Series, ...] = (
    _gauge("cpu_busy", "ratio", "Share of all CPUs busy", "cpu_busy"),
    _gauge("io_wait", "ratio", "Share of time in which CPUs waited for disks", "io_wait"),
    _gauge("cpu_user", "ratio", "Share of CPU time of programs", "cpu_modes.user"),
    _gauge("cpu_nice", "ratio", "Share of CPU time of niced programs", "cpu_modes.nice"),
    _gauge("cpu_system", "ratio", "Share of CPU time of the kernel", "cpu_modes.system"),
    _gauge("cpu_irq", "ratio", "Share of CPU time of interrupts", "cpu_modes.irq"),
    _gauge("cpu_softirq", "ratio", "Share of CPU time of soft interrupts", "cpu_modes.softirq"),
    _gauge("cpu_steal", "ratio", "Share of CPU time that was given to others", "cpu_modes.steal"),
    _gauge("cpu_pressure", "ratio", "Share of time that a task waited for CPU", "cpu_pressure"),
    _gauge("memory_pressure", "ratio", "The same for memory", "memory_pressure"),
    _gauge("io_pressure", "ratio", "The same for disks", "io_pressure"),
    _gauge("load1", "load", "Load over 1 minute", "load1"),
    _gauge("load5", "load", "Load over 5 minutes", "load5"),
    _gauge("load15", "load", "Load over 15 minutes", "load15"),
    _gauge("memory_total", "bytes", "Memory of the host", "memory_total_mib", MIB),
    _gauge("memory_available", "bytes", "To be had without swap", "memory_available_mib", MIB),
    _gauge("swap_used", "bytes", "Swap in use", "swap_used_mib", MIB),
    _gauge("disk_total", "bytes", "Size of where the VMs' disks lie", "disk_total_bytes"),
    _gauge("disk_free", "bytes", "What is free of it", "disk_free_bytes"),
    _gauge("power", "watts", "Power that the host draws", "power_watts"),
    _gauge("vms_running", "vms", "VMs that run on the host", "vms_running"),
    _gauge("swap_total", "bytes", "Swap of the host", "swap_total_mib", MIB),
    _hottest("cpu_temperature", "The hottest of its processors", "cpu"),
    _hottest("disk_temperature", "The hottest of its disks", "disk"),
    _rate("net_received", "bytes/s", "Received by its network cards", "receive_bytes"),
    _rate("net_sent", "bytes/s", "Sent by its network cards", "transmit_bytes"),
    _rate("net_packets_received", "1/s", "Packets received", "receive_packets"),
    _rate("net_packets_sent", "1/s", "Packets sent", "transmit_packets"),
    _rate("net_receive_errors", "1/s", "Packets that came in damaged", "receive_errors"),
    _rate("net_send_errors", "1/s", "Packets that could not be sent", "transmit_errors"),
    _rate("net_receive_drops", "1/s", "Packets that came in and were dropped", "receive_drops"),
    _rate("net_send_drops", "1/s", "Packets to be sent that were dropped", "transmit_drops"),
)

SERIES: dict[Kind, tuple[Series, ...]] = {"vm": VM_SERIES, "host": HOST_SERIES}

GAUGES = tuple(each for each in VM_SERIES if each.origin == "gauge")
COUNTERS = tuple(each for each in VM_SERIES if each.origin == "counter")
GUEST = tuple(each for each in VM_SERIES if each.origin == "guest")
HOST_COUNTERS = tuple(each for each in HOST_SERIES if each.origin == "counter")


def places(wanted: Sequence[Series], table: Sequence[Series] = VM_SERIES) -> list[int]:
    """Where series stand in their table."""
    return [table.index(each) for each in wanted]


def host_row(sample: HostSample) -> list[float | None]:
    """A host's values in the order of its series; rates are not known of one sample."""
    return [_scaled(_of_host(sample, each), each.scale) for each in HOST_SERIES]


def card_row(card: HostInterface) -> list[int | None]:
    """What a network card counts, in the order of `HOST_COUNTERS`."""
    return [getattr(card, each.source) for each in HOST_COUNTERS]


def guest_row(sample: GuestSample) -> list[float | None]:
    """What a guest says of itself, in the order of `GUEST`."""
    return [_scaled(getattr(sample, each.source), each.scale) for each in GUEST]


def _of_host(sample: HostSample, series: Series) -> float | None:
    if series.origin == "counter":
        return None
    if series.origin == "hottest":
        shown = [each.celsius for each in sample.temperatures if each.part == series.source]
        return max(shown, default=None)
    outer, _, inner = series.source.partition(".")
    found = getattr(sample, outer)
    value: float | None = getattr(found, inner) if inner and found is not None else found
    return value


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
