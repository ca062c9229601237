"""Carrying out steps: one match, nothing decided.

Each effect is one call to the hypervisor inside a span that continues the trace of the assignment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from chassis.service import Clock
from chassis.tracing import span
from schemas import events
from schemas.assignments import VmAssignment
from services.hostagent.hypervisor import Hypervisor
from services.hostagent.journal import Journal
from services.hostagent.model import (
    AskToStop,
    CreateDisk,
    Define,
    Destroy,
    Pause,
    RemoveDisks,
    Resume,
    Say,
    Stamp,
    Start,
    Step,
    Undefine,
)
from services.hostagent.outbox import Voice

AwaitStop = Callable[[float], Awaitable[bool]]
"""Waits up to so many seconds for the domain to stop; answers whether it has."""

ENDS = (events.OperationSucceeded, events.OperationFailed)


class Means(Struct, frozen=True, kw_only=True):
    """What steps are carried out with."""

    hypervisor: Hypervisor
    journal: Journal
    voice: Voice
    clock: Clock
    slots: asyncio.Semaphore
    """How many effects may be in flight on this host."""
    ask_again_s: float


async def execute(
    step: Step, assignment: VmAssignment, means: Means, await_stop: AwaitStop
) -> None:
    """Do one step."""
    if isinstance(step, Say):
        await _say(step, assignment, means)
        return
    with span(
        f"hypervisor.{_words(step)}",
        traceparent=assignment.traceparent,
        attributes={"vireo.vm": assignment.vm, "vireo.generation": assignment.generation},
    ):
        if isinstance(step, AskToStop):
            await _ask_to_stop(step, means, await_stop)
        else:
            async with means.slots:
                await _effect(step, means.hypervisor)


async def _effect(step: Step, hypervisor: Hypervisor) -> None:
    match step:
        case CreateDisk(vm, disk):
            await hypervisor.create_disk(vm, disk)
        case Define(assignment):
            await hypervisor.define(assignment)
        case Stamp(assignment):
            await hypervisor.stamp(assignment)
        case Start(vm):
            await hypervisor.start(vm)
        case Pause(vm):
            await hypervisor.pause(vm)
        case Resume(vm):
            await hypervisor.resume(vm)
        case Destroy(vm):
            await hypervisor.destroy(vm)
        case Undefine(vm):
            await hypervisor.undefine(vm)
        case RemoveDisks(vm):
            await hypervisor.remove_disks(vm)
        case AskToStop() | Say():
            raise TypeError(f"no effect: {step}")


async def _say(step: Say, assignment: VmAssignment, means: Means) -> None:
    messages = [means.voice.of_vm(one, assignment) for one in step.utterances]
    if step.again:
        means.journal.hand_in(step.record, messages)
        return
    ends = frozenset(
        message.message_id or ""
        for message, one in zip(messages, step.utterances, strict=True)
        if isinstance(one.data, ENDS)
    )
    await means.journal.say(step.record, messages, generation=assignment.generation, ends=ends)


async def _ask_to_stop(step: AskToStop, means: Means, await_stop: AwaitStop) -> None:
    """Ask until the guest has stopped or its grace is over. A guest that is still booting does not
    hear the first time, so it is asked again."""
    deadline = means.clock.monotonic() + step.grace_s
    while (left := deadline - means.clock.monotonic()) > 0:
        async with means.slots:
            await means.hypervisor.ask_to_stop(step.vm)
        if await await_stop(min(left, means.ask_again_s)):
            return


def _words(step: Step) -> str:
    """`CreateDisk` → `create_disk`."""
    name = type(step).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
