"""Micro-batches: commands that wait together are decided together, and what they write goes together.

What belongs here: when a command's turn to be decided has come. Each decides for itself and fails for
itself; those of one tick do it one right after the other, without anything in between, so that the bus
gets all they write as one group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from msgspec import Struct

from chassis.service import Clock


class _Waiting(Struct, frozen=True, eq=False):
    shape: Hashable
    turn: asyncio.Future[None]


class Ticks:
    """One per process. A command that comes alone is let through at once; while others are being
    written, those that come gather for `tick_s`, or until they are `most`."""

    def __init__(self, clock: Clock, *, most: int, tick_s: float) -> None:
        self._clock = clock
        self._most = most
        self._tick_s = tick_s
        self._waiting: list[_Waiting] = []
        self._in_hand = 0
        self._opening: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    @asynccontextmanager
    async def turn(self, shape: Hashable) -> AsyncIterator[None]:
        """Decide and write inside. Of those that wait, the ones of one `shape` go one after another."""
        waiting = _Waiting(shape, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._hasten()
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="tick")
        await waiting.turn
        self._in_hand += 1
        try:
            yield
        finally:
            self._in_hand -= 1
            self._hasten()

    def _hasten(self) -> None:
        if not self._in_hand or len(self._waiting) >= self._most:
            self._hurry.set()

    async def _open(self) -> None:
        """Let those in who wait, as long as any do. A task of its own: what was received in the same
        moment has come to wait before it runs."""
        while self._waiting:
            if self._in_hand and len(self._waiting) < self._most:
                await self._gather()
            first, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            for waiting in _alike_together(first):
                if not waiting.turn.done():
                    waiting.turn.set_result(None)
            # They take their turns before anybody is counted as being in hand or not.
            await asyncio.sleep(0)
        self._opening = None

    async def _gather(self) -> None:
        self._hurry.clear()
        over = asyncio.ensure_future(self._clock.sleep(self._tick_s))
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait([over, hurry], return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            hurry.cancel()


def _alike_together(waiting: list[_Waiting]) -> list[_Waiting]:
    """Those of one shape together, in the order in which shapes come first."""
    groups: dict[Hashable, list[_Waiting]] = {}
    for one in waiting:
        groups.setdefault(one.shape, []).append(one)
    return [one for group in groups.values() for one in group]
