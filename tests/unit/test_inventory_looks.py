"""Many who look at the same time ask once, each after it began, and nobody's end is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from chassis.service import Retry
from services.inventory.waiting import Looks, Phases


class Store:
    """Answers when it is let; notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.let = asyncio.Event()
        self.away = False

    async def phases(self, operations: Sequence[str]) -> Phases:
        self.asked.append(list(operations))
        await self.let.wait()
        if self.away:
            raise Retry(1, "away")
        return dict.fromkeys(operations, "succeeded")


async def begun(*looks: asyncio.Task[Phases]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(look.done() for look in looks)


async def test_while_one_question_is_on_its_way_the_next_one_gathers() -> None:
    store = Store()
    looks = Looks(store.phases)
    first = asyncio.create_task(looks.look("a"))
    await begun(first)
    others = [asyncio.create_task(looks.look(operation)) for operation in ("c", "b", "a")]
    await begun(first, *others)
    store.let.set()

    assert await first == {"a": "succeeded"}
    assert [sorted(await other) for other in others] == [["a", "b", "c"]] * 3
    assert store.asked == [["a"], ["a", "b", "c"]]


async def test_one_who_goes_away_leaves_the_others_their_answer() -> None:
    store = Store()
    looks = Looks(store.phases)
    gone, stays = (asyncio.create_task(looks.look(one)) for one in ("a", "b"))
    await begun(gone, stays)
    gone.cancel()
    store.let.set()

    assert await stays == {"a": "succeeded", "b": "succeeded"}


async def test_a_question_that_fails_is_everybodys_failure_and_the_next_one_is_asked() -> None:
    store = Store()
    store.away = True
    store.let.set()
    looks = Looks(store.phases)
    for look in [asyncio.create_task(looks.look(one)) for one in ("a", "b")]:
        with pytest.raises(Retry):
            await look
    store.away = False
    assert await looks.look("c") == {"c": "succeeded"}
