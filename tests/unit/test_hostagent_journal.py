"""The journal keeps what it was given, in order and once, and the outbox never loses or swaps any."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.bus import CaughtUp, Outgoing, Start
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.memory_bus import MemoryBus, memory_bus
from services.hostagent.commits import JournalBroken
from services.hostagent.journal import Journal
from services.hostagent.model import Record
from services.hostagent.outbox import flush
from tests.fixtures.cut_bus import CutBus
from tests.fixtures.hostagent import VM, assignment_of, id_of

VERSION_1 = """
CREATE TABLE assignments (vm TEXT PRIMARY KEY, generation INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE records (vm TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE guests (vm TEXT PRIMARY KEY, changes INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE actions (operation TEXT PRIMARY KEY);
CREATE TABLE facts (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    body BLOB NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX outbox_unsent ON outbox (number) WHERE sent = 0;
PRAGMA user_version = 1;
"""


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    one = Journal(tmp_path / "journal.sqlite")
    await one.open()
    yield one
    await one.close()


def message(number: int) -> Outgoing:
    subject = f"vireo.evt.default.h1.vm.{VM}.started"
    return Outgoing(subject=subject, data=b"%d" % number, message_id=id_of(number))


async def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    path, record = tmp_path / "journal.sqlite", Record(vm=VM, generation=1, known="running")
    first = Journal(path)
    await first.open()
    await first.accept(assignment_of(), None)
    await first.say(record, [message(1)], generation=1)
    await first.close()

    second = Journal(path)
    await second.open()
    loaded, waiting = await second.load(), await second.waiting(10)
    await second.close()

    assert loaded == [(assignment_of(), record)]
    assert [one.message for one in waiting] == [message(1)]


async def test_what_is_handed_in_is_there_when_the_next_word_is(tmp_path: Path) -> None:
    path, record = tmp_path / "journal.sqlite", Record(vm=VM, generation=1, known="running")
    first = Journal(path)
    await first.open()
    first.hand_in([message(1)])
    await first.say(record, [message(2)], generation=1)
    other = Journal(path)
    await other.open()
    assert [one.message for one in await other.waiting(10)] == [message(1), message(2)]
    await other.close()
    await first.close()


async def test_what_was_handed_in_and_cannot_be_written_stops_whoever_waits_next(
    journal: Journal,
) -> None:
    unwritable = Outgoing(subject=object(), data=b"", message_id=id_of(1))  # type: ignore[arg-type]
    journal.hand_in([unwritable])
    with pytest.raises(JournalBroken):
        await journal.say(Record(vm=VM), [message(2)], generation=1)


async def test_only_a_newer_generation_is_accepted(journal: Journal) -> None:
    answers = [await journal.accept(assignment_of(generation), None) for generation in (2, 2, 1, 3)]

    assert answers == [True, False, False, True]


async def test_the_same_event_is_kept_once_even_after_it_was_sent(journal: Journal) -> None:
    await journal.post([message(1)])
    (only,) = await journal.waiting(10)
    assert await journal.sent(only.number, keep=10, limit=10) == []

    await journal.post([message(1), message(2)])

    assert [one.message for one in await journal.waiting(10)] == [message(2)]


async def test_an_end_told_too_late_stays_untold(journal: Journal) -> None:
    await journal.accept(assignment_of(1), None)
    await journal.accept(assignment_of(2), None)

    ends = frozenset({id_of(2)})
    record = Record(vm=VM, generation=1)
    await journal.say(record, [message(1), message(2)], generation=1, ends=ends)

    assert [one.message for one in await journal.waiting(10)] == [message(1)]


async def test_only_what_was_ended_and_told_is_forgotten(journal: Journal) -> None:
    await journal.accept(assignment_of(1), None)
    kept = await journal.forget(VM)
    await journal.accept(assignment_of(2, ended=True), None)
    unfinished = await journal.forget(VM)
    await journal.say(Record(vm=VM, generation=2), [], generation=2)

    assert (kept, unfinished, await journal.forget(VM)) == (False, False, True)
    assert await journal.load() == []


async def test_what_comes_at_once_is_committed_together_and_kept_in_order(
    journal: Journal,
) -> None:
    await asyncio.gather(*(journal.post([message(number)]) for number in range(300)))

    waiting = await journal.waiting(1000)

    assert [one.message for one in waiting] == [message(number) for number in range(300)]


async def test_what_is_handed_in_is_soon_in_the_outbox_though_nobody_waits_for_it(
    journal: Journal,
) -> None:
    async with asyncio.timeout(10):
        await journal.unsent.wait()
        journal.unsent.clear()
        journal.hand_in([message(1)])
        await journal.unsent.wait()

    assert [one.message for one in await journal.waiting(10)] == [message(1)]


async def test_a_change_that_fails_leaves_those_that_came_with_it_untouched(
    journal: Journal,
) -> None:
    unwritable = Outgoing(subject=object(), data=b"", message_id=id_of(1))  # type: ignore[arg-type]

    answers = await asyncio.gather(
        journal.post([message(1)]),
        journal.post([unwritable]),
        journal.post([message(2)]),
        return_exceptions=True,
    )

    assert [type(one) for one in answers] == [type(None), JournalBroken, type(None)]
    assert [one.message for one in await journal.waiting(10)] == [message(1), message(2)]


async def test_a_journal_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    db = sqlite3.connect(path)
    db.executescript(VERSION_1)
    for number, sent in ((1, 1), (2, 1), (3, 0)):
        row = (number, id_of(number), message(number).subject, b"%d" % number, sent)
        db.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()

    journal = Journal(path)
    await journal.open()
    await journal.post([message(2), message(4)])
    waiting = await journal.waiting(10)
    await journal.close()

    assert [one.message for one in waiting] == [message(3), message(4)]


async def test_a_journal_of_another_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(JournalBroken, match="version 99"):
        await Journal(path).open()


async def test_a_journal_that_cannot_be_opened_says_where(tmp_path: Path) -> None:
    with pytest.raises(JournalBroken, match=str(tmp_path)):
        await Journal(tmp_path).open()


async def _published(bus: MemoryBus, count: int) -> list[bytes]:
    async with asyncio.timeout(10):
        while await bus.last_sequence("EVENTS") < count:
            await asyncio.sleep(0.005)
    return [body for one in range(1, count + 1) if (body := await _at(bus, one)) is not None]


async def _at(bus: MemoryBus, sequence: int) -> bytes | None:
    start = Start(at="sequence", sequence=sequence)
    async with bus.follow("EVENTS", ["vireo.evt.>"], start=start) as feed:
        async for one in feed:
            return None if isinstance(one, CaughtUp) else one.data
    return None


async def test_the_outbox_survives_a_bus_that_goes_away_in_between(journal: Journal) -> None:
    clock = SystemClock()
    async with memory_bus(clock) as bus:
        await ensure_streams(bus, clock)
        cut = CutBus(bus, publishes=2, refuses=True)
        await journal.post([message(number) for number in range(10)])
        flushing = asyncio.create_task(flush(journal, cut, clock, batch=4, keep=100))
        await cut.cut.wait()
        await journal.post([message(number) for number in range(10, 20)])

        cut.mend(publishes=10_000)
        bodies = await _published(bus, 20)
        flushing.cancel()
        await asyncio.wait([flushing])

    assert bodies == [b"%d" % number for number in range(20)]


async def test_what_the_bus_has_already_is_not_sent_twice(journal: Journal) -> None:
    clock = SystemClock()
    async with memory_bus(clock) as bus:
        await ensure_streams(bus, clock)
        await bus.publish(message(1))
        await journal.post([message(0), message(1), message(2)])
        flushing = asyncio.create_task(flush(journal, bus, clock, batch=100, keep=100))
        async with asyncio.timeout(10):
            while await journal.waiting(1):
                await asyncio.sleep(0.005)
        flushing.cancel()
        await asyncio.wait([flushing])

        assert await _published(bus, 3) == [b"1", b"0", b"2"]
