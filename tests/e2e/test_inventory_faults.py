"""The inventory when things break beneath it: every event once, and a ledger that verifies."""

from __future__ import annotations

import asyncio
import pwd
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from os import chown
from pathlib import Path

import pytest

from chassis.bus import Bus, Outgoing
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.nats import NatsSettings, connect
from chassis.postgres import Postgres, PostgresSettings
from chassis.postgres import connect as postgres_at
from chassis.run import running
from schemas import subjects
from schemas.ledger import LedgerRow, Reached, after, end_faults, faults_of
from schemas.wire import encode
from services.inventory.handlers import build
from services.inventory.settings import InventorySettings
from tests.fixtures.inventory import (
    LIFE,
    SITE,
    VM,
    Inventory,
    Told,
    arrivals,
    creation,
    envelopes,
)
from tests.fixtures.nats import NatsServer
from tests.fixtures.postgres import UNPRIVILEGED, PostgresServer

PATIENCE_S = 30.0
TICK_S = 0.02
MANY: tuple[Told, ...] = tuple(each for number in range(10, 810, 2) for each in creation(number))
DISK_MIB = 64


@pytest.fixture
async def bus(own_nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with connect(NatsSettings(urls=(own_nats_server.url,)), name="test") as bus:
        await ensure_streams(bus, SystemClock())
        yield bus


async def tell(bus: Bus, *told: Told, first: int = 1) -> None:
    subject = f"vireo.evt.{SITE}.h1.vm.{VM}.started"
    messages = [
        Outgoing(subject=subject, data=encode(each), message_id=each.id)
        for each in envelopes(*told, first=first)
    ]
    for start in range(0, len(messages), 100):
        await bus.publish_together(messages[start : start + 100])


@asynccontextmanager
async def inventory_at(server: NatsServer, postgres: PostgresSettings) -> AsyncIterator[Postgres]:
    """The service at work, and a connection of our own to its database."""
    settings = InventorySettings(
        nats=NatsSettings(urls=(server.url,)), postgres=postgres, poll_s=0.2, batch=50, ack_wait_s=1
    )
    async with (
        running("inventory", settings, build),
        postgres_at(postgres, name="test") as ours,
    ):
        yield ours


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(TICK_S)


async def has(postgres: Postgres, rows: int) -> bool:
    async with postgres.connection() as connection:
        number: int = await connection.fetchval("select number from ledgers")
        return number >= rows


async def assert_whole(postgres: Postgres, told: tuple[Told, ...]) -> None:
    """Each event once, the chain unbroken, no gap left."""
    async with postgres.connection() as connection:
        rows = [
            LedgerRow(**record)
            for record in await connection.fetch(
                "select stream, number, position, received_at, operation::text, vm::text, host,"
                " envelope, previous, hash, id::text, time, type, source, subject, cause::text, actor"
                " from events order by number, received_at"
            )
        ]
        head = await connection.fetchrow("select number, hash from ledgers")
        gaps = await connection.fetchval("select count(*) from gaps where state <> 'filled'")
    reached, faults = Reached(), []
    for row in rows:
        faults += faults_of(reached, row)
        reached = after(reached, row)
    faults += end_faults(reached, number=head["number"], hash=head["hash"])
    assert faults == []
    assert gaps == 0
    assert sorted(row.id for row in rows) == sorted(each.id for each in envelopes(*told))


async def test_what_was_committed_and_never_acknowledged_is_stored_once(
    bus: Bus, own_nats_server: NatsServer, inventory: Inventory, postgres_database: PostgresSettings
) -> None:
    await tell(bus, *LIFE)
    await inventory.store.record(arrivals(*LIFE)[:9])
    async with inventory_at(own_nats_server, postgres_database) as postgres:
        await eventually(lambda: has(postgres, len(LIFE)))
        await assert_whole(postgres, LIFE)


async def test_delivered_twice_and_out_of_order_each_event_is_stored_once(
    inventory: Inventory,
) -> None:
    told = arrivals(*LIFE)
    for batch in (told[8:], told[2:5], told[8:], told[4:9], told[:4], told):
        await inventory.store.record(batch[::-1])
    await assert_whole(inventory.postgres, LIFE)


async def test_a_connection_cut_in_the_middle_of_a_transaction_loses_nothing(
    bus: Bus,
    own_nats_server: NatsServer,
    postgres_server: PostgresServer,
    postgres_database: PostgresSettings,
) -> None:
    async with inventory_at(own_nats_server, postgres_database) as postgres:
        superuser = postgres_server.superuser(postgres_database.database)
        async with postgres_at(superuser, name="test") as above, above.transaction() as connection:
            await connection.execute("lock table vms in exclusive mode")
            await tell(bus, *LIFE)

            async def stuck() -> bool:
                async with above.connection() as other:
                    pids = await other.fetch(
                        "select pid from pg_stat_activity where wait_event_type = 'Lock'"
                        " and application_name = 'inventory' and datname = current_database()"
                    )
                    for record in pids:
                        await other.execute("select pg_terminate_backend($1)", record["pid"])
                    return bool(pids)

            await eventually(stuck)
        await eventually(lambda: has(postgres, len(LIFE)))
        await assert_whole(postgres, LIFE)


@pytest.fixture
def small_disk(own_postgres_server: PostgresServer) -> Iterator[Path]:
    """A file system of its own with little room, for a tablespace."""
    place = own_postgres_server.place.directory / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        space = place / "space"
        space.mkdir(mode=0o700)
        owner = pwd.getpwnam(UNPRIVILEGED)
        chown(space, owner.pw_uid, owner.pw_gid)
        yield place
    finally:
        own_postgres_server.stop()
        subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_a_full_disk_stops_nothing_for_good(
    bus: Bus, own_nats_server: NatsServer, own_postgres_server: PostgresServer, small_disk: Path
) -> None:
    database = await asyncio.to_thread(own_postgres_server.database, "inventory")
    superuser = own_postgres_server.superuser("postgres")
    async with postgres_at(superuser, name="test") as above, above.connection() as connection:
        await connection.execute(f"create tablespace small location '{small_disk / 'space'}'")
        await connection.execute("alter database inventory set tablespace small")
    async with inventory_at(own_nats_server, database) as postgres:
        await tell(bus, *LIFE)
        await eventually(lambda: has(postgres, len(LIFE)))
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            try:
                while True:
                    file.write(bytes(64 * 1024))
                    file.flush()
            except OSError:
                pass
        told = (*LIFE, *MANY)
        await tell(bus, *MANY, first=len(LIFE) + 1)
        full = own_postgres_server.log

        async def refused() -> bool:
            return "No space left on device" in full.read_text()

        await eventually(refused)
        assert not await has(postgres, len(told))
        ballast.unlink()
        await eventually(lambda: has(postgres, len(told)))
        await assert_whole(postgres, told)
        assert await bus.last_sequence(subjects.DEADLETTERS) == 0
