"""Answers are kept within their bounds, never given unasked, and shared by those who ask at one time."""

from __future__ import annotations

import asyncio

import pytest

from chassis.service import Retry, Tagged
from services.gateway.kept import KeptAnswers, Known, Question, Shelf


def question(name: str) -> Question:
    return Question("vm.list", name.encode())


def known(tag: str, size: int = 9) -> Known:
    return Known(tag=tag, body=b"x" * size)


class Maker:
    """Answers with what is true now, when it is let; notes the tags that it was told are known."""

    def __init__(self) -> None:
        self.true = Known(tag="1", body=b"one")
        self.told: list[str | None] = []
        self.let = asyncio.Event()
        self.away = False

    async def ask(self, tag: str | None) -> Tagged:
        self.told.append(tag)
        true = self.true
        await self.let.wait()
        if self.away:
            raise Retry(1, "away")
        return Tagged(tag=true.tag, body=None if tag == true.tag else true.body)


async def begun(*asking: asyncio.Task[Known]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(each.done() for each in asking)


def test_the_longest_unused_goes_first_when_there_are_too_many() -> None:
    shelf = Shelf(most=2, most_bytes=1000)
    for name in ("a", "b"):
        shelf.put(question(name), known(name))
    assert shelf.get(question("a")) == known("a")
    shelf.put(question("c"), known("c"))
    assert [shelf.get(question(name)) for name in "abc"] == [known("a"), None, known("c")]


def test_bytes_are_bounded_and_what_alone_is_too_much_is_not_kept() -> None:
    shelf = Shelf(most=100, most_bytes=25)
    for name in ("a", "b", "c"):
        shelf.put(question(name), known(name))
    assert (len(shelf), shelf.bytes) == (2, 20)
    shelf.put(question("d"), known("d", size=25))
    assert (len(shelf), shelf.bytes, shelf.get(question("d"))) == (2, 20, None)


def test_a_newer_answer_takes_the_place_of_the_older() -> None:
    shelf = Shelf(most=100, most_bytes=100)
    shelf.put(question("a"), known("1", size=19))
    shelf.put(question("a"), known("2"))
    assert (shelf.get(question("a")), shelf.bytes) == (known("2"), 10)
    shelf.put(question("a"), known(""))
    assert (len(shelf), shelf.bytes) == (0, 0)


async def test_what_is_known_is_given_only_after_its_maker_said_so() -> None:
    maker, kept = Maker(), KeptAnswers(most=10, most_bytes=100)
    maker.let.set()
    found = [await kept.answer(question("a"), maker.ask) for _ in range(2)]
    maker.true = Known(tag="2", body=b"two")
    found.append(await kept.answer(question("a"), maker.ask))
    assert [each.body for each in found] == [b"one", b"one", b"two"]
    assert maker.told == [None, "1", "1"]


async def test_one_who_comes_later_is_not_given_what_was_asked_before() -> None:
    maker, kept = Maker(), KeptAnswers(most=10, most_bytes=100)
    early = asyncio.create_task(kept.answer(question("a"), maker.ask))
    await begun(early)
    maker.true = Known(tag="2", body=b"two")
    late = [asyncio.create_task(kept.answer(question("a"), maker.ask)) for _ in range(3)]
    await begun(early, *late)
    maker.let.set()

    assert (await early).body == b"one"
    assert {(await each).body for each in late} == {b"two"}
    assert maker.told == [None, "1"]


async def test_a_failure_is_everyones_who_shared_it_and_nobody_elses() -> None:
    maker, kept = Maker(), KeptAnswers(most=10, most_bytes=100)
    maker.away = True
    maker.let.set()
    asking = [asyncio.create_task(kept.answer(question("a"), maker.ask)) for _ in range(2)]
    for each in asking:
        with pytest.raises(Retry):
            await each
    maker.away = False
    assert (await kept.answer(question("a"), maker.ask)).body == b"one"


async def test_one_who_goes_away_leaves_the_others_their_answer() -> None:
    maker, kept = Maker(), KeptAnswers(most=10, most_bytes=100)
    gone, stays = (asyncio.create_task(kept.answer(question("a"), maker.ask)) for _ in range(2))
    await begun(gone, stays)
    gone.cancel()
    maker.let.set()
    assert (await stays).body == b"one"
    assert maker.told == [None]
