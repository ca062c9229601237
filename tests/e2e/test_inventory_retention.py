"""Months put away into files: whatever happens meanwhile, each event is in the record or in a file."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from chassis.service import Retry
from chassis.signing import is_signed
from schemas import events
from schemas.anchors import faults_of_anchors
from schemas.audit import CheckSeal, LedgerCheck, ListRows, ProveRows, ShowLedger
from schemas.causes import EffectTree
from schemas.earlier import EarlierEvents, ReadEarlier
from schemas.problems import Problem
from schemas.queries import ListEvents, ShowEffects
from schemas.seals import anchor_in
from services.inventory.earlier import Earlier
from services.inventory.effect_reads import EffectReads
from services.inventory.fleet_rebuild import fleet_rebuild
from services.inventory.month_files import MonthFiles
from services.inventory.retention import Retention
from tests.fixtures.inventory import (
    CREATE,
)
from tests.fixtures.record import Audited
from tests.fixtures.retained import JANUARY, SAID, WHERE, folder_of, retention_of
from vireo.cli.audit_file import checked


async def numbers(kept: Audited) -> list[int]:
    async with kept.inventory.postgres.connection() as connection:
        records = await connection.fetch("select number from events order by number")
    return [record["number"] for record in records]


async def whole(kept: Audited) -> bool:
    """January is in its file and nowhere else, February where it was; all of it is proven."""
    assert await numbers(kept) == [11, 12, 13]
    assert await kept.check() == []
    (signed,) = (await kept.audits.state(ShowLedger())).archives
    assert [*faults_of_anchors([signed], key=kept.signer.public, is_signed=is_signed)] == []
    anchor = anchor_in(signed)
    assert (anchor.month, anchor.first, anchor.last, anchor.file) == ("2026-01", 1, 10, JANUARY)
    assert [each.anchor for each in await kept.told(events.LedgerArchived)] == [signed]
    files = [file.name for file in folder_of(kept).iterdir()]
    return files == [JANUARY] and checked(folder_of(kept) / JANUARY, kept.signer.public) == (10, 0)


async def test_a_month_whose_time_has_come_is_in_a_file_and_not_in_the_database(
    kept: Audited,
) -> None:
    await retention_of(kept).turn()
    assert await whole(kept)
    await retention_of(kept).turn()
    assert await whole(kept)


async def test_all_stays_where_nothing_else_is_set(audited: Audited) -> None:
    assert audited.record.retention is None


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("step", ["write", "read_back", "_save", "_detach", "_tell"])
async def test_who_is_killed_after_a_step_goes_on_at_the_next_start(
    kept: Audited, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = MonthFiles if hasattr(MonthFiles, step) else Retention
    done = getattr(of, step)

    async def killed(*given: Any, **named: Any) -> Any:
        await done(*given, **named)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(of, step, killed)
        with pytest.raises(Killed):
            await retention_of(kept).turn()
    await retention_of(kept).turn()
    assert await whole(kept)


async def test_half_a_file_of_who_was_killed_is_in_nobodys_way(kept: Audited) -> None:
    (folder_of(kept) / f".{JANUARY}.x1").write_bytes(b"half")
    await retention_of(kept).turn()
    assert await whole(kept)


async def test_without_its_folder_nothing_is_put_away(kept: Audited) -> None:
    folder_of(kept).rmdir()
    retention = retention_of(kept)
    await retention.turn()
    assert len(await numbers(kept)) == len(SAID)
    reason = f"{folder_of(kept)}: No such file or directory"
    assert retention.fault == f"no month is put away: {reason}"


async def test_a_month_that_is_put_off_is_an_alarm(kept: Audited) -> None:
    folder_of(kept).rmdir()
    record = kept.again()
    assert record.retention is not None
    await record.retention.turn()
    await record.upkeep.look()
    assert record.upkeep.alarms() == (record.retention.fault,)


@pytest.mark.parametrize("damage", ["cut", "other"])
async def test_a_file_that_does_not_prove_the_month_takes_nothing_out(
    kept: Audited, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stop(*_: Any) -> None:
        raise Retry(1)

    with monkeypatch.context() as patched:
        patched.setattr(Retention, "_detach", stop)
        with pytest.raises(Retry):
            await retention_of(kept).turn()
    file = folder_of(kept) / JANUARY
    content = file.read_bytes()
    file.write_bytes(content[:-40] if damage == "cut" else b"")
    retention = retention_of(kept)
    await retention.turn()
    assert retention.fault
    assert len(await numbers(kept)) == len(SAID)


async def test_a_month_whose_days_are_not_sealed_yet_is_put_away_when_they_are(
    kept: Audited,
) -> None:
    await kept.by_hand("delete from seals")
    retention = retention_of(kept)
    await retention.turn()
    assert retention.fault == "no month is put away: not all days of 2026-01 are sealed"
    await kept.turn()
    await retention.turn()
    assert await whole(kept)


@pytest.mark.parametrize(
    "statement",
    [
        "delete from events where number = 4",
        "delete from events where number = 1",
        "update events set actor = 'token/other', envelope = envelope || ' ' where number = 7",
        "update events set number = 10, received_at = '2026-01-31 13:00+00' where number = 11",
    ],
)
async def test_a_month_that_is_not_whole_stays_to_be_looked_at(
    kept: Audited, statement: str
) -> None:
    await kept.by_hand(statement)
    before = await numbers(kept)
    retention = retention_of(kept)
    await retention.turn()
    assert retention.fault
    assert await numbers(kept) == before


async def test_who_reads_the_month_is_not_disturbed(kept: Audited) -> None:
    async with kept.inventory.postgres.transaction() as reading:
        await reading.fetch("select number from events")
        with pytest.raises(Retry):
            await retention_of(kept).turn()
        assert len(await reading.fetch("select number from events")) == len(SAID)
    await retention_of(kept).turn()
    assert await whole(kept)


async def test_two_at_once_put_it_away_once(kept: Audited) -> None:
    await asyncio.gather(*(settled(kept) for _ in range(3)))
    assert await whole(kept)


async def settled(kept: Audited) -> None:
    retention = retention_of(kept)
    while True:
        try:
            await retention.turn()
        except Retry:
            continue
        if not retention.fault:
            return


async def test_fleet_can_be_made_anew_from_what_was_told_long_ago(kept: Audited) -> None:
    fleet = fleet_rebuild(kept.settings, kept.rig, kept.inventory.postgres)
    before = await fleet.lost()
    assert len(before.assignments) == 2
    await retention_of(kept).turn()
    assert await fleet.lost() == before


async def test_a_day_whose_rows_are_in_a_file_is_said_to_be(kept: Audited) -> None:
    await retention_of(kept).turn()
    january = await kept.audits.check_seal(CheckSeal(day="2026-01-31"))
    february = await kept.audits.check_seal(CheckSeal(day="2026-02-01"))
    assert isinstance(january, LedgerCheck)
    assert isinstance(february, LedgerCheck)
    assert (january.away, january.faults) == (JANUARY, ())
    assert (february.away, february.faults, february.rows) == ("", (), 3)


async def test_a_row_that_was_put_in_before_the_anchor_is_named(kept: Audited) -> None:
    await retention_of(kept).turn()
    await kept.by_hand(
        "insert into events select stream, 3, position, id, time, type, source, subject, operation,"
        " cause, actor, vm, host, timestamptz '2026-01-30', previous, hash, envelope"
        " from events where number = 12"
    )
    (fault,) = await kept.check()
    assert (fault.what, fault.number) == ("inserted", 3)


async def test_an_anchor_that_was_taken_out_leaves_rows_missing(kept: Audited) -> None:
    await retention_of(kept).turn()
    await kept.by_hand("delete from archives")
    (fault,) = await kept.check()
    assert (fault.what, fault.number, fault.last) == ("missing", 1, 10)


def away(answer: object) -> str:
    assert isinstance(answer, Problem), answer
    assert answer.type == "urn:vireo:problem:put-away"
    return answer.detail


async def test_what_is_asked_for_and_in_a_file_is_said_to_be_there(kept: Audited) -> None:
    await retention_of(kept).turn()
    january, february = datetime(2026, 1, 20, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    inventory = kept.inventory
    reads = inventory.reads
    assert away(await reads.events(ListEvents(until=datetime(2026, 1, 31, tzinfo=UTC)))) == WHERE
    assert isinstance(await reads.events(ListEvents(since=january)), bytes)
    assert away(await kept.audits.rows(ListRows(since=january))) == WHERE
    assert isinstance(await kept.audits.rows(ListRows(since=february)), bytes)
    assert away(await kept.audits.prove(ProveRows(rows="3"))) == WHERE
    effects = EffectReads(inventory.postgres, inventory.queries, limit=100)
    shown = await effects.tree(ShowEffects(operation=CREATE))
    assert isinstance(shown, bytes)
    assert JANUARY in msgspec.json.decode(shown, type=EffectTree).away


async def test_who_goes_on_in_the_stream_is_told_what_would_be_passed_by(kept: Audited) -> None:
    await retention_of(kept).turn()
    inventory = kept.inventory
    earlier = Earlier(inventory.postgres, inventory.queries, stream="EVENTS", page_bytes=100_000)
    assert away(await earlier.read(ReadEarlier(after=9, before=20))) == WHERE
    for after in (0, 10):
        found = await earlier.read(ReadEarlier(after=after, before=20))
        assert isinstance(found, EarlierEvents)
        assert [item.sequence for item in found.items] == [11, 12, 13]
