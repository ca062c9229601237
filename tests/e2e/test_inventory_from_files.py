"""Tables made anew, and events published again, from months that are in files."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from chassis.bus import Outgoing
from schemas.commands import RebuildInventory, ReplayEvents, StopReplay
from schemas.forecasts import Forecast
from schemas.problems import Problem
from services.inventory.event_source import Unreadable
from services.inventory.fleet_rebuild import fleet_rebuild
from services.inventory.rebuild_handlers import rebuilds
from services.inventory.record import sources_of
from services.inventory.replays import Replays, replays_of
from tests.fixtures.inventory import CREATE, STOP, VM, id_of
from tests.fixtures.record import Audited
from tests.fixtures.retained import (
    JANUARY,
    NO_MESSAGE,
    SAID,
    WHERE,
    end_of,
    folder_of,
    months_since_february,
    nothing,
    ordered,
    rebuild_on,
    retention_of,
)

NOW = datetime(2026, 3, 2, tzinfo=UTC)
OPERATION, OTHER = id_of(901), id_of(902)
ALL_TIME = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))


def small(kept: Audited) -> Audited:
    """One that takes few rows at a time: January is more than one batch, or page."""
    return replace(kept, settings=replace(kept.settings, rebuild_batch=2, replay_batch=2))


async def put_away(kept: Audited, *, months: int = 1) -> Audited:
    """So many of the two."""
    keep = months_since_february() + 1 - months
    settings = replace(kept.settings, retention=replace(kept.settings.retention, keep_months=keep))
    kept = replace(kept, settings=settings)
    await retention_of(kept).turn()
    assert len([*folder_of(kept).iterdir()]) == months
    return small(kept)


@pytest.mark.parametrize("months", [1, 2])
async def test_tables_made_anew_from_files_are_those_that_are_read(
    kept: Audited, months: int
) -> None:
    kept = await put_away(kept, months=months)
    outcome = await rebuild_on(kept).run(OPERATION, take=True, told=nothing, at=NOW)
    assert outcome.same
    assert outcome.taken
    assert outcome.rows == len(SAID)
    assert {each.table: each.rows for each in outcome.tables} == {
        "vms": 2,
        "operations": 3,
        "hosts": 1,
        "vm_versions": 3,
        "vm_documents": 2,
        "vm_lives": 2,
        "operation_versions": 5,
        "host_versions": 1,
    }


async def test_rows_that_differ_from_what_is_in_a_file_are_named_and_mended(kept: Audited) -> None:
    kept = await put_away(kept)
    await kept.by_hand(f"update vms set host = 'h9' where id = '{VM}'")
    compared = await rebuild_on(kept).run(OPERATION, take=False, told=nothing, at=NOW)
    assert [each.keys for each in compared.tables if each.differing] == [(VM,)]
    await rebuild_on(kept).run(OTHER, take=True, told=nothing, at=NOW)
    assert (await rebuild_on(kept).run(id_of(903), take=True, told=nothing, at=NOW)).same


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_rebuild_that_was_killed_in_a_file_goes_on_there(kept: Audited, at: int) -> None:
    kept = await put_away(kept)
    seen: list[int] = []

    async def die(number: int, _last: int) -> None:
        seen.append(number)
        if len(seen) == at:
            raise Killed

    with pytest.raises(Killed):
        await rebuild_on(kept).run(OPERATION, take=True, told=die, at=NOW)
    resumed: list[int] = []

    async def note(number: int, _last: int) -> None:
        resumed.append(number)

    outcome = await rebuild_on(kept).run(OPERATION, take=True, told=note, at=NOW)
    assert outcome.same
    assert resumed[0] > seen[-1] or seen[-1] == len(SAID)


async def test_two_at_once_make_the_tables_once(kept: Audited) -> None:
    kept = await put_away(kept)
    made = await asyncio.gather(
        *(rebuild_on(kept).run(OPERATION, take=True, told=nothing, at=NOW) for _ in range(3))
    )
    assert made[0].same
    assert made == [made[0]] * 3


@pytest.mark.parametrize("months", [1, 2])
async def test_a_month_that_is_put_away_meanwhile_is_read_on_in_its_file(
    kept: Audited, months: int
) -> None:
    async def go(_number: int, _last: int) -> None:
        if not [*folder_of(kept).iterdir()]:
            await put_away(kept, months=months)

    outcome = await rebuild_on(small(kept)).run(OPERATION, take=True, told=go, at=NOW)
    assert outcome.same
    assert outcome.rows == len(SAID)


@pytest.mark.parametrize("before", ["next_events", "archives"])
async def test_no_row_is_passed_by_that_is_put_away_between_two_looks(
    kept: Audited, before: str
) -> None:
    queries = kept.inventory.queries

    async def fetch(query: str, *values: Any) -> list[Any]:
        if query == queries[before] and not [*folder_of(kept).iterdir()]:
            await put_away(kept)
        async with kept.inventory.postgres.connection() as connection:
            found: list[Any] = await connection.fetch(query, *values)
            return found

    async with sources_of(kept.settings, queries).open() as source:
        stretch = await source.next(fetch, after=0, limit=20)
    assert [each.number for each in stretch.events] == [*range(1, 11)]


def gone(folder: Path) -> None:
    (folder / JANUARY).unlink()


def cut(folder: Path) -> None:
    content = (folder / JANUARY).read_bytes()
    (folder / JANUARY).write_bytes(content[:-40])


def changed(folder: Path) -> None:
    content = gzip.decompress((folder / JANUARY).read_bytes())
    (folder / JANUARY).write_bytes(gzip.compress(content.replace(b"web-1", b"web-9")))


def packed_anew(folder: Path) -> None:
    content = gzip.decompress((folder / JANUARY).read_bytes())
    (folder / JANUARY).write_bytes(gzip.compress(content, compresslevel=1))


def a_folder(folder: Path) -> None:
    gone(folder)
    (folder / JANUARY).mkdir()


PUT_AWAY, CONFLICT = "urn:vireo:problem:put-away", "urn:vireo:problem:conflict"
DAMAGES = pytest.mark.parametrize(
    ("damage", "kind", "says"),
    [
        (gone, PUT_AWAY, WHERE),
        (cut, CONFLICT, f"{JANUARY}, rows 1 to 10: it is cut off: vireo audit verify --archives"),
        (
            changed,
            CONFLICT,
            f"{JANUARY}, rows 1 to 10: row 3 was changed: vireo audit verify --archives",
        ),
        (packed_anew, CONFLICT, f"{JANUARY}, rows 1 to 10: all rows are there, but its SHA-256 is"),
        (a_folder, CONFLICT, f"{JANUARY}, rows 1 to 10: it cannot be read: [Errno 21]"),
    ],
)


@DAMAGES
async def test_of_a_file_that_is_not_what_was_put_away_no_tables_are_made(
    kept: Audited, damage: Callable[[Path], None], kind: str, says: str
) -> None:
    kept = await put_away(kept)
    damage(folder_of(kept))
    await kept.by_hand("update hosts set site = 'as it was'")
    settings, rig, inventory = kept.settings, kept.rig, kept.inventory
    handler = rebuilds(
        settings,
        rig,
        inventory.postgres,
        inventory.queries,
        sources_of(settings, inventory.queries),
        fleet_rebuild(settings, rig, inventory.postgres),
    )
    await handler.on_command(ordered(RebuildInventory(), OPERATION), NO_MESSAGE)
    problem = (await end_of(kept, OPERATION)).problem
    assert problem.type == kind
    assert problem.detail.startswith(says)
    async with inventory.postgres.connection() as connection:
        assert await connection.fetchval("select site from hosts") == "as it was"
        assert await connection.fetchval("select to_regclass('rebuild.hosts')") is None


async def test_an_anchor_under_another_key_vouches_for_no_file(kept: Audited) -> None:
    kept = await put_away(kept)
    other = replace(kept.settings, signing_key_file=folder_of(kept) / "other.key")
    with pytest.raises(Unreadable, match=f"{JANUARY}.*its anchor is not signed with the key"):
        await rebuild_on(replace(kept, settings=other)).run(
            OPERATION, take=True, told=nothing, at=NOW
        )


def replays_on(kept: Audited) -> Replays:
    """As the next start of the process has it."""
    sources = sources_of(kept.settings, kept.inventory.queries)
    return replays_of(kept.settings, kept.rig, kept.inventory.postgres, sources)


def wish(name: str, **asked: Any) -> ReplayEvents:
    since, until = ALL_TIME
    return ReplayEvents(**{"name": name, "since": since, "until": until, "speed": 0, **asked})


async def replayed(kept: Audited, asked: ReplayEvents, operation: str) -> list[tuple[str, bytes]]:
    """What has been published under its name when it has ended, in order."""
    await replays_on(kept).on_start(ordered(asked, operation), NO_MESSAGE)
    return await published(kept, asked.name)


async def published(kept: Audited, name: str) -> list[tuple[str, bytes]]:
    """The ids of the originals, and the bytes."""
    found: list[tuple[str, bytes]] = []
    sequence = 1
    while (message := await kept.bus.first_from("REPLAYS", sequence)) is not None:
        if message.subject.startswith(f"vireo.replay.{name}."):
            found.append((message.headers["Vireo-Replay-Of"], message.data))
        sequence = message.sequence + 1
    return found


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, 13),
        ({"vm": VM}, 13),
        ({"vm": id_of(99)}, 0),
        ({"host": "h1"}, 13),
        ({"operation": CREATE}, 7),
        ({"operation": STOP, "types": ("operation.*",)}, 2),
        ({"types": ("vm.scheduled",)}, 2),
        ({"since": datetime(2026, 1, 31, tzinfo=UTC)}, 8),
        ({"until": datetime(2026, 1, 30, 12, tzinfo=UTC)}, 0),
        ({"until": datetime(2026, 1, 31, 12, tzinfo=UTC)}, 5),
        ({"since": datetime(2026, 1, 31, 13, tzinfo=UTC)}, 3),
        ({"until": datetime(2026, 1, 31, 13, tzinfo=UTC)}, 10),
    ],
)
@pytest.mark.parametrize("months", [1, 2])
async def test_a_replay_from_files_publishes_what_one_from_the_database_does(
    kept: Audited, asked: Mapping[str, Any], count: int, months: int
) -> None:
    before = await replayed(kept, wish("before", **asked), OPERATION)
    assert len(before) == count
    kept = await put_away(kept, months=months)
    assert await replayed(kept, wish("after", **asked), OTHER) == before


async def test_a_replay_that_was_killed_in_a_file_goes_on_there(
    kept: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await put_away(kept)
    advance = Replays._advance

    async def killed(*given: Any) -> bool:
        await advance(*given)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Replays, "_advance", killed)
        for times in (1, 2, 3):
            with pytest.raises(Killed):
                await replayed(kept, wish("again"), OPERATION)
            assert len(await published(kept, "again")) == 2 * times
    ids = [id for id, _ in await replayed(kept, wish("again"), OPERATION)]
    assert len(ids) == len({*ids}) == len(SAID)


async def test_a_replay_whose_month_is_put_away_meanwhile_goes_on_in_the_file(
    kept: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Replays._together

    async def go(replays: Replays, messages: list[Outgoing]) -> None:
        await together(replays, messages)
        if not [*folder_of(kept).iterdir()]:
            await put_away(kept)

    monkeypatch.setattr(Replays, "_together", go)
    ids = [id for id, _ in await replayed(small(kept), wish("again"), OPERATION)]
    assert len(ids) == len({*ids}) == len(SAID)


@DAMAGES
async def test_of_a_file_that_is_not_what_was_put_away_nothing_is_published(
    kept: Audited, damage: Callable[[Path], None], kind: str, says: str
) -> None:
    kept = await put_away(kept)
    damage(folder_of(kept))
    assert await replayed(kept, wish("again"), OPERATION) == []
    problem = (await end_of(kept, OPERATION)).problem
    assert problem.type == kind
    assert problem.detail.startswith(says)
    february = wish("later", since=datetime(2026, 2, 1, tzinfo=UTC))
    assert len(await replayed(kept, february, OTHER)) == 3


async def test_a_replay_that_failed_has_ended_and_whoever_asks_again_is_told_the_same(
    kept: Audited,
) -> None:
    kept = await put_away(kept)
    content = (folder_of(kept) / JANUARY).read_bytes()
    gone(folder_of(kept))
    assert await replayed(kept, wish("again"), OPERATION) == []
    await replays_on(kept).on_stop(ordered(StopReplay(name="again"), OTHER), NO_MESSAGE)
    assert (await end_of(kept, OTHER)).problem.detail == "There is no running replay 'again'."
    (folder_of(kept) / JANUARY).write_bytes(content)
    # The command comes again: who carried it out was killed before he could acknowledge it.
    assert await replayed(kept, wish("again"), OPERATION) == []
    assert (await end_of(kept, OPERATION)).problem.detail == WHERE


async def test_a_forecast_says_what_is_in_files_and_refuses_what_is_not(kept: Audited) -> None:
    kept = await put_away(kept)
    forecast = await replays_on(kept).foretell(wish("again"))
    assert isinstance(forecast, Forecast)
    assert forecast.detail == (
        f"3 events, and what is asked for of 10 rows in {JANUARY}, to vireo.replay.again.>"
    )
    gone(folder_of(kept))
    refused = await replays_on(kept).foretell(wish("again"))
    assert isinstance(refused, Problem)
    assert (refused.type, refused.detail) == (PUT_AWAY, WHERE)
