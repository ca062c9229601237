"""The inventory's tables made anew from its events, on a real Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import services.inventory
from chassis.migrations import migrate
from chassis.postgres import Postgres, PostgresSettings, connect, load_queries
from chassis.service import Retry
from schemas import events
from schemas.problems import Problem
from schemas.queries import GetVm
from services.inventory.event_source import EventSources, Unreadable
from services.inventory.model import Arrival
from services.inventory.rebuild import Rebuild
from services.inventory.rebuild_comparison import Comparison
from tests.fixtures.inventory import (
    FACTS,
    LIFE,
    MIGRATIONS,
    VM,
    Inventory,
    accepted,
    arrivals,
    creation,
    first_schema,
    id_of,
    inventory_on,
)
from tests.fixtures.postgres import PostgresServer

OWN = load_queries(Path(services.inventory.__file__).with_name("rebuild.sql"))
NOW = datetime(2026, 3, 2, tzinfo=UTC)
OPERATION, OTHER = id_of(900), id_of(901)
HISTORY = (
    (None, events.HostRegistered(facts=FACTS)),
    *LIFE,
    *(told for number in range(10, 40, 2) for told in creation(number)),
    (id_of(50), accepted("vm.create", id_of(51))),
)


def rebuild_on(inventory: Inventory, *, batch: int = 7) -> Rebuild:
    return Rebuild(
        inventory.postgres,
        inventory.queries,
        OWN,
        EventSources(inventory.queries, stream="EVENTS", folder=None, key=None),
        stream="EVENTS",
        batch=batch,
        patience_s=30,
    )


async def nothing(_number: int, _last: int) -> None:
    """Nobody is told."""


async def indexes(postgres: Postgres) -> list[str]:
    async with postgres.connection() as connection:
        records = await connection.fetch(
            "select indexdef from pg_indexes where schemaname = 'public' order by 1"
        )
        options = await connection.fetch(
            "select relname, reloptions from pg_class join pg_namespace n on n.oid = relnamespace"
            " where nspname = 'public' and relkind = 'r' order by 1"
        )
    return [str(each) for each in (*records, *options)]


async def kept(inventory: Inventory, told: Sequence[Arrival]) -> None:
    """Told in batches of three; those in the middle come last."""
    third = len(told) // 3
    for part in (told[:third], told[2 * third :], told[third : 2 * third]):
        for at in range(0, len(part), 3):
            await inventory.store.record(part[at : at + 3])


async def test_tables_made_anew_are_the_same_and_take_the_others_place(
    inventory: Inventory,
) -> None:
    await kept(inventory, arrivals(*HISTORY))
    before = await indexes(inventory.postgres)
    tags = {name: await inventory.reads.tag(name) for name in ("vm", "host")}
    steps: list[tuple[int, int]] = []

    async def tell(number: int, last: int) -> None:
        steps.append((number, last))

    outcome = await rebuild_on(inventory).run(OPERATION, take=True, told=tell, at=NOW)
    assert outcome.same
    assert outcome.taken
    assert outcome.rows == len(HISTORY)
    assert {each.table: each.rows for each in outcome.tables} == {
        "vms": 16,
        "operations": 19,
        "hosts": 1,
        "vm_versions": 19,
        "vm_documents": 16,
        "vm_lives": 16,
        "operation_versions": 28,
        "host_versions": 1,
    }
    after = {name: await inventory.reads.tag(name) for name in ("vm", "host")}
    assert not set(tags.values()) & set(after.values())
    assert steps[0] == (6, len(HISTORY)), "whole batches, as they were stored"
    assert steps[-1] == (len(HISTORY), len(HISTORY))
    assert await indexes(inventory.postgres) == before
    assert b"deleted" in await answered(inventory)
    # Events go on being recorded into what took their place.
    await inventory.store.record(arrivals(*creation(60), first=1000))
    later = {name: await inventory.reads.tag(name) for name in ("vm", "host")}
    assert not set(after.values()) & set(later.values())
    again = await rebuild_on(inventory).run(OTHER, take=True, told=nothing, at=NOW)
    assert again.same


async def answered(inventory: Inventory) -> bytes:
    found = await inventory.reads.vm(GetVm(vm=VM))
    assert isinstance(found, bytes)
    return found


async def test_rows_that_differ_are_named_and_mended(inventory: Inventory) -> None:
    await kept(inventory, arrivals(*HISTORY))
    async with inventory.postgres.connection() as connection:
        await connection.execute("update vms set state = 'running' where id = $1", VM)
        await connection.execute("delete from operations where id = $1", id_of(10))
        await connection.execute("update hosts set site = 'elsewhere'")
        await connection.execute("delete from vm_versions where id = $1", id_of(13))
        await connection.execute("delete from vm_documents where id = $1", id_of(13))
        await connection.execute("update vm_lives set died = 'infinity' where id = $1", VM)
        await connection.execute(
            "update operation_versions set actor = 'token/other' where id = $1", id_of(12)
        )
        await connection.execute("update host_versions set since = since + interval '1 second'")
    compared = await rebuild_on(inventory).run(OPERATION, take=False, told=nothing, at=NOW)
    assert not compared.taken
    assert {each.table: [key.split()[0] for key in each.keys] for each in compared.tables} == {
        "vms": [VM],
        "operations": [id_of(10)],
        "hosts": ["h1"],
        "vm_versions": [id_of(13)],
        "vm_documents": [id_of(13)],
        "vm_lives": [VM],
        "operation_versions": [id_of(12)],
        "host_versions": ["h1", "h1"],
    }
    assert all(each.live != each.rebuilt for each in compared.tables)
    assert b'"running"' in await answered(inventory)
    await rebuild_on(inventory).run(OTHER, take=True, told=nothing, at=NOW)
    assert b'"deleted"' in await answered(inventory)
    final = await rebuild_on(inventory).run(id_of(902), take=False, told=nothing, at=NOW)
    assert final.same


async def test_how_everything_was_is_made_anew_for_the_time_before_there_was_a_history(
    postgres_database: PostgresSettings,
) -> None:
    """The first release kept none; the migration began one with what there was."""
    async with connect(postgres_database, name="inventory") as postgres:
        await first_schema(postgres, arrivals(*LIFE), per_day=5)
        await migrate(postgres, MIGRATIONS)
        inventory = inventory_on(postgres)
        before = await inventory.reads.vm(GetVm(vm=VM, at=STORED_FIRST))
        assert isinstance(before, Problem), "there is no history yet"

        await rebuild_on(inventory).run(OPERATION, take=True, told=nothing, at=NOW)
        for days, state in ((0, "running"), (1, "stopped"), (2, "deleted")):
            answer = await inventory.reads.vm(GetVm(vm=VM, at=STORED_FIRST + timedelta(days=days)))
            assert isinstance(answer, bytes)
            assert msgspec.json.decode(answer)["state"] == state
        again = await rebuild_on(inventory).run(OTHER, take=False, told=nothing, at=NOW)
        assert again.same


STORED_FIRST = datetime(2026, 1, 30, 12, tzinfo=UTC)


async def test_a_history_that_began_late_is_the_same_from_there_on(inventory: Inventory) -> None:
    told = arrivals(*HISTORY)
    await kept(inventory, told[:20])
    async with inventory.postgres.connection() as connection:
        await connection.execute(BEGIN_HISTORY_NOW)
    await kept(inventory, told[20:])
    outcome = await rebuild_on(inventory).run(OPERATION, take=True, told=nothing, at=NOW)
    assert outcome.same
    again = await rebuild_on(inventory).run(OTHER, take=False, told=nothing, at=NOW)
    assert again.same


BEGIN_HISTORY_NOW = """
    update history set begins = (select received_at from ledgers);
    truncate vm_versions, vm_documents, vm_lives, operation_versions, host_versions;
    insert into vm_lives
    select id, received_at, case when deleted then received_at else 'infinity' end
    from vms, ledgers where spec is not null;
