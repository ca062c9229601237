"""What belongs into FLEET, by the events: every VM's newest assignment, word for word. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from schemas import events
from schemas.assignments import VmAssignment
from schemas.envelope import Envelope
from schemas.resources import HostConfig, HostFacts
from schemas.restores import MOST_RESTORED, RestoreFleet
from schemas.wire import encode

PART_BYTES = 512 * 1024
"""Of the bodies of one command; the stream takes no message larger than 1 MiB."""


class Lost(Struct, frozen=True, kw_only=True):
    """All that is to be in FLEET, of one site."""

    assignments: tuple[VmAssignment, ...] = ()
    configs: tuple[HostConfig, ...] = ()
    hosts: tuple[HostFacts, ...] = ()


def assignments_of(told: Iterable[Envelope[Any]]) -> list[VmAssignment]:
    """The assignments that `vm.scheduled` and `vm.reassigned` tell of, the newest of each VM. One whose
    spec nobody told is left out."""
    scheduled: dict[str, VmAssignment] = {}
    newest: dict[str, Envelope[events.VmReassigned]] = {}
    for envelope in told:
        data = envelope.data
        if isinstance(data, events.VmScheduled):
            known = scheduled.get(data.vm)
            if known is None or known.generation <= data.generation:
                scheduled[data.vm] = _scheduled(envelope)
        elif isinstance(data, events.VmReassigned):
            before = newest.get(data.vm)
            if before is None or before.data.generation <= data.generation:
                newest[data.vm] = envelope
    return [
        _reassigned(first, newest[vm]) if vm in newest else first
        for vm, first in sorted(scheduled.items())
    ]


def _scheduled(envelope: Envelope[events.VmScheduled]) -> VmAssignment:
    data = envelope.data
    return VmAssignment(
        vm=data.vm,
        host=data.host,
        generation=data.generation,
        spec=data.spec,
        power=data.spec.power,
        operation=envelope.operation or "",
        actor=envelope.actor or "",
        placement=data.placement,
        traceparent=envelope.traceparent,
    )


def _reassigned(first: VmAssignment, envelope: Envelope[events.VmReassigned]) -> VmAssignment:
    data = envelope.data
    if data.generation < first.generation:
        return first
    return replace(
        first,
        host=data.host,
        generation=data.generation,
        power=data.power,
        operation=envelope.operation or "",
        supersedes=data.supersedes,
        actor=envelope.actor or "",
        stop_mode=data.stop_mode,
        grace_s=data.grace_s,
        ended=data.ended,
        traceparent=envelope.traceparent,
    )


def parts(lost: Lost, *, part_bytes: int = PART_BYTES) -> list[RestoreFleet]:
    """As commands, none too large; the hosts' facts come last. At least one."""
    groups: list[dict[str, Sequence[Any]]] = [
        {field: group}
        for field in ("assignments", "configs", "hosts")
        for group in _cut(getattr(lost, field), part_bytes)
    ]
    made = groups or [{}]
    return [
        RestoreFleet(part=number, of=len(made), **group)  # type: ignore[arg-type]
        for number, group in enumerate(made, start=1)
    ]


def _cut(values: Sequence[Struct], part_bytes: int) -> Iterator[tuple[Struct, ...]]:
    group: list[Struct] = []
    size = 0
    for value in values:
        length = len(encode(value))
        if group and (size + length > part_bytes or len(group) == MOST_RESTORED):
            yield tuple(group)
            group, size = [], 0
        group.append(value)
        size += length
    if group:
        yield tuple(group)
