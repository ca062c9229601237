"""Searching the record: every filter by an index, pages that go on, and the tree of an operation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas.causes import EffectTree
from schemas.problems import Problem, not_found
from schemas.queries import ListEvents, ShowEffects
from schemas.resources import Page
from schemas.wire import encode
from services.inventory.effect_reads import EffectReads
from services.inventory.reads import types_of
from tests.fixtures.inventory import (
    CREATE,
    LIFE,
    STOP,
    VM,
    Inventory,
    arrivals,
    arrived,
    creation,
    envelopes,
    id_of,
)

ROWS = 100_000


async def found(inventory: Inventory, **query: Any) -> list[str]:
    """The ids of the events that are listed."""
    answer = await inventory.reads.events(ListEvents(**{"limit": 1000, **query}))
    assert isinstance(answer, bytes), answer
    return [item["id"] for item in msgspec.json.decode(answer, type=Page).items]


async def test_the_record_is_searched_by_all_that_is_given(inventory: Inventory) -> None:
    said = [*envelopes(*LIFE, *creation(100))]
    said[3] = replace(said[3], actor="token/anna")
    await inventory.store.record(arrived(said))
    ids = [each.id for each in said]
    assert await found(inventory, actor="token/anna") == [ids[3]]
    assert await found(inventory, actor="token/anna", vm=id_of(101)) == []
    assert await found(inventory, types=("vm.scheduled",)) == [ids[1], ids[16]]
    assert await found(inventory, types=("vm.scheduled",), vm=VM) == [ids[1]]
    hosts = await found(inventory, types=("host.*", "vm.stopped"))
    assert hosts == [ids[9]]
    assert await found(inventory, types=("vm.flown",)) == []
    assert await found(inventory, operation=STOP) == ids[7:11]


async def test_pages_go_on_in_either_direction(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*LIFE))
    ids = [each.id for each in envelopes(*LIFE)]
    for newest, wanted in ((False, ids), (True, ids[::-1])):
        listed: list[str] = []
        after = None
        while True:
            answer = await inventory.reads.events(
                ListEvents(limit=4, newest=newest, after=after, vm=VM)
            )
            assert isinstance(answer, bytes)
            page = msgspec.json.decode(answer, type=Page)
            listed += [item["id"] for item in page.items]
            after = page.next
            if after is None:
                break
        assert listed == wanted


async def test_a_cursor_of_one_direction_is_none_of_the_other(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*LIFE))
    answer = await inventory.reads.events(ListEvents(limit=4))
    assert isinstance(answer, bytes)
    after = msgspec.json.decode(answer, type=Page).next
    refused = await inventory.reads.events(ListEvents(newest=True, after=after))
    assert isinstance(refused, Problem)


async def test_what_comes_late_is_no_hole_in_pages_already_read(inventory: Inventory) -> None:
    said = arrivals(*LIFE)
    await inventory.store.record([*said[:4], *said[5:]])
    await inventory.store.record([said[4]])
    ids = [each.envelope.id for each in said]
    assert await found(inventory) == [*ids[:4], *ids[5:], ids[4]]


async def test_times_are_those_of_storing(inventory: Inventory) -> None:
    said = arrivals(*LIFE)
    await inventory.store.record(said[:5])
    between = await now(inventory)
    await inventory.store.record(said[5:])
    ids = [each.envelope.id for each in said]
    assert await found(inventory, until=between) == ids[:5]
    assert await found(inventory, since=between) == ids[5:]
    assert await found(inventory, since=between - timedelta(days=1), until=between) == ids[:5]
    assert await found(inventory, since=datetime.now(UTC) + timedelta(days=1)) == []


async def now(inventory: Inventory) -> datetime:
    async with inventory.postgres.connection() as connection:
        at: datetime = await connection.fetchval("select clock_timestamp()")
        return at


@pytest.fixture
async def large(inventory: Inventory) -> Inventory:
    """A record of many rows in several months, by few actors on few hosts, of many VMs."""
    async with inventory.postgres.connection() as connection:
        for months in range(3):
            await connection.execute(
                "select make_events_month('events', (date_trunc('month', now() at time zone 'UTC')"
                " - make_interval(months => $1))::date)",
                months,
            )
        await connection.execute(FILL, ROWS)
        await connection.execute("update ledgers set number = $1, received_at = now()", ROWS)
        await connection.execute("analyze events")
    return inventory


FILL = """
    insert into events
    select
        'EVENTS', n, n, gen_random_uuid(), at, case when n % 5000 = 0 then 'vireo.vm.crashed.v1'
            when n % 3 = 0 then 'vireo.vm.started.v1' else 'vireo.operation.progressed.v1' end,
        '/vireo/lab/h1', 'vm/x', lpad(to_hex(n / 8), 32, '0')::uuid, null,
        'token/' || n % 100, lpad(to_hex(n / 16), 32, '0')::uuid, 'h' || n % 50, at,
        '\\x00', '\\x00', '\\x00'
    from (
        select n, now() - make_interval(secs => 30 * ($1::int - n)) as at
        from generate_series(1, $1) as n
    ) as numbered
