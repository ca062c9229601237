"""How hosts look: a list's rows, and the page of one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from schemas.ids import Labels
from schemas.resources import Host, HostTuning, NumaNode
from schemas.telemetry import CpuModes, HostReading, HostSample
from vireo.cli import words
from vireo.cli.layout import Page, Section, Table

_UNKNOWN = (words.NOTHING, words.NOTHING)


def host_table(hosts: Sequence[Host], *, wide: bool, now: datetime) -> Table:
    columns: tuple[str, ...] = (
        "name",
        "state",
        "vms",
        "cpus",
        "memory",
        "reserved memory",
        "labels",
    )
    if wide:
        columns += ("site", "hypervisor", "arch", "disk", "reserved cpus", "foreign", "age")
        columns += ("taints", "tuning")
    rows = tuple(_row(host) + (_wide(host, now) if wide else ()) for host in hosts)
    return Table(columns=columns, rows=rows)


def host_page(host: Host, *, reading: HostReading | None, now: datetime) -> Page:
    sections = [_what(host, now), _tuning(host), _capacity(host), _topology(host)]
    if host.facts.devices:
        sections.append(_devices(host))
    sections.append(_versions(host))
    if reading is not None:
        sections += [_measured(reading, now), *_parts(reading.sample)]
    if host.facts.foreign:
        sections.append(_foreign(host))
    return Page(title=f"{host.name}: {_state(host)}", sections=tuple(sections))


def labels_of(host: Host) -> Labels:
    """The agent's own labels under those that operators set."""
    return {**host.facts.labels, **host.config.labels}


def taints_of(host: Host) -> tuple[str, ...]:
    """As `vireo host set --taint` takes them."""
    return tuple(
        f"{one.key}{f'={one.value}' if one.value else ''}:{one.effect}"
        for one in host.config.taints
    )


def tuned(host: Host) -> tuple[tuple[str, str], ...]:
    """What operators have set of its tuning, by the names that `vireo host set --unset` takes."""
    tuning = host.config.tuning
    unset = HostTuning()
    return tuple(
        (name.replace("_", "-"), f"{getattr(tuning, name):g}")
        for name in tuning.__struct_fields__
        if getattr(tuning, name) != getattr(unset, name)
    )


def _state(host: Host) -> str:
    if host.state == "online" and host.config.maintenance:
        return "maintenance"
    return host.state


def _row(host: Host) -> tuple[str, ...]:
    return (
        host.name,
        _state(host),
        str(host.vms),
        str(host.facts.cpus),
        words.of_mib(host.facts.memory_mib),
        words.of_mib(host.reserved_memory_mib),
        words.pairs(labels_of(host)),
    )


def _wide(host: Host, now: datetime) -> tuple[str, ...]:
    return (
        host.site,
        f"{host.facts.hypervisor}/{host.facts.domain_type}",
        host.facts.arch,
        words.of_mib(host.facts.disk_gib * 1024),
        str(host.reserved_cpus),
        str(len(host.facts.foreign)),
        words.age(host.registered_at, now),
        words.listed(taints_of(host)),
        words.pairs(dict(tuned(host))),
    )


def _what(host: Host, now: datetime) -> Section:
    facts = (
        ("site", host.site),
        ("state", host.state),
        ("maintenance", "yes" if host.config.maintenance else "no"),
        ("vms", str(host.vms)),
        ("labels", words.pairs(labels_of(host))),
        ("taints", words.listed(taints_of(host))),
        ("networks", words.listed(host.facts.networks)),
        ("vsock", "yes" if host.facts.vsock else "no"),
        ("images", words.listed(tuple(image.name for image in host.facts.images))),
        ("registered", f"{words.when(host.registered_at)}"),
        ("changed", f"{words.age(host.updated_at, now)} ago"),
    )
    return Section(title="Host", facts=facts)


def _tuning(host: Host) -> Section:
    """Only what differs from what the site's settings say."""
    return Section(title="Tuning", facts=tuned(host) or (("all", "as the site says"),))


def _capacity(host: Host) -> Section:
    facts = host.facts
    free_cpus = facts.cpus - host.reserved_cpus
    free_memory = facts.memory_mib - host.reserved_memory_mib
    free_disk = facts.disk_gib - host.reserved_disk_gib
    rows = (
        ("cpus", str(facts.cpus), str(host.reserved_cpus), str(free_cpus)),
        _memory_row("memory", facts.memory_mib, host.reserved_memory_mib, free_memory),
        _memory_row(
            "disk", *(1024 * g for g in (facts.disk_gib, host.reserved_disk_gib, free_disk))
        ),
        *(
            (f"pool {pool.name}", words.of_mib(pool.size_gib * 1024), *_UNKNOWN)
            for pool in facts.pools
        ),
        *(
            (f"huge pages of {words.of_kib(huge.size_kib)}", str(huge.pages), *_UNKNOWN)
            for huge in facts.huge_pages
        ),
    )
    return Section(
        title="Capacity",
        table=Table(columns=("what", "capacity", "reserved", "free"), rows=rows),
    )


