"""How VMs look: a list's rows, and the page of one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from schemas.resources import Excluded, Operation, Placement, PlacementRule, Vm
from schemas.telemetry import GuestSample, VmReading
from vireo.cli import words
from vireo.cli.layout import Page, Section, Table


def vm_table(vms: Sequence[Vm], *, wide: bool, now: datetime) -> Table:
    columns: tuple[str, ...] = ("name", "state", "host", "address", "cpus", "memory", "age")
    if wide:
        columns += ("id", "image", "disk", "labels", "os")
    rows = tuple(_row(vm, now) + (_wide(vm) if wide else ()) for vm in vms)
    return Table(columns=columns, rows=rows)


def vm_page(
    vm: Vm, *, reading: VmReading | None, operation: Operation | None, now: datetime
) -> Page:
    sections = [_what(vm, now), _wished(vm)]
    if reading is not None:
        sections += _measured(reading, now)
    if vm.placement is not None:
        sections += placement_sections(vm.placement)
    if operation is not None:
        sections.append(_last_operation(operation, now))
    where = f" on {vm.host}" if vm.host else ""
    return Page(title=f"{vm.spec.name}: {vm.state}{where}", sections=tuple(sections))


def placement_sections(placement: Placement, *, title: str = "Why this host") -> list[Section]:
    """Why this host: the ranking with its terms, and who was out of the question."""
    terms = sorted({name for scored in placement.ranking for name in scored.terms})
    ranking = Table(
        columns=("host", "score", *terms),
        rows=tuple(
            (
                scored.host,
                f"{scored.score:.3f}",
                *(words.number(scored.terms.get(name)) for name in terms),
            )
            for scored in placement.ranking
        ),
    )
    facts = (
        ("chosen", placement.host),
        ("policy", f"{placement.policy} {placement.policy_version or ''}".rstrip()),
        ("considered", words.counted(placement.considered, "host")),
    )
    sections = [Section(title=title, facts=facts, table=ranking)]
    if placement.excluded:
        title = "Why not there"
        sections.append(excluded_section(placement.excluded_by, placement.excluded, title=title))
    return sections


def excluded_section(
    counts: Mapping[PlacementRule, int], excluded: Sequence[Excluded], *, title: str
) -> Section:
    """How many hosts each rule was the first to exclude, and some of them with the numbers."""
    facts = tuple(
        (rule, f"{count} host{'' if count == 1 else 's'}") for rule, count in counts.items()
    )
    rows = tuple((out.host, out.rule, out.detail) for out in excluded)
    table = Table(columns=("host", "rule", "detail"), rows=rows) if rows else None
    return Section(title=title, facts=facts, table=table)


def _row(vm: Vm, now: datetime) -> tuple[str, ...]:
    addresses = vm.guest.addresses if vm.guest else ()
    return (
        vm.spec.name,
        vm.state,
        vm.host or words.NOTHING,
        addresses[0] if addresses else words.NOTHING,
        str(vm.spec.cpus),
        words.of_mib(vm.spec.memory_mib),
        words.age(vm.created_at, now),
    )


def _wide(vm: Vm) -> tuple[str, ...]:
    return (
        vm.id,
        next((disk.image for disk in vm.spec.disks if disk.image), words.NOTHING),
        words.of_mib(sum(disk.size_gib for disk in vm.spec.disks) * 1024 or None),
        words.pairs(vm.spec.labels),
        (vm.guest.os if vm.guest else "") or words.NOTHING,
    )


def _what(vm: Vm, now: datetime) -> Section:
    guest = vm.guest
    facts = [
        ("id", vm.id),
        ("state", vm.state),
        ("desired", vm.power),
        ("host", vm.host or words.NOTHING),
        ("site", vm.site),
        ("addresses", words.listed(guest.addresses if guest else ())),
        ("labels", words.pairs(vm.spec.labels)),
        ("generation", str(vm.generation)),
        ("created", f"{words.when(vm.created_at)} ({words.age(vm.created_at, now)} ago)"),
        ("changed", f"{words.when(vm.updated_at)} ({words.age(vm.updated_at, now)} ago)"),
    ]
    if guest is not None and guest.os:
        facts.insert(6, ("os", guest.os))
    if vm.problem:
        facts.insert(3, ("problem", vm.problem))
    return Section(title="VM", facts=tuple(facts))


def _wished(vm: Vm) -> Section:
    spec = vm.spec
    facts = [("cpus", str(spec.cpus)), ("memory", words.of_mib(spec.memory_mib))]
    for disk in spec.disks:
        size = words.of_mib(disk.size_gib * 1024) if disk.size_gib else "the image's size"
        facts.append((f"disk {disk.name}", f"{size}, {disk.image or 'blank'}"))
    for nic in spec.nics:
        facts.append(("nic", " ".join(filter(None, (nic.network, nic.model, nic.mac)))))
    if spec.on.host or spec.on.labels:
        rules = [f"host {spec.on.host}"] if spec.on.host else []
        rules += [words.pairs(spec.on.labels)] if spec.on.labels else []
        facts.append(("only on", ", ".join(rules)))
    if spec.seeded:
        facts.append(("cloud-init", "given at its creation"))
    facts += [(f"metadata {key}", value) for key, value in sorted(spec.metadata.items())]
    return Section(title="Spec", facts=tuple(facts))


def _measured(reading: VmReading, now: datetime) -> list[Section]:
    facts = (
        ("measured", f"{words.age(reading.at, now)} ago"),
        ("cpu busy", words.part(reading.cpu_busy, reading.cpus)),
        ("cpu steal", words.part(reading.cpu_steal, reading.cpus)),
        ("memory on host", words.of_kib(reading.memory_rss_kib)),
        ("disk read", words.of_bytes(reading.block_read_bytes)),
        ("disk written", words.of_bytes(reading.block_write_bytes)),
        ("net received", words.of_bytes(reading.net_receive_bytes)),
        ("net sent", words.of_bytes(reading.net_transmit_bytes)),
    )
    sections = [Section(title="Seen from the host", facts=facts)]
    if reading.guest is not None:
        sections += _guest(reading.guest, now)
    return sections


_AGENTS = {"guest-agent": "Vireo's", "qga": "QEMU's"}


def _guest(guest: GuestSample, now: datetime) -> list[Section]:
    loads = (guest.load1, guest.load5, guest.load15)
    memory = words.of_kib(guest.memory_total_kib)
    if guest.memory_available_kib is not None:
        memory = f"{words.of_kib(guest.memory_available_kib)} available of {memory}"
    facts = [
        ("reported", f"{words.age(guest.at, now)} ago"),
        ("hostname", guest.hostname or words.NOTHING),
        ("os", guest.os or words.NOTHING),
        ("kernel", guest.kernel or words.NOTHING),
        ("agent", f"{_AGENTS[guest.source]} {guest.agent_version or ''}".rstrip()),
        ("uptime", words.duration(guest.uptime_s)),
        ("load", words.numbers(loads)),
        ("cpus online", str(guest.cpus_online or words.NOTHING)),
        ("cpu busy", words.share(guest.cpu_busy)),
        ("memory", memory),
    ]
    if guest.users is not None:
        facts.append(("logged in", words.listed(guest.users)))
    if guest.clock_offset_s is not None:
        facts.append(("clock", f"{guest.clock_offset_s:+.3f} s against the host's"))
    if guest.error:
        facts.append(("trouble", guest.error))
    return [Section(title="Guest", facts=tuple(facts)), *_guest_tables(guest)]


def _guest_tables(guest: GuestSample) -> list[Section]:
    systems = tuple(
        (fs.mountpoint, fs.type, words.of_bytes(fs.used_bytes), words.of_bytes(fs.total_bytes))
        for fs in guest.file_systems
    )
    disks = tuple(
        (disk.name, words.of_bytes(disk.read_bytes), words.of_bytes(disk.write_bytes))
        for disk in guest.disks
    )
    cards = tuple(
        (
            card.name,
            card.mac or words.NOTHING,
            words.listed(card.addresses),
            words.of_bytes(card.receive_bytes),
            words.of_bytes(card.transmit_bytes),
        )
        for card in guest.interfaces
    )
    tables = (
        ("File systems", ("mounted on", "type", "used", "size"), systems),
        ("Disks", ("disk", "read", "written"), disks),
        ("Network", ("interface", "mac", "addresses", "received", "sent"), cards),
    )
    return [
        Section(title=title, table=Table(columns=columns, rows=rows))
        for title, columns, rows in tables
        if rows
    ]


def _last_operation(operation: Operation, now: datetime) -> Section:
    facts = [
        ("id", operation.id),
        ("command", operation.command),
        ("phase", operation.phase),
        ("by", operation.actor),
        ("changed", f"{words.age(operation.updated_at, now)} ago"),
    ]
    if operation.problem is not None:
        facts.append(("problem", words.problem(operation.problem)))
    return Section(title="Last operation", facts=tuple(facts))
