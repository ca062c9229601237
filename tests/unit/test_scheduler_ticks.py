"""When a command's turn to be decided comes."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from chassis.clock import ManualClock, settle
from services.scheduler.ticks import Ticks
from tests.fixtures.scheduler import START

TICK_S = 0.002


class Office:
    """Commands that note their turn and are in hand until they are let go."""

    def __init__(self, *, most: int = 256) -> None:
        self.clock = ManualClock(START)
        self.ticks = Ticks(self.clock, most=most, tick_s=TICK_S)
        self.turns: list[str] = []
        self.written = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def come(self, name: str, shape: Hashable = "any") -> None:
        self._tasks.append(asyncio.create_task(self._command(name, shape)))

    async def _command(self, name: str, shape: Hashable) -> None:
        async with self.ticks.turn(shape):
            self.turns.append(name)
            await self.written.wait()

    async def close(self) -> None:
        self.written.set()
        await asyncio.gather(*self._tasks)


async def test_who_comes_alone_has_its_turn_without_time_passing() -> None:
    office = Office()
    office.come("a")
    await settle()
    assert office.turns == ["a"]
    await office.close()


async def test_who_comes_at_the_same_moment_is_decided_together_the_alike_one_after_another() -> (
    None
):
    office = Office()
    for name in ("s1", "l1", "s2", "l2", "s3"):
        office.come(name, name[0])
    await settle()
    assert office.turns == ["s1", "s2", "s3", "l1", "l2"]
    await office.close()


async def test_while_others_are_written_those_that_come_gather_for_a_tick() -> None:
    office = Office()
    office.come("a")
    await settle()
    office.come("b")
    await settle()
    office.come("c")
    await office.clock.advance(TICK_S / 2)
    assert office.turns == ["a"]
    await office.clock.advance(TICK_S / 2)
    assert office.turns == ["a", "b", "c"]
    await office.close()


async def test_nobody_waits_for_the_tick_once_what_was_in_hand_is_written() -> None:
    office = Office()
    office.come("a")
    await settle()
    office.come("b")
    await settle()
    office.written.set()
    await settle()
    assert office.turns == ["a", "b"]
    await office.close()


async def test_who_makes_a_tick_full_opens_it() -> None:
    office = Office(most=2)
    office.come("a")
    await settle()
    office.come("b")
    await settle()
    assert office.turns == ["a"]
    office.come("c")
    await settle()
    assert office.turns == ["a", "b", "c"]
    await office.close()


async def test_who_gives_up_while_waiting_holds_up_nobody() -> None:
    office = Office()
    office.come("a")
    await settle()
    office.come("b")
    office.come("c")
    await settle()
    office._tasks.pop(1).cancel()
    await office.clock.advance(TICK_S)
    assert office.turns == ["a", "c"]
    await office.close()
