"""Events into Postgres: once each, with all that follows from them, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from chassis.migrations import migrate
from chassis.postgres import PostgresSettings, connect
from chassis.service import Retry
from schemas import events
from schemas.queries import GetVm, ListEvents, ListOperations, ListVms
from schemas.resources import Operation, Page, Vm
from schemas.wire import encode
from services.inventory.handlers import UNFIT
from services.inventory.model import Arrival, position_of
from tests.fixtures.inventory import (
    CREATE,
    CREATED,
    LIFE,
    SCHEDULED,
    SPEC,
    VM,
    Inventory,
    accepted,
    arrivals,
    arrived,
    body_of,
    creation,
    envelopes,
    inventory_on,
)


async def rows_of(inventory: Inventory) -> dict[str, list[dict[str, Any]]]:
    """All that is stored but the times of storing."""
    async with inventory.postgres.connection() as connection:
        found = {
            "events": await connection.fetch(
                "select stream, position, id, type, operation, vm, host, envelope"
                " from events order by position"
            ),
            "vms": await connection.fetch("select * from vms order by id"),
            "operations": await connection.fetch("select * from operations order by id"),
            "hosts": await connection.fetch("select * from hosts order by name"),
        }
    return {table: [dict(record) for record in records] for table, records in found.items()}


async def count(inventory: Inventory) -> int:
    return len((await rows_of(inventory))["events"])


async def test_a_batch_delivered_twice_changes_nothing(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*LIFE))
    once = await rows_of(inventory)
    await inventory.store.record(arrivals(*LIFE))
    assert await rows_of(inventory) == once


async def test_a_life_in_one_batch_and_event_by_event_come_to_the_same(
    inventory: Inventory, second_inventory: Inventory
) -> None:
    await inventory.store.record(arrivals(*LIFE))
    for arrival in arrivals(*LIFE):
        await second_inventory.store.record([arrival])
    assert await rows_of(second_inventory) == await rows_of(inventory)


async def test_batches_that_overlap_store_each_event_once(inventory: Inventory) -> None:
    told = arrivals(*LIFE)
    await asyncio.gather(
        *(inventory.store.record(told[start : start + 6]) for start in range(0, len(told), 3))
    )
    rows = await rows_of(inventory)
    assert [row["position"] for row in rows["events"]] == list(range(1, len(LIFE) + 1))
    assert rows["vms"][0]["state"] == "deleted"


async def test_the_bytes_of_an_event_are_kept_as_they_came(inventory: Inventory) -> None:
    said = envelopes((CREATE, accepted("vm.create")))[0]
    spaced = msgspec.json.format(encode(said), indent=2)
    await inventory.store.record([Arrival(envelope=said, raw=spaced, sequence=1)])
    assert (await rows_of(inventory))["events"][0]["envelope"] == spaced


async def test_an_event_published_again_under_a_new_sequence_is_no_new_event(
    inventory: Inventory,
) -> None:
    await inventory.store.record(arrivals(*CREATED))
    again = arrivals(*CREATED)[0]
    await inventory.store.record([msgspec.structs.replace(again, sequence=99)])
    assert await count(inventory) == len(CREATED)


async def test_a_stream_that_was_made_anew_goes_on_after_the_lost_one(
    inventory: Inventory,
) -> None:
    await inventory.store.record(arrivals(*CREATED))
    crash = events.VmCrashed(vm=VM, host="h1", generation=1, detail="panicked")
    later = arrived(envelopes((None, crash), *creation(100), first=50), first=1)
    await inventory.store.record(later)
    await inventory.store.record(later)
    rows = await rows_of(inventory)
    assert [row["position"] for row in rows["events"]][-3:] == [
        position_of(1, 1),
        position_of(1, 2),
        position_of(1, 3),
    ]
    assert rows["vms"][0]["state"] == "crashed"


async def test_the_phases_of_what_was_touched_are_told(inventory: Inventory) -> None:
    told = arrivals(*CREATED)
    assert await inventory.store.record(told[:2]) == {CREATE: "scheduled"}
    assert await inventory.store.record(told[2:]) == {CREATE: "succeeded"}
    assert await inventory.store.record(told) == {}


async def test_a_value_that_postgres_cannot_hold_leaves_nothing_behind(
    inventory: Inventory,
) -> None:
    huge = msgspec.structs.replace(SCHEDULED, generation=1 << 63)
    with pytest.raises(UNFIT, match="int64"):
        await inventory.store.record(arrivals((CREATE, accepted("vm.create")), (CREATE, huge)))
    assert await count(inventory) == 0


async def test_free_text_may_hold_what_jsonb_refuses(inventory: Inventory) -> None:
    spec = msgspec.structs.replace(SPEC, metadata={"note": "a\0b"}, labels={"tier": "w\0b"})
    await inventory.store.record(arrivals((CREATE, msgspec.structs.replace(SCHEDULED, spec=spec))))
    answer = await inventory.reads.vm(GetVm(vm=VM))
    assert isinstance(answer, bytes)
    assert msgspec.json.decode(answer, type=Vm).spec == spec


async def test_an_operations_events_are_found_under_its_vm(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*CREATED))
    page = await inventory.reads.events(ListEvents(vm=VM))
    assert isinstance(page, bytes)
    assert len(msgspec.json.decode(page, type=Page).items) == len(CREATED)


async def test_a_crash_before_the_commit_leaves_nothing(
    inventory: Inventory,
) -> None:
    """The connection dies inside the transaction: the batch is as if it had never been."""
    async with inventory.postgres.connection() as connection:
        await connection.execute(
            "create function die() returns trigger language plpgsql as"
            " $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;"
            "create trigger die before insert on vms for each row execute function die()"
        )
    with pytest.raises(Retry):
        await inventory.store.record(arrivals(*CREATED))
    async with inventory.postgres.connection() as connection:
        await connection.execute("drop trigger die on vms")
    assert await count(inventory) == 0
    await inventory.store.record(arrivals(*CREATED))
    assert await count(inventory) == len(CREATED)


async def test_two_replicas_record_together(postgres_database: PostgresSettings) -> None:
    async with (
        connect(postgres_database, name="one") as one,
        connect(postgres_database, name="two") as two,
    ):
        await asyncio.gather(
            migrate(one, "services.inventory.migrations"),
            migrate(two, "services.inventory.migrations"),
        )
        told = arrivals(*(each for number in range(10, 210, 2) for each in creation(number)))
        replicas = [inventory_on(one).store, inventory_on(two).store]
        await asyncio.gather(
            *(
                replicas[part % 2].record(told[part * 20 : part * 20 + 25])
                for part in range(len(told) // 20)
            )
        )
        reads = inventory_on(two).reads
        vms = body_of(await reads.vms(ListVms(limit=1000)))
        operations = await reads.operations(ListOperations(limit=1000))
        assert isinstance(operations, bytes)
        assert len(msgspec.json.decode(vms, type=Page).items) == 100
        found = msgspec.convert(msgspec.json.decode(operations)["items"], list[Operation])
        assert {each.phase for each in found} == {"scheduled"}