"""
"""As the migration to it leaves a database, but for the versions with which it begins."""


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("delete from events where number in (4, 5)", "rows 4 to 5 are not in the database"),
        (
            "insert into events select stream, number, position, id, time, type, source, subject,"
            " operation, cause, actor, vm, host, received_at + interval '1 microsecond', previous,"
            " hash, envelope from events where number = 8",
            "row 8 is in the database twice",
        ),
    ],
)
async def test_of_a_record_that_is_not_whole_nothing_is_made(
    inventory: Inventory,
    postgres_server: PostgresServer,
    postgres_database: PostgresSettings,
    statement: str,
    broken: str,
) -> None:
    await kept(inventory, arrivals(*HISTORY))
    settings = postgres_server.superuser(postgres_database.database)
    async with connect(settings, name="test") as postgres, postgres.transaction() as connection:
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(statement)
    with pytest.raises(Unreadable, match=broken):
        await rebuild_on(inventory).run(OPERATION, take=True, told=nothing, at=NOW)


async def test_what_is_hashed_early_and_late_comes_to_the_same(inventory: Inventory) -> None:
    """Versions of a ledger of three pieces; one of the first differs in the end."""
    async with inventory.postgres.transaction() as connection:
        await connection.execute("select make_second_set()")
        for schema in ("public", "rebuild"):
            await connection.execute(VERSIONS.format(schema=schema))
        comparison = Comparison(connection, OWN, 30)
        whole = await comparison.of("host_versions", await comparison.early(0))
        early = await comparison.early(140_000)
        assert (early.upto, len(early.sides["host_versions"][0])) == (2, 2)
        pieces = await comparison.of("host_versions", early)
        assert pieces == whole
        assert (whole.rows, whole.differing) == (3, 0)
        await connection.execute("update rebuild.host_versions set state = 'x' where number = 1")
        changed = await comparison.of("host_versions", await comparison.early(140_000))
        assert (changed.differing, changed.keys[0].split()[-1]) == (1, "1")


VERSIONS = """
    insert into {schema}.host_versions
    select 'h1', '2026-03-01', number, 'lab', 'online', '{{}}', null, '{{}}', '2026-03-01', '2026-03-01'
    from unnest(array[1, 70000, 140000]) as number
