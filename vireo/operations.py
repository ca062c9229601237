"""Operations: looking at them, waiting for them, following their steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Set
from datetime import datetime
from typing import Any, TypeVar

from schemas.causes import EffectTree
from schemas.resources import (
    ENDED,
    Operation,
    OperationMember,
    OperationPhase,
    OperationStep,
)
from vireo.errors import NotFound, OperationFailed, TimedOut, Unavailable
from vireo.pages import PageOf, walk
from vireo.paths import checked_ref, query_of, time_text
from vireo.transport import Query, Transport

T = TypeVar("T")

Wait = bool | float
"""Whether a call waits for its operation: no, to its end, or at most so many seconds."""


class PendingOperation:
    """An operation on its way. `await` it for its end, or use `wait` and `steps`.

    Raises OperationFailed if it ends without success, TimedOut if the time given is over first.
    """

    def __init__(self, operations: Operations, operation: Operation) -> None:
        self._operations = operations
        self.latest = operation
        """What is known so far; an answer to `wait` or `steps` renews it."""
        self.members = tuple(
            PendingOperation(operations, started(operation, one)) for one in operation.members
        )
        """The operations of the VMs, where several were asked for."""

    def __repr__(self) -> str:
        return f"<PendingOperation {self.id} {self.latest.command} {self.latest.phase}>"

    @property
    def id(self) -> str:
        return self.latest.id

    @property
    def target(self) -> str:
        """Id of the VM or name of the host."""
        return self.latest.target

    @property
    def ended(self) -> bool:
        return self.latest.phase in ENDED

    def __await__(self) -> Generator[object, None, Operation]:
        return self.wait().__await__()

    async def wait(self, timeout_s: float | None = None) -> Operation:
        """The operation once it has succeeded, with its trail."""
        async for found in self._operations.until_ended(self.id, timeout_s):
            self.latest = found
        return self.result()

    async def steps(self, timeout_s: float | None = None) -> AsyncIterator[OperationStep]:
        """Each step of the trail as it is known; ends when the operation does, and raises TimedOut but
        not OperationFailed: ask `result` afterwards."""
        told: set[OperationStep] = set()
        async for found in self._operations.looks(self.id, timeout_s):
            self.latest = found
            for step in _news(found, told):
                told.add(step)
                yield step

    def result(self) -> Operation:
        """The operation if it has succeeded. Raises OperationFailed if it ended otherwise."""
        if self.ended and self.latest.phase != "succeeded":
            raise OperationFailed(self.latest)
        return self.latest


def _news(operation: Operation, told: Set[OperationStep]) -> list[OperationStep]:
    """The steps not told yet. The bus keeps no order among senders: a step may be known before the
    acceptance, from which its time counts, and is held back until then."""
    trail = operation.trail
    if operation.phase not in ENDED and trail and trail[0].event != "operation.accepted":
        return []
    return [step for step in trail if step not in told]


def started(whole: Operation, member: OperationMember) -> Operation:
    """What is known of a member's operation as soon as that of the whole was accepted."""
    return Operation(
        id=member.operation,
        command="vm.create",
        kind="vm",
        target=member.vm,
        phase="accepted",
        actor=whole.actor,
        created_at=whole.created_at,
        updated_at=whole.created_at,
    )


