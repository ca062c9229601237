"""What a decision says on the bus: writes to FLEET, events and actions as messages.

Pure. Every id is derived from the command's, so that saying it twice is saying it once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from chassis.bus import Expect, Outgoing
from chassis.kv import purge, put, subject_of
from schemas import subjects
from schemas.actions import RebootVmOnce
from schemas.assignments import VmAssignment
from schemas.envelope import Envelope
from schemas.events import (
    HostConfigured,
    HostReturned,
    HostSilent,
    OperationFailed,
    OperationSucceeded,
    VmReassigned,
    VmScheduled,
)
from schemas.ids import derived_id
from schemas.resources import HostConfig, HostFacts
from schemas.wire import encode, wrap
from services.scheduler.model import Acted, Refused

SENDER = "scheduler"
MARKER_TTL_S = 86_400
"""How long the mark of a forgotten VM stays; for ever, and FLEET would grow with every VM that was."""


class Voice(Struct, frozen=True, kw_only=True):
    """For which site the scheduler speaks, and when."""

    site: str
    at: datetime


class Origin(Struct, frozen=True, kw_only=True):
    """Where a message comes from: the operation and its cause, who asked, in which trace."""

    operation: str
    cause: str
    actor: str | None = None
    traceparent: str | None = None


def origin_of(command: Envelope[Any]) -> Origin:
    return Origin(
        operation=command.id,
        cause=command.id,
        actor=command.actor,
        traceparent=command.traceparent,
    )


# writes


def first_write(assignment: VmAssignment, *, term: Expect) -> Outgoing:
    """Holds only while the term stands in which it was decided (`term.py`): then the table knew every
    VM that was ever placed. The id makes a second placement of the VM a duplicate besides."""
    return put(
        subjects.KV_FLEET,
        subjects.vm_key(vm=assignment.vm, host=assignment.host),
        encode(assignment),
        expect=term,
        message_id=f"first.{assignment.vm}",
    )


def next_write(assignment: VmAssignment, *, revision: int) -> Outgoing:
    """Holds only if the generation that was decided on is still the last."""
    key = subjects.vm_key(vm=assignment.vm, host=assignment.host)
    return _swap(key, encode(assignment), revision=revision)


def config_write(config: HostConfig, *, revision: int) -> Outgoing:
    return _swap(subjects.host_config_key(config.host), encode(config), revision=revision)


def facts_write(facts: HostFacts, *, revision: int) -> Outgoing:
    return _swap(subjects.host_facts_key(facts.host), encode(facts), revision=revision)


def forget_write(assignment: VmAssignment, *, revision: int) -> Outgoing:
    key = subjects.vm_key(vm=assignment.vm, host=assignment.host)
    expect = Expect(sequence=revision, over=subject_of(subjects.KV_FLEET, key))
    return replace(purge(subjects.KV_FLEET, key, expect=expect), ttl_s=MARKER_TTL_S)


def _swap(key: str, value: bytes, *, revision: int) -> Outgoing:
    expect = Expect(sequence=revision, over=subject_of(subjects.KV_FLEET, key))
    return put(subjects.KV_FLEET, key, value, expect=expect)


# events


def said_of(assignment: VmAssignment, voice: Voice) -> Outgoing:
    """The event that tells of an assignment: it follows from the assignment alone."""
    origin = Origin(
        operation=assignment.operation,
        cause=assignment.operation,
        actor=assignment.actor or None,
        traceparent=assignment.traceparent,
    )
    said = _scheduled(assignment) if assignment.generation == 1 else _reassigned(assignment)
    return _event(said, voice, origin, kind="vm", id=assignment.vm)


def _scheduled(assignment: VmAssignment) -> VmScheduled:
    return VmScheduled(
        vm=assignment.vm,
        host=assignment.host,
        generation=assignment.generation,
        spec=assignment.spec,
        placement=assignment.placement,
    )


def _reassigned(assignment: VmAssignment) -> VmReassigned:
    return VmReassigned(
        vm=assignment.vm,
        host=assignment.host,
        generation=assignment.generation,
        power=assignment.power,
        ended=assignment.ended,
        stop_mode=assignment.stop_mode,
        grace_s=assignment.grace_s,
        supersedes=assignment.supersedes,
    )


def failed(refused: Refused, voice: Voice, origin: Origin) -> Outgoing:
    said = OperationFailed(problem=refused.problem)
    return _event(said, voice, origin, kind="operation", id=origin.operation)


def succeeded(detail: str, voice: Voice, origin: Origin) -> Outgoing:
    said = OperationSucceeded(detail=detail)
    return _event(said, voice, origin, kind="operation", id=origin.operation)


def configured(config: HostConfig, voice: Voice, origin: Origin) -> tuple[Outgoing, Outgoing]:
    changed = HostConfigured(config=config)
    ended = OperationSucceeded(detail=f"host {config.host} is configured")
    return (
        _event(changed, voice, origin, kind="host", id=config.host),
        _event(ended, voice, origin, kind="operation", id=origin.operation),
    )


def silent(said: HostSilent | HostReturned, voice: Voice, *, id: str) -> Outgoing:
    """Brought about by no message: `id` is new."""
    return Outgoing(
        subject=subjects.event(type(said), site=voice.site, source=SENDER, id=said.host),
        data=encode(
            wrap(
                said, id=id, site=voice.site, sender=SENDER, at=voice.at, about=f"host/{said.host}"
            )
        ),
        message_id=id,
    )


def _event(
    said: VmScheduled | VmReassigned | OperationFailed | OperationSucceeded | HostConfigured,
    voice: Voice,
    origin: Origin,
    *,
    kind: str,
    id: str,
) -> Outgoing:
    name = subjects.BY_MESSAGE[type(said)].name
    message_id = derived_id(origin.operation, name)
    envelope = wrap(
        said,
        id=message_id,
        site=voice.site,
        sender=SENDER,
        at=voice.at,
        about=f"{kind}/{id}",
        operation=origin.operation,
        cause=origin.cause,
        actor=origin.actor,
        traceparent=origin.traceparent,
    )
    subject = subjects.event(type(said), site=voice.site, source=SENDER, id=id)
    return Outgoing(subject=subject, data=encode(envelope), message_id=message_id)


# actions


def reboot(
    acted: Acted, voice: Voice, origin: Origin, *, deadline: datetime, keep_s: float
) -> Outgoing:
    """Kept `keep_s` longer than its deadline: the host that comes too late must still end the operation."""
    wish = RebootVmOnce(vm=acted.vm, mode=acted.mode, deadline=deadline)
    message_id = derived_id(origin.operation, subjects.BY_MESSAGE[RebootVmOnce].name)
    envelope = wrap(
        wish,
        id=message_id,
        site=voice.site,
        sender=SENDER,
        at=voice.at,
        about=f"vm/{acted.vm}",
        operation=origin.operation,
        cause=origin.cause,
        actor=origin.actor,
        traceparent=origin.traceparent,
    )
    left = deadline + timedelta(seconds=keep_s) - voice.at
    return Outgoing(
        subject=subjects.action(RebootVmOnce, site=voice.site, host=acted.host),
        data=encode(envelope),
        message_id=message_id,
        ttl_s=max(1, int(left.total_seconds())),
    )
