"""What is told of the control plane itself: who should be heard, what waits, how the record is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.resources import Host
from services.metrics.families import Known, Labels, Metric, Section, labelled
from services.metrics.plane import Plane

OF_REGISTERED = (
    Metric(
        name="vireo_host_online",
        help="1 while a registered host lives, 0 once it has fallen silent.",
        value=lambda host: float(host.state == "online"),
    ),
    Metric(
        name="vireo_host_maintenance",
        help="1 while new VMs stay away from the host.",
        value=lambda host: float(host.config.maintenance),
    ),
    Metric(
        name="vireo_host_cpus",
        help="CPUs of the host.",
        value=lambda host: host.facts.cpus,
    ),
    Metric(
        name="vireo_host_reserved_cpus",
        help="CPUs that its VMs were promised, running or not.",
        value=lambda host: host.reserved_cpus,
    ),
    Metric(
        name="vireo_host_reserved_memory_bytes",
        help="Memory that its VMs were promised.",
        value=lambda host: host.reserved_memory_mib * (1 << 20),
    ),
    Metric(
        name="vireo_host_assigned_vms",
        help="VMs that are assigned to the host.",
        value=lambda host: host.vms,
    ),
)


def _value(value: Any) -> float | None:
    """Where the thing is the number."""
    return None if value is None else float(value)


OF_FRAMES = (
    Metric(
        name="vireo_telemetry_frames_total",
        help="Frames of hosts, by what became of them.",
        value=_value,
        kind="counter",
    ),
)

OF_SERVICES = (
    Metric(
        name="vireo_plane_service_ready",
        help="1 if the service answers that it can do its work.",
        value=_value,
    ),
)

OF_BACKLOGS = (
    Metric(
        name="vireo_plane_messages_behind",
        help="Messages of a stream that a durable consumer has still before it.",
        value=_value,
    ),
)

OF_GAPS = (
    Metric(
        name="vireo_plane_ledger_gap_events",
        help="Events that the record passed by, by what became of them.",
        value=_value,
    ),
)

OF_PLANE = (
    Metric(
        name="vireo_plane_dead_letters_total",
        help="Messages that could not be handled.",
        value=lambda plane: plane.dead_letters,
        kind="counter",
    ),
    Metric(
        name="vireo_plane_ledger_rows",
        help="Events in the record.",
        value=lambda plane: plane.ledger and plane.ledger.rows,
    ),
    Metric(
        name="vireo_plane_ledger_alarms",
        help="What the inventory says somebody should look at in the record.",
        value=lambda plane: plane.ledger and plane.ledger.alarms,
    ),
    Metric(
        name="vireo_plane_ledger_checked_rows",
        help="Rows of the record that the walk over its chain has come by.",
        value=lambda plane: plane.ledger and plane.walk.through,
    ),
    Metric(
        name="vireo_plane_ledger_faults",
        help="Faults in the record's chain, found by this walk or by the one before.",
        value=lambda plane: plane.ledger and plane.walk.broken,
    ),
)


def _registered(known: Known) -> Iterator[tuple[Labels, Host]]:
    for host in known.plane.hosts or ():
        yield labelled(host=host.name, site=host.site), host


def _frames(known: Known) -> Iterator[tuple[Labels, int]]:
    for outcome, count in sorted(known.fleet.frames.items()):
        yield labelled(outcome=outcome), count


def _services(known: Known) -> Iterator[tuple[Labels, bool]]:
    for service, ready in sorted(known.plane.ready.items()):
        yield labelled(service=service), ready


def _backlogs(known: Known) -> Iterator[tuple[Labels, int]]:
    for (stream, consumer), messages in sorted(known.plane.behind.items()):
        yield labelled(stream=stream, consumer=consumer), messages


def _gaps(known: Known) -> Iterator[tuple[Labels, int]]:
    ledger = known.plane.ledger
    for state, events in ledger.gaps.items() if ledger is not None else ():
        yield labelled(state=state), events


def _plane(known: Known) -> Iterator[tuple[Labels, Plane]]:
    yield (), known.plane


PLANE_SECTIONS = (
    Section(metrics=OF_REGISTERED, labels=("host", "site"), things=_registered),
    Section(metrics=OF_FRAMES, labels=("outcome",), things=_frames),
    Section(metrics=OF_SERVICES, labels=("service",), things=_services),
    Section(metrics=OF_BACKLOGS, labels=("stream", "consumer"), things=_backlogs),
    Section(metrics=OF_GAPS, labels=("state",), things=_gaps),
    Section(metrics=OF_PLANE, labels=(), things=_plane),
)
