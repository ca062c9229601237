"""The record in Postgres as a ledger: only added to, each row resting on the one before, none lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest
from msgspec.structs import replace

from chassis.migrations import migrate
from chassis.postgres import Connection, Postgres, PostgresSettings, connect
from schemas.ledger import Fault, LedgerRow, Reached, after, end_faults, faults_of
from services.inventory.model import position_of
from tests.fixtures.inventory import (
    CREATED,
    LIFE,
    MIGRATIONS,
    Inventory,
    arrivals,
    first_schema,
    inventory_on,
)
from tests.fixtures.postgres import PostgresServer


async def ledger(postgres: Postgres) -> list[LedgerRow]:
    async with postgres.connection() as connection:
        records = await connection.fetch(
            "select stream, number, position, received_at, operation::text, vm::text, host, envelope,"
            " previous, hash, id::text, time, type, source, subject, cause::text, actor"
            " from events order by number, received_at"
        )
    return [LedgerRow(**record) for record in records]


async def faults(postgres: Postgres) -> list[Fault]:
    found: list[Fault] = []
    reached = Reached()
    for row in await ledger(postgres):
        found += faults_of(reached, row)
        reached = after(reached, row)
    async with postgres.connection() as connection:
        head = await connection.fetchrow("select number, hash from ledgers")
    return found + end_faults(reached, number=head["number"], hash=head["hash"])


async def gaps(postgres: Postgres) -> list[tuple[int, int, str]]:
    async with postgres.connection() as connection:
        records = await connection.fetch("select first, last, state from gaps order by first")
    return [tuple(record) for record in records]


@asynccontextmanager
async def as_superuser(
    server: PostgresServer, database: PostgresSettings
) -> AsyncIterator[Connection]:
    """Whom no trigger stops."""
    settings = server.superuser(database.database)
    async with connect(settings, name="test") as postgres, postgres.transaction() as connection:
        await connection.execute("set local session_replication_role = replica")
        yield connection


async def test_what_is_stored_rests_on_what_was_stored_before(inventory: Inventory) -> None:
    told = arrivals(*LIFE)
    await inventory.store.record(told[:4])
    await inventory.store.record(told[4:5])
    await inventory.store.record(told[3:])
    rows = await ledger(inventory.postgres)
    assert [row.number for row in rows] == list(range(1, len(LIFE) + 1))
    assert await faults(inventory.postgres) == []


async def test_writers_at_the_same_time_make_one_chain(inventory: Inventory) -> None:
    told = arrivals(*LIFE)
    await asyncio.gather(
        *(inventory.store.record(told[start : start + 6]) for start in range(0, len(told), 3))
    )
    assert await faults(inventory.postgres) == []
    assert len(await ledger(inventory.postgres)) == len(LIFE)


async def test_late_events_are_added_at_the_end_and_fill_their_gap(inventory: Inventory) -> None:
    told = arrivals(*LIFE)
    await inventory.store.record([*told[:2], *told[7:]])
    assert await gaps(inventory.postgres) == [(3, 7, "open")]
    await inventory.store.record([told[4]])
    assert await gaps(inventory.postgres) == [(3, 4, "open"), (5, 5, "filled"), (6, 7, "open")]
    await inventory.store.record(told[:7])
    assert {state for _, _, state in await gaps(inventory.postgres)} == {"filled"}
    positions = [row.position for row in await ledger(inventory.postgres)]
    assert positions == [1, 2, *range(8, len(LIFE) + 1), 5, 3, 4, 6, 7]
    assert await faults(inventory.postgres) == []


@pytest.mark.parametrize(
    "statement",
    [
        "update events set actor = 'nobody'",
        "delete from events",
        "truncate events",
        "truncate events_outside",
        "delete from event_keys",
        "delete from seals",
    ],
)
async def test_the_record_is_only_ever_added_to(inventory: Inventory, statement: str) -> None:
    await inventory.store.record(arrivals(*CREATED))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with inventory.postgres.connection() as connection:
            await connection.execute(statement)
    assert await faults(inventory.postgres) == []


async def test_a_privilege_that_an_owner_takes_back_does_not_help_either(
    inventory: Inventory,
) -> None:
    await inventory.store.record(arrivals(*CREATED))
    month = f"events_{datetime.now(UTC):%Y_%m}"
    for table in ("events", month):
        for change in (f"delete from {table}", f"truncate {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="only ever added to"):
                async with inventory.postgres.transaction() as connection:
                    await connection.execute(f"grant delete, truncate on {table} to current_user")
                    await connection.execute(change)


async def test_rows_lie_in_the_month_in_which_they_were_stored(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*CREATED))
    async with inventory.postgres.connection() as connection:
        tables = await connection.fetch("select distinct tableoid::regclass::text from events")
    assert [record[0] for record in tables] == [f"events_{datetime.now(UTC):%Y_%m}"]


async def test_rows_changed_removed_and_put_in_by_hand_are_named(
    inventory: Inventory, postgres_server: PostgresServer, postgres_database: PostgresSettings
) -> None:
    await inventory.store.record(arrivals(*LIFE))
    rows = await ledger(inventory.postgres)
    async with as_superuser(postgres_server, postgres_database) as connection:
        await connection.execute("update events set actor = 'token/innocent' where number = 3")
        await connection.execute("delete from events where number in (7, 8)")
        await connection.execute(
            "insert into events select stream, number, position, gen_random_uuid(), time, type, source,"
            " subject, operation, cause, actor, vm, host, received_at + interval '1 second',"
            " previous, hash, envelope from events where number = 11"
        )
    found = await faults(inventory.postgres)
    assert [(fault.what, fault.number, fault.last) for fault in found] == [
        ("changed", 3, None),
        ("missing", 7, 8),
        ("inserted", 11, None),
    ]
    assert found[0].id == rows[2].id


async def test_a_database_of_the_first_schema_goes_through_all_migrations_while_it_is_read(
    postgres_database: PostgresSettings,
) -> None:
    told = arrivals(*LIFE)
    remade = [replace(each, sequence=position_of(1, each.sequence)) for each in told[9:]]
    async with connect(postgres_database, name="inventory") as postgres:
        await first_schema(postgres, [*told[:4], *told[6:9], *remade])
        migrated, read = asyncio.Event(), 0

        async def keep_reading() -> None:
            nonlocal read
            while not migrated.is_set():
                async with postgres.connection() as connection:
                    read += 1
                    assert await connection.fetchval("select count(*) from events") == 13

        async with asyncio.TaskGroup() as group:
            group.create_task(keep_reading())
            await migrate(postgres, MIGRATIONS)
            migrated.set()
        assert read > 0
        assert await faults(postgres) == []
        assert [row.position & 0xFFFF for row in await ledger(postgres)] == [
            *(1, 2, 3, 4, 7, 8, 9),
            *range(10, len(LIFE) + 1),
        ]
        first_gap_of_the_new = (position_of(1, 1), position_of(1, 9), "open")
        assert await gaps(postgres) == [(5, 6, "open"), first_gap_of_the_new]
        inventory = inventory_on(postgres)
        await inventory.store.record([*told[4:6], *told[9:]])
        assert await faults(postgres) == []


async def test_a_writer_of_an_older_version_fails_in_a_way_that_is_tried_again(
    inventory: Inventory,
) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with inventory.postgres.connection() as connection:
            await connection.fetchval(
                "select epoch from streams where stream = 'EVENTS' for update"
            )
