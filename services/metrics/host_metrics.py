"""What is told of hosts. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.telemetry import HostInterface, PoolSample, Temperature
from services.metrics.families import MIB, Known, Labels, Metric, Section, always, labelled, times
from services.metrics.model import HostNewest

INFO = (
    Metric(
        name="vireo_host_info",
        help="A host that is heard; what it is, where the inventory knows it.",
        value=always,
    ),
)

OF_HOSTS = (
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
        value=lambda host: times(host.sample.memory_total_mib, MIB),
    ),
    Metric(
        name="vireo_host_memory_available_bytes",
        help="Memory that can be had without swapping.",
        value=lambda host: times(host.sample.memory_available_mib, MIB),
    ),
    Metric(
        name="vireo_host_swap_size_bytes",
        help="Swap of the host.",
        value=lambda host: times(host.sample.swap_total_mib, MIB),
    ),
    Metric(
        name="vireo_host_swap_used_bytes",
        help="Swap in use.",
        value=lambda host: times(host.sample.swap_used_mib, MIB),
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
    Metric(
        name="vireo_host_tick_seconds",
        help="How often the host makes a frame.",
        value=lambda host: host.interval_s,
    ),
)

OF_CPU_MODES = (
    Metric(
        name="vireo_host_cpu_mode_ratio",
        help="Share of all CPUs' time that went to what.",
        value=lambda share: share,
    ),
)

OF_POOLS = (
    Metric(
        name="vireo_host_pool_size_bytes",
        help="Size of the file system of a further storage pool.",
        value=lambda pool: pool.total_bytes,
    ),
    Metric(
        name="vireo_host_pool_free_bytes",
        help="What is free on it.",
        value=lambda pool: pool.free_bytes,
    ),
)

OF_CARDS = (
    Metric(
        name="vireo_host_network_receive_bytes_total",
        help="Bytes that a network card of the host received.",
        value=lambda card: card.receive_bytes,
        kind="counter",
    ),
    Metric(
        name="vireo_host_network_transmit_bytes_total",
        help="Bytes that it sent.",
        value=lambda card: card.transmit_bytes,
        kind="counter",
    ),
    Metric(
        name="vireo_host_network_receive_packets_total",
        help="Packets that it received.",
        value=lambda card: card.receive_packets,
        kind="counter",
    ),
    Metric(
        name="vireo_host_network_transmit_packets_total",
        help="Packets that it sent.",
        value=lambda card: card.transmit_packets,
        kind="counter",
    ),
    Metric(
        name="vireo_host_network_receive_errors_total",
        help="Packets that came in damaged.",
        value=lambda card: card.receive_errors,
        kind="counter",
    ),
    Metric(
        name="vireo_host_network_transmit_errors_total",
        help="Packets that could not be sent.",
        value=lambda card: card.transmit_errors,
        kind="counter",
    ),
    Metric(
        name="vireo_host_network_receive_drops_total",
        help="Packets that came in and were dropped.",
        value=lambda card: card.receive_drops,
        kind="counter",
    ),
    Metric(
        name="vireo_host_network_transmit_drops_total",
        help="Packets to be sent that were dropped.",
        value=lambda card: card.transmit_drops,
        kind="counter",
    ),
)

OF_SENSORS = (
    Metric(
        name="vireo_host_temperature_celsius",
        help="What a sensor of the host shows; part: what it is a sensor of.",
        value=lambda sensor: sensor.celsius,
    ),
    Metric(
        name="vireo_host_temperature_critical_celsius",
        help="Where its chip says that harm is done.",
        value=lambda sensor: sensor.critical_celsius,
    ),
)


def _hosts(known: Known) -> Iterator[tuple[Labels, HostNewest]]:
    return ((of_host(host), host) for host in known.hosts)


def _infos(known: Known) -> Iterator[tuple[Labels, None]]:
    registered = {(host.site, host.name): host.facts for host in known.plane.hosts or ()}
    for host in known.hosts:
        facts = registered.get((host.site, host.host))
        about = labelled(**{name: getattr(facts, name, None) for name in _ABOUT})
        yield of_host(host) + about, None


def _cpu_modes(known: Known) -> Iterator[tuple[Labels, float | None]]:
    for host in known.hosts:
        modes = host.sample.cpu_modes
        for mode in modes.__struct_fields__ if modes is not None else ():
            yield of_host(host) + labelled(mode=mode), getattr(modes, mode)


def _pools(known: Known) -> Iterator[tuple[Labels, PoolSample]]:
    for host in known.hosts:
        for pool in {each.name: each for each in host.sample.pools}.values():
            yield of_host(host) + labelled(pool=pool.name), pool


def _cards(known: Known) -> Iterator[tuple[Labels, HostInterface]]:
    for host in known.hosts:
        for card in {each.name: each for each in host.sample.interfaces}.values():
            yield of_host(host) + labelled(interface=card.name), card


def _sensors(known: Known) -> Iterator[tuple[Labels, Temperature]]:
    for host in known.hosts:
        for labels, sensor in {_of_sensor(each): each for each in host.sample.temperatures}.items():
            yield of_host(host) + labels, sensor


def _of_sensor(sensor: Temperature) -> Labels:
    return labelled(part=sensor.part, chip=sensor.chip, device=sensor.device, sensor=sensor.sensor)


def of_host(host: HostNewest) -> Labels:
    return labelled(host=host.host, site=host.site)


_HOST = ("host", "site")
_ABOUT = (
    *("arch", "cpu_model", "kernel", "hypervisor"),
    *("hypervisor_version", "libvirt_version", "agent_version"),
)

HOST_SECTIONS = (
    Section(metrics=INFO, labels=(*_HOST, *_ABOUT), things=_infos),
    Section(metrics=OF_HOSTS, labels=_HOST, things=_hosts),
    Section(metrics=OF_CPU_MODES, labels=(*_HOST, "mode"), things=_cpu_modes),
    Section(metrics=OF_POOLS, labels=(*_HOST, "pool"), things=_pools),
    Section(metrics=OF_CARDS, labels=(*_HOST, "interface"), things=_cards),
    Section(
        metrics=OF_SENSORS,
        labels=(*_HOST, "part", "chip", "device", "sensor"),
        things=_sensors,
    ),
)
