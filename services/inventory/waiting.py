"""Who waits for which operation, inside this process.

A commit announces the phases it brought; a poll, shared by all who wait, brings those that another
replica committed. Nothing in here reads Postgres.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from schemas.resources import ENDED, OperationPhase


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