class Operations:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(
        self, operation: str, *, wait_s: float = 0, at: datetime | None = None
    ) -> Operation:
        """The operation with its trail; waits up to `wait_s` seconds at the server for its end. With
        `at`, as it was then."""
        path = f"/v1/operations/{checked_ref('operation', operation)}"
        query = [*_waiting(wait_s), *query_of(at=time_text(at))]
        return await self._transport.read(path, Operation, query=query, wait_s=wait_s)

    def list(
        self,
        *,
        target: str | None = None,
        phase: OperationPhase | None = None,
        actor: str | None = None,
        at: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Operation]:
        """Operations without their trails, newest first. With `at`, as they were then."""
        query = query_of(target=target, phase=phase, actor=actor, at=time_text(at))
        return walk(self._transport, "/v1/operations", PageOf[Operation], query, limit=limit)

    async def effects(self, operation: str) -> EffectTree:
        """All that it caused, also in the operations that it led to."""
        path = f"/v1/operations/{checked_ref('operation', operation)}/effects"
        return await self._transport.read(path, EffectTree)

    async def wait(self, operation: str, *, timeout_s: float | None = None) -> Operation:
        """The operation once it has succeeded. Raises OperationFailed, TimedOut."""
        return await (await self.pending(operation)).wait(timeout_s)

    async def pending(self, operation: str) -> PendingOperation:
        """An operation that somebody began, to be waited for."""
        return PendingOperation(self, await self.get(operation))

    async def begin(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        wait: Wait,
        key: str | None,
        query: Query | None = None,
    ) -> PendingOperation:
        """Ask for something that becomes an operation; wait for its end if told to, at the server as
        long as one request may hang there, then by looking."""
        now = asyncio.get_running_loop().time
        began, timeout_s = now(), _timeout_s(wait)
        held_s = 0.0 if timeout_s == 0 else self._slice_s(timeout_s)
        operation = await self._transport.change(
            method,
            path,
            Operation,
            body=body,
            query=[*(query or []), *_waiting(held_s)],
            key=key,
            wait_s=held_s,
        )
        pending = PendingOperation(self, operation)
        if wait is False:
            return pending
        if pending.ended:
            pending.result()
        else:
            left_s = None if timeout_s is None else max(0.0, timeout_s - (now() - began))
            await pending.wait(left_s)
        return pending

    def _slice_s(self, timeout_s: float | None) -> float:
        slice_s = self._transport.settings.wait_slice_s
        return slice_s if timeout_s is None else min(slice_s, timeout_s)

    async def until_ended(
        self, operation: str, timeout_s: float | None
    ) -> AsyncIterator[Operation]:
        """Looks that hang at the server until there is an end. Raises TimedOut."""
        settings = self._transport.settings

        async def look(left_s: float) -> Operation:
            return await self.get(operation, wait_s=min(settings.wait_slice_s, left_s))

        # A server that answers at once all the same must not be asked in a tight loop.
        async for found in self._watch(operation, timeout_s, look, least_s=settings.poll_first_s):
            yield found

    async def looks(self, operation: str, timeout_s: float | None) -> AsyncIterator[Operation]:
        """Looks in short intervals, so that steps are seen on the way. Raises TimedOut."""

        async def look(left_s: float) -> Operation:
            return await self.get(operation)

        async for found in self._watch(operation, timeout_s, look, least_s=0):
            yield found

    async def _watch(
        self,
        operation: str,
        timeout_s: float | None,
        look: Callable[[float], Awaitable[Operation]],
        *,
        least_s: float,
    ) -> AsyncIterator[Operation]:
        settings = self._transport.settings
        now = asyncio.get_running_loop().time
        deadline = float("inf") if timeout_s is None else now() + timeout_s
        interval_s, known = settings.poll_first_s, -1
        while True:
            began = now()
            found = await self._patiently(look, max(0.0, deadline - began))
            yield found
            if found.phase in ENDED:
                return
            if now() >= deadline:
                raise TimedOut(found, timeout_s or 0)
            moved, known = len(found.trail) != known, len(found.trail)
            grown = min(interval_s * 1.5, settings.poll_most_s)
            interval_s = settings.poll_first_s if moved else grown
            pause_s = max(least_s, interval_s) - (now() - began)
            await asyncio.sleep(max(0.0, min(pause_s, deadline - now())))

    async def _patiently(
        self, look: Callable[[float], Awaitable[Operation]], left_s: float
    ) -> Operation:
        """One look, in spite of a server that is away, or doesn't know the operation yet, for a while."""
        settings = self._transport.settings
        now = asyncio.get_running_loop().time
        give_up = now() + min(settings.patience_s, max(left_s, settings.poll_most_s))
        attempt = 1
        while True:
            try:
                return await look(left_s)
            except (Unavailable, NotFound):
                if now() >= give_up:
                    raise
            await self._transport.pause(attempt)
            attempt += 1


def _waiting(wait_s: float) -> Query:
    """The parameter that makes the server wait."""
    return [("wait", f"{max(1, round(wait_s * 1000))}ms")] if wait_s > 0 else []


def _timeout_s(wait: Wait) -> float | None:
    """How long to wait at most: not at all, so many seconds, or (None) to the end."""
    # `True` is an int too: it must not be read as one second.
    if wait is True:
        return None
    return 0.0 if wait is False else float(wait)
