"""Carrying out steps: one match, nothing decided.

Moves that follow each other go to the hypervisor together, with what is said between them: one trip for
all. Every effect has a span that continues the trace of the assignment.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from msgspec import Struct

from chassis.service import Clock
from chassis.tracing import sends, span
from schemas import events
from schemas.assignments import VmAssignment
from services.hostagent.hypervisor import Hypervisor
from services.hostagent.journal import Journal
from services.hostagent.model import (
    AskToStop,
    CreateDisk,
    Move,
    Record,
    RemoveDisks,
    Say,
    Step,
    WriteSeed,
)
from services.hostagent.outbox import Voice

AwaitStop = Callable[[float], Awaitable[bool]]
"""Waits up to so many seconds for the domain to stop; answers whether it has."""

Slow = CreateDisk | WriteSeed | RemoveDisks | AskToStop
"""Steps that take their time."""

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


class Run:
    """Moves on one VM, and what is to be said after each of them.

    Moves may be made in a thread, and go on there after nobody waits for them any more: from `close` on,
    none is begun and nothing is said.
    """

    def __init__(
        self,
        steps: Sequence[Move | Say],
        assignment: VmAssignment,
        means: Means,
        wanted: Callable[[], bool],
    ) -> None:
        self.record: Record | None = None
        """After what was said last."""
        self.left = sum(isinstance(step, Move) for step in steps)
        """Moves that were not made."""
        self._steps = steps
        self._assignment = assignment
        self._means = means
        self._wanted = wanted
        self._open = threading.Lock()
        self._closed = False
        self._after = {
            id(step): _sayings(steps[number:], start=1)
            for number, step in enumerate(steps)
            if isinstance(step, Move)
        }

    async def make(self) -> None:
        moves = [step for step in self._steps if isinstance(step, Move)]
        try:
            async with self._means.slots:
                await self._means.hypervisor.move(moves, self.around)
        finally:
            self.close()

    def close(self) -> None:
        with self._open:
            self._closed = True

    @contextmanager
    def around(self, move: Move) -> Iterator[bool]:
        if self._closed or not self._wanted():
            yield False
            return
        with _spanned(move, self._assignment):
            yield True
        with self._open:
            if self._closed:
                return
            self.left -= 1
            for saying in self._after[id(move)]:
                hand_in(saying, self._assignment, self._means)
                self.record = saying.record


def runs(steps: Sequence[Step]) -> Iterator[Slow | Say | list[Move | Say]]:
    """The steps in order; moves together with those that follow and what is said between them."""
    run: list[Move | Say] = []
    for step in steps:
        if isinstance(step, Move) or (run and isinstance(step, Say) and step.again):
            run.append(step)
            continue
        if run:
            yield run
            run = []
        yield step
    if run:
        yield run


async def execute(
    step: Slow,
    assignment: VmAssignment,
    means: Means,
    await_stop: AwaitStop,
) -> None:
    """Do one step that takes its time."""
    with _spanned(step, assignment):
        match step:
            case AskToStop():
                await _ask_to_stop(step, means, await_stop)
            case CreateDisk(vm, disk):
                async with means.slots:
                    await means.hypervisor.create_disk(vm, disk)
            case WriteSeed(wish):
                async with means.slots:
                    await means.hypervisor.write_seed(wish)
            case RemoveDisks(vm):
                async with means.slots:
                    await means.hypervisor.remove_disks(vm)


def hand_in(step: Say, assignment: VmAssignment, means: Means) -> None:
    """Say what would be said again after a crash: nothing waits for it."""
    means.journal.hand_in([means.voice.of_vm(one, assignment) for one in step.utterances])


async def say(step: Say, assignment: VmAssignment, means: Means) -> None:
    """Say something and wait until it is on disk."""
    messages = [means.voice.of_vm(one, assignment) for one in step.utterances]
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


def _sayings(steps: Sequence[Move | Say], *, start: int) -> list[Say]:
    """What is said before the next move."""
    found: list[Say] = []
    for step in steps[start:]:
        if not isinstance(step, Say):
            break
        found.append(step)
    return found


def _spanned(step: Step, assignment: VmAssignment) -> AbstractContextManager[object]:
    if not sends():
        return nullcontext()
    return span(
        f"hypervisor.{_words(step)}",
        traceparent=assignment.traceparent,
        attributes={"vireo.vm": assignment.vm, "vireo.generation": assignment.generation},
    )


def _words(step: Step) -> str:
    """`CreateDisk` → `create_disk`."""
    name = type(step).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
