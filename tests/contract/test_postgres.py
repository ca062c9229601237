"""Postgres as services use it, on a real server: transactions, restarts, migrations."""

from __future__ import annotations

import asyncio

import pytest

from chassis.migrations import Migration, MigrationError, migrate
from chassis.postgres import Postgres, PostgresSettings, connect
from chassis.service import Retry
from tests.fixtures.postgres import PostgresServer

PACKAGE = "tests.fixtures.migrations"


async def test_a_transaction_is_kept_when_its_block_ends_and_undone_when_it_raises(
    postgres_database: PostgresSettings,
) -> None:
    async with connect(postgres_database, name="test") as postgres:
        async with postgres.transaction() as connection:
            await connection.execute("CREATE TABLE things (name text)")
            await connection.execute("INSERT INTO things VALUES ('kept')")
        with pytest.raises(LookupError):
            async with postgres.transaction() as connection:
                await connection.execute("INSERT INTO things VALUES ('undone')")
                raise LookupError
        async with postgres.connection() as connection:
            rows = await connection.fetch("SELECT name FROM things")
    assert [row["name"] for row in rows] == ["kept"]


async def test_an_absent_server_means_retry_and_a_returned_one_serves_again(
    own_postgres_server: PostgresServer,
) -> None:
    settings = await asyncio.to_thread(own_postgres_server.database, "restarted")
    async with connect(settings, name="test") as postgres:
        assert await postgres.check()
        await asyncio.to_thread(own_postgres_server.kill)
        with pytest.raises(Retry):
            async with postgres.transaction() as connection:
                await connection.execute("SELECT 1")
        assert not postgres.answers
        await asyncio.to_thread(own_postgres_server.start)
        await _until_it_answers(postgres)
        assert postgres.answers


async def test_glances_go_beside_each_other_and_come_again_after_a_restart(
    own_postgres_server: PostgresServer,
) -> None:
    settings = await asyncio.to_thread(own_postgres_server.database, "glances")
    async with connect(settings, name="test") as postgres:
        found = await asyncio.gather(*(postgres.glance("SELECT 1") for _ in range(5)))
        assert [[*record] for (record,) in found] == [[1]] * 5
        await asyncio.to_thread(own_postgres_server.kill)
        with pytest.raises(Retry):
            await postgres.glance("SELECT 1")
        assert not postgres.answers
        await asyncio.to_thread(own_postgres_server.start)
        await _until_it_answers(postgres)
        assert [*(await postgres.glance("SELECT 2"))[0]] == [2]
    with pytest.raises(Retry):
        await postgres.glance("SELECT 1")


async def test_whatever_becomes_of_a_reader_whose_session_is_ended_means_retry(
    postgres_database: PostgresSettings,
) -> None:
    """Its farewell comes before the end of the connection; asyncpg takes it in between for busy."""
    async with connect(postgres_database, name="test") as postgres:
        readers = [asyncio.create_task(_read_on(postgres)) for _ in range(4)]
        async with connect(postgres_database, name="ender") as ender:
            for _ in range(200):
                async with ender.connection() as connection:
                    await connection.fetch(END_OTHERS)
        for reader in readers:
            reader.cancel()
        ends = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 4


END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'test'
"""


async def _read_on(postgres: Postgres) -> None:
    while True:
        try:
            async with postgres.connection() as connection:
                await connection.fetchval("SELECT count(*) FROM generate_series(1, 1000)")
            async with postgres.transaction(readonly=True) as connection:
                await connection.fetchval("SELECT $1::int", 1)
        except Retry:
            continue


async def test_a_transaction_cut_off_in_its_middle_means_retry(
    own_postgres_server: PostgresServer,
) -> None:
    settings = await asyncio.to_thread(own_postgres_server.database, "cut")
    async with connect(settings, name="test") as postgres:
        with pytest.raises(Retry):
            async with postgres.transaction() as connection:
                await connection.execute("SELECT 1")
                await asyncio.to_thread(own_postgres_server.kill)
                await connection.execute("SELECT 2")


async def test_connecting_waits_for_a_server_that_is_not_there_yet(
    own_postgres_server: PostgresServer,
) -> None:
    settings = await asyncio.to_thread(own_postgres_server.database, "late")
    await asyncio.to_thread(own_postgres_server.stop)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(own_postgres_server.start))
        async with connect(settings, name="test") as postgres:
            assert await postgres.check()


async def test_a_wrong_call_is_a_bug_and_no_reason_to_retry(
    postgres_database: PostgresSettings,
) -> None:
    async with (
        connect(postgres_database, name="test") as postgres,
        postgres.connection() as connection,
    ):
        with pytest.raises(Exception, match="expects 1 argument"):
            await connection.fetchval("SELECT $1::int")


async def test_migrations_are_applied_once_and_in_order_by_whoever_comes_first(
    postgres_database: PostgresSettings,
) -> None:
    async with connect(postgres_database, name="test") as postgres:
        applied = await asyncio.gather(*(migrate(postgres, PACKAGE) for _ in range(4)))
        assert sorted(len(each) for each in applied) == [0, 0, 0, 2]
        async with postgres.connection() as connection:
            rows = await connection.fetch("SELECT name, colour FROM birds")
    assert [(row["name"], row["colour"]) for row in rows] == [("vireo", "green")]


async def test_a_migration_that_was_changed_after_it_was_applied_is_an_error(
    postgres_database: PostgresSettings,
) -> None:
    async with connect(postgres_database, name="test") as postgres:
        await migrate(postgres, PACKAGE)
        async with postgres.connection() as connection:
            await connection.execute("UPDATE vireo_migrations SET checksum = 'x' WHERE number = 1")
        with pytest.raises(MigrationError, match="changed after they were applied: 0001_birds"):
            await migrate(postgres, PACKAGE)


async def test_a_database_that_is_ahead_of_the_program_is_an_error(
    postgres_database: PostgresSettings,
) -> None:
    async with connect(postgres_database, name="test") as postgres:
        await migrate(postgres, PACKAGE)
        async with postgres.connection() as connection:
            await connection.execute(
                "INSERT INTO vireo_migrations VALUES ($1, 3, 'future', 'y')", PACKAGE
            )
        with pytest.raises(MigrationError, match="ahead of this program"):
            await migrate(postgres, PACKAGE)


def test_a_migration_knows_its_checksum() -> None:
    one = Migration(number=1, name="a", sql="SELECT 1")
    assert one.checksum == Migration(number=2, name="b", sql="SELECT 1").checksum
    assert one.checksum != Migration(number=1, name="a", sql="SELECT 2").checksum


async def _until_it_answers(postgres: Postgres) -> None:
    async with asyncio.timeout(10):
        while not await postgres.check():
            await asyncio.sleep(0.05)
