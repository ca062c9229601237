"""Who waits for which operation, inside this process.

A commit announces the phases it brought; a poll, shared by all who wait, brings those that another
replica committed. Whoever begins to wait looks once, together with those who begin at the same time.
Nothing in here reads Postgres itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from schemas.resources import ENDED, OperationPhase

T = TypeVar("T")
Phases = Mapping[str, OperationPhase]


class Waiter:
    """One who waits. `woken` is set when the operation exists or, if that is waited for, has ended."""

    def __init__(self, operation: str, *, ended: bool) -> None:
        self.operation = operation
        self.ended = ended
        self.woken = asyncio.Event()


class Waiting:
    """The waiters by operation."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[Waiter]] = {}

    def join(self, operation: str, *, ended: bool) -> Waiter:
        """Wait from now on: join first, look at the store next, so that nothing falls between."""
        waiter = Waiter(operation, ended=ended)
        self._waiters.setdefault(operation, set()).add(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        others = self._waiters.get(waiter.operation, set())
        others.discard(waiter)
        if not others:
            self._waiters.pop(waiter.operation, None)

    def announce(self, phases: Mapping[str, OperationPhase]) -> None:
        """Wake whoever waited for this."""
        for operation, phase in phases.items():
            for waiter in self._waiters.get(operation, ()):
                if phase in ENDED or not waiter.ended:
                    waiter.woken.set()

    def awaited(self) -> list[str]:
        """The operations that somebody waits for."""
        return sorted(self._waiters)


class Looks(Generic[T]):
    """Looks at many things by one question: while one is on its way, the next one gathers."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]]) -> None:
        self._ask = ask
        self._asking = asyncio.Lock()
        self._gathered: set[str] = set()
        self._next: asyncio.Task[Mapping[str, T]] | None = None

    async def look(self, id: str) -> Mapping[str, T]:
        """The answer about this one, if there is one, and perhaps about others; asked for after the call
        began. Raises what the question raises."""
        self._gathered.add(id)
        if self._next is None:
            self._next = asyncio.create_task(self._look(), name="look at many")
            # Seen, even if all who asked have gone.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        # One who goes away leaves the others their answer.
        return await asyncio.shield(self._next)

    async def _look(self) -> Mapping[str, T]:
        async with self._asking:
            ids, self._gathered, self._next = sorted(self._gathered), set(), None
            return await self._ask(ids)
