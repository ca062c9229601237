"""A history to store: what a fleet says while VMs are made, as the bus carries it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas import events
from schemas.envelope import Envelope
from schemas.ids import derived_id, uuid7
from schemas.resources import (
    DiskSpec,
    GuestFacts,
    NicSpec,
    Placement,
    Scored,
    VmSpec,
)
from schemas.wire import encode, wrap

START = datetime(2026, 1, 1, tzinfo=UTC)
HOSTS = 50
SITE = "main"


def made(vms: int, *, first: int = 0) -> Iterator[tuple[str, Envelope[Any]]]:
    """The events of so many creates, each with its subject; VM numbers count from `first`."""
    for number in range(first, first + vms):
        yield from _created(number)


def _created(number: int) -> Iterator[tuple[str, Envelope[Any]]]:
    at = START + timedelta(milliseconds=100 * number)
    operation = uuid7(int(at.timestamp() * 1000), number.to_bytes(10, "big"))
    vm, host = derived_id(operation, "vm"), f"h{number % HOSTS}"
    trace = f"00-{number:032x}-{number:016x}-01"
    for step, (sender, kind, id, data) in enumerate(_story(operation, vm, host, number)):
        envelope = wrap(
            data,
            id=derived_id(operation, f"event {step}"),
            site=SITE,
            sender=sender,
            at=at + timedelta(milliseconds=7 * step),
            about=f"{kind}/{id}",
            operation=operation,
            cause=operation,
            actor=f"token/team-{number % 7}",
            traceparent=trace,
        )
        name = envelope.type.split(".")[2]
        yield f"vireo.evt.{SITE}.{sender}.{kind}.{id}.{name}", envelope


def _story(
    operation: str, vm: str, host: str, number: int
) -> Iterator[tuple[str, str, str, events.Event]]:
    spec = VmSpec(
        name=f"web-{number}",
        cpus=2,
        memory_mib=2048,
        disks=(DiskSpec(image="debian-12", size_gib=10),),
        nics=(NicSpec(network="default"),),
        labels={"tier": "web", "team": f"team-{number % 7}"},
    )
    placement = Placement(
        host=host,
        policy="spread",
        considered=HOSTS,
        ranking=tuple(
            Scored(host=f"h{rank}", score=1.5 - rank / 10, terms={"memory": 0.75, "cpu": 0.67})
            for rank in range(5)
        ),
        excluded=(),
    )
    request = {"vm": vm, "spec": {"name": spec.name, "cpus": 2, "memory_mib": 2048}}
    yield (
        *("gateway", "operation", operation),
        events.OperationAccepted(command="vm.create", kind="vm", target=vm, request=request),
    )
    yield (
        *("scheduler", "vm", vm),
        events.VmScheduled(vm=vm, host=host, generation=1, spec=spec, placement=placement),
    )
    for step, what in enumerate(("image ready", "disk made"), start=1):
        yield (
            *(host, "operation", operation),
            events.OperationProgressed(step=step, of=4, detail=what),
        )
    yield host, "vm", vm, events.VmDefined(vm=vm, host=host, generation=1)
    yield host, "vm", vm, events.VmStarted(vm=vm, host=host, generation=1)
    yield host, "operation", operation, events.OperationSucceeded(detail="runs")
    guest = GuestFacts(hostname=spec.name, addresses=(f"10.0.{number >> 8 & 255}.{number & 255}",))
    yield host, "vm", vm, events.VmGuestChanged(vm=vm, host=host, guest=guest)


def bytes_of(envelope: Envelope[Any]) -> bytes:
    return encode(envelope)