"""

FILTERS: Mapping[str, Mapping[str, Any]] = {
    "nothing": {},
    "depth": {"after": ROWS // 2},
    "operation": {"operation": f"{ROWS // 20:032x}"},
    "vm": {"vm": f"{ROWS // 40:032x}"},
    "host": {"host": "h7"},
    "actor": {"actor": "token/7"},
    "type": {"types": types_of(("vm.crashed",))},
    "kind": {"types": types_of(("vm.*",))},
    "actor and type": {"actor": "token/7", "types": types_of(("vm.crashed",))},
    "nobody": {"actor": "token/nobody"},
    "since": {"since": timedelta(hours=3)},
    "until": {"until": timedelta(hours=3)},
    "actor since": {"actor": "token/7", "since": timedelta(hours=3)},
}


@pytest.mark.parametrize("query", ["list_events", "list_events_back"])
async def test_no_filter_reads_the_whole_record(large: Inventory, query: str) -> None:
    async with large.postgres.transaction() as connection:
        await connection.execute(large.queries["plan_for_values"])
        for name, given in FILTERS.items():
            values = [given.get(key) for key in ("after", "operation", "vm", "host", "actor")]
            times = [ago(given.get(key)) for key in ("since", "until")]
            sql = large.queries[query]
            plan = await connection.fetch(
                f"explain (analyze, timing off) {sql}", *values, given.get("types"), *times, 51
            )
            text = "\n".join(row[0] for row in plan)
            assert not SCANNED.search(text), (name, text)
            removed = [int(n) for n in re.findall(r"Removed by Filter: (\d+)", text)]
            assert sum(removed) < ROWS / 10, (name, text)


SCANNED = re.compile(r"Seq Scan on events.*actual rows=[1-9]")


def ago(span: timedelta | None) -> datetime | None:
    return None if span is None else datetime.now(UTC) - span


async def test_the_last_row_before_a_time_is_found_by_halves(large: Inventory) -> None:
    async with large.postgres.connection() as connection:
        for number in (1, 2, 777, ROWS // 2, ROWS):
            found = await connection.fetchval(
                "select last_row_before('EVENTS', received_at) from events where number = $1",
                number,
            )
            assert found == number - 1
        assert await connection.fetchval("select last_row_before('EVENTS', 'infinity')") == ROWS


async def test_the_effects_of_an_operation_are_a_tree_across_operations(
    inventory: Inventory,
) -> None:
    said = [replace(each, cause=each.operation) for each in envelopes(*LIFE, *creation(100))]
    said[7] = replace(said[7], cause=said[6].id)
    said[12] = replace(said[12], cause=said[9].id)
    await inventory.store.record(arrived(said))
    reads = EffectReads(inventory.postgres, inventory.queries, limit=100)
    answer = await reads.tree(ShowEffects(operation=CREATE))
    assert isinstance(answer, bytes)
    tree = msgspec.json.decode(answer, type=EffectTree)
    assert tree.whole
    assert (tree.operations, tree.events) == (2, 12)
    ended = next(each for each in tree.root.effects if each.name == "operation.succeeded")
    (stop,) = ended.effects
    assert (stop.name, stop.phase, stop.elapsed_ms) == ("vm.stop", "succeeded", 7000)
    stopped = next(each for each in stop.effects if each.name == "vm.stopped")
    (elsewhere,) = stopped.effects
    assert elsewhere.operation == LIFE[12][0]
    assert await reads.tree(ShowEffects(operation=VM)) == not_found("operation", VM)


async def test_a_tree_that_is_too_large_says_so(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*LIFE))
    reads = EffectReads(inventory.postgres, inventory.queries, limit=3)
    answer = await reads.tree(ShowEffects(operation=CREATE))
    assert isinstance(answer, bytes)
    tree = msgspec.json.decode(answer, type=EffectTree)
    assert (tree.whole, tree.events) == (False, 3)
    assert encode(tree)
