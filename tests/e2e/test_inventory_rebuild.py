"""The inventory's tables made anew from its events, on a real Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import services.inventory
from chassis.postgres import Postgres, load_queries
from chassis.service import Retry
from schemas import events
from schemas.queries import GetVm
from services.inventory.model import Arrival
from services.inventory.rebuild import Rebuild
from tests.fixtures.inventory import (
    FACTS,
    LIFE,
    VM,
    Inventory,
    accepted,
    arrivals,
    creation,
    id_of,
)

NOW = datetime(2026, 3, 2, tzinfo=UTC)
OPERATION, OTHER = id_of(900), id_of(901)
HISTORY = (
    (None, events.HostRegistered(facts=FACTS)),
    *LIFE,
    *(told for number in range(10, 40, 2) for told in creation(number)),
    (id_of(50), accepted("vm.create", id_of(51))),
)


def rebuild_on(inventory: Inventory, *, batch: int = 7) -> Rebuild:
    own = Path(services.inventory.__file__).with_name("rebuild.sql")
    return Rebuild(
        inventory.postgres,
        inventory.queries,
        load_queries(own),
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
    """Told in three batches, the second half of which comes first."""
    third = len(told) // 3
    for part in (told[:third], told[2 * third :], told[third : 2 * third]):
        await inventory.store.record(part)


async def test_tables_made_anew_are_the_same_and_take_the_others_place(
    inventory: Inventory,
) -> None:
    await kept(inventory, arrivals(*HISTORY))
    before = await indexes(inventory.postgres)
    tags = await inventory.reads.tags(["vm", "host"])
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
    }
    after = await inventory.reads.tags(["vm", "host"])
    assert not set(tags.values()) & set(after.values())
    assert steps[0] == (7, len(HISTORY))
    assert steps[-1] == (len(HISTORY), len(HISTORY))
    assert await indexes(inventory.postgres) == before
    assert b"deleted" in await answered(inventory)
    # Events go on being recorded into what took their place.
    await inventory.store.record(arrivals(*creation(60), first=1000))
    later = await inventory.reads.tags(["vm", "host"])
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
    compared = await rebuild_on(inventory).run(OPERATION, take=False, told=nothing, at=NOW)
    assert not compared.taken
    assert {each.table: each.keys for each in compared.tables} == {
        "vms": (VM,),
        "operations": (id_of(10),),
        "hosts": ("h1",),
    }
    assert all(each.differing == 1 and each.live != each.rebuilt for each in compared.tables)
    assert b'"running"' in await answered(inventory)
    await rebuild_on(inventory).run(OTHER, take=True, told=nothing, at=NOW)
    assert b'"deleted"' in await answered(inventory)
    final = await rebuild_on(inventory).run(id_of(902), take=False, told=nothing, at=NOW)
    assert final.same


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