"""


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("at", [1, 3, 6, 8])
async def test_killed_anywhere_it_goes_on_where_it_was(inventory: Inventory, at: int) -> None:
    await kept(inventory, arrivals(*HISTORY))
    seen: list[int] = []

    async def die(number: int, _last: int) -> None:
        seen.append(number)
        if len(seen) == at:
            raise Killed

    with pytest.raises(Killed):
        await rebuild_on(inventory).run(OPERATION, take=True, told=die, at=NOW)
    assert b'"deleted"' in await answered(inventory)
    resumed: list[int] = []

    async def note(number: int, _last: int) -> None:
        resumed.append(number)

    outcome = await rebuild_on(inventory).run(OPERATION, take=True, told=note, at=NOW)
    assert outcome.same
    assert outcome.rows == len(HISTORY)
    assert resumed[0] > seen[-1] or seen[-1] == len(HISTORY)


async def test_a_command_that_comes_again_comes_to_the_same(inventory: Inventory) -> None:
    await kept(inventory, arrivals(*HISTORY))
    first = await rebuild_on(inventory).run(OPERATION, take=True, told=nothing, at=NOW)
    await inventory.store.record(arrivals(*creation(60), first=1000))
    assert await rebuild_on(inventory).run(OPERATION, take=True, told=nothing, at=NOW) == first


async def test_what_others_left_unfinished_is_thrown_away(inventory: Inventory) -> None:
    await kept(inventory, arrivals(*HISTORY))

    async def die(_number: int, _last: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        await rebuild_on(inventory).run(OPERATION, take=True, told=die, at=NOW)
    outcome = await rebuild_on(inventory).run(OTHER, take=True, told=nothing, at=NOW)
    assert outcome.same
    assert outcome.rows == len(HISTORY)


async def test_events_that_come_meanwhile_are_in_it(inventory: Inventory) -> None:
    told: list[Any] = [*arrivals(*HISTORY)]
    await inventory.store.record(told[:10])
    rest = iter(told[10:])

    async def record_one(_number: int, _last: int) -> None:
        one = next(rest, None)
        if one is not None:
            await inventory.store.record([one])

    outcome = await rebuild_on(inventory, batch=1).run(
        OPERATION, take=True, told=record_one, at=NOW
    )
    assert outcome.same
    assert outcome.rows >= 20


async def test_postgres_gone_asks_for_another_try(inventory: Inventory) -> None:
    await kept(inventory, arrivals(*HISTORY))

    async def cut(_number: int, _last: int) -> None:
        async with inventory.postgres.connection() as connection:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Retry):
        await rebuild_on(inventory).run(OPERATION, take=True, told=cut, at=NOW)
    outcome = await rebuild_on(inventory).run(OPERATION, take=True, told=nothing, at=NOW)
    assert outcome.same