def _memory_row(what: str, *sizes_mib: int) -> tuple[str, ...]:
    return (what, *(words.of_mib(size) for size in sizes_mib))


def _topology(host: Host) -> Section:
    facts = host.facts
    rows = tuple(
        (str(node.id), str(node.cpus), words.of_mib(node.memory_mib), _huge(node))
        for node in facts.numa
    )
    columns = ("numa node", "cpus", "memory", "huge pages")
    table = Table(columns=columns, rows=rows) if rows else None
    named = (("arch", facts.arch), ("cpu", facts.cpu_model or words.NOTHING))
    return Section(title="Topology", facts=named, table=table)


def _huge(node: NumaNode) -> str:
    return words.listed(
        tuple(f"{huge.pages} of {words.of_kib(huge.size_kib)}" for huge in node.huge_pages)
    )


def _devices(host: Host) -> Section:
    rows = tuple((device.name, device.address) for device in host.facts.devices)
    return Section(title="Devices", table=Table(columns=("class", "address"), rows=rows))


def _versions(host: Host) -> Section:
    facts = host.facts
    named = (
        ("hypervisor", " ".join(filter(None, (facts.hypervisor, facts.hypervisor_version)))),
        ("domain type", facts.domain_type),
        ("libvirt", facts.libvirt_version or words.NOTHING),
        ("agent", facts.agent_version or words.NOTHING),
        ("kernel", facts.kernel or words.NOTHING),
    )
    return Section(title="Versions", facts=named)


def _measured(reading: HostReading, now: datetime) -> Section:
    sample = reading.sample
    loads = (sample.load1, sample.load5, sample.load15)
    memory = (sample.memory_available_mib, sample.memory_total_mib)
    swap = " used of ".join(map(words.of_mib, (sample.swap_used_mib, sample.swap_total_mib)))
    disk = (sample.disk_free_bytes, sample.disk_total_bytes)
    facts = (
        ("measured", f"{words.age(reading.at, now)} ago, every {reading.interval_s:g} s"),
        ("cpu busy", words.share(sample.cpu_busy)),
        ("cpu by mode", _modes(sample.cpu_modes)),
        ("waiting for disks", words.share(sample.io_wait)),
        ("pressure", _pressure(sample)),
        ("power", words.NOTHING if sample.power_watts is None else f"{sample.power_watts:.0f} W"),
        ("load", " ".join(words.number(load) for load in loads)),
        ("memory", " available of ".join(words.of_mib(size) for size in memory)),
        ("swap", "none" if sample.swap_total_mib == 0 else swap),
        ("disk", " free of ".join(words.of_bytes(size) for size in disk)),
        *(
            (
                f"pool {pool.name}",
                f"{words.of_bytes(pool.free_bytes)} free of {words.of_bytes(pool.total_bytes)}",
            )
            for pool in sample.pools
        ),
        ("uptime", words.duration(sample.uptime_s)),
        ("vms running", str(sample.vms_running)),
    )
    return Section(title="Telemetry", facts=facts)


def _parts(sample: HostSample) -> list[Section]:
    """What there may be several of; nothing of what the host does not tell."""
    cards = tuple(
        (
            card.name,
            words.of_bytes(card.receive_bytes),
            words.of_bytes(card.transmit_bytes),
            _both(card.receive_errors, card.transmit_errors),
            _both(card.receive_drops, card.transmit_drops),
        )
        for card in sample.interfaces
    )
    sensors = tuple(
        (
            sensor.part,
            f"{sensor.device} {sensor.sensor}",
            words.celsius(sensor.celsius),
            words.celsius(sensor.critical_celsius),
        )
        for sensor in sample.temperatures
    )
    tables = (
        ("Network cards", ("interface", "received", "sent", "errors", "dropped"), cards),
        ("Temperatures", ("of", "sensor", "now", "critical"), sensors),
    )
    return [
        Section(title=title, table=Table(columns=columns, rows=rows))
        for title, columns, rows in tables
        if rows
    ]


def _both(received: int | None, sent: int | None) -> str:
    return words.NOTHING if received is None or sent is None else str(received + sent)


def _modes(modes: CpuModes | None) -> str:
    shares = {} if modes is None else msgspec.to_builtins(modes)
    return words.listed(tuple(f"{mode} {words.share(share)}" for mode, share in shares.items()))


def _pressure(sample: HostSample) -> str:
    """How much of the last ten seconds tasks had to wait."""
    waits = (
        ("cpu", sample.cpu_pressure),
        ("memory", sample.memory_pressure),
        ("disks", sample.io_pressure),
    )
    return words.listed(
        tuple(f"{of} {words.share(share)}" for of, share in waits if share is not None)
    )


def _foreign(host: Host) -> Section:
    rows = tuple(
        (other.name, other.state, str(other.cpus), words.of_mib(other.memory_mib), other.uuid)
        for other in host.facts.foreign
    )
    return Section(
        title="Foreign domains (shown, never touched)",
        table=Table(columns=("name", "state", "cpus", "memory", "uuid"), rows=rows),
    )
