"""The fleet as it was: what is read of a time follows from the events that were stored by then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct, structs

from chassis.migrations import migrate
from chassis.postgres import PostgresSettings, connect
from chassis.service import Tagged
from schemas import events
from schemas.problems import Problem
from schemas.queries import (
    GetHost,
    GetVm,
    ListHosts,
    ListOperations,
    ListVms,
)
from schemas.resources import GuestFacts, HostConfig, Page
from services.inventory import answers
from services.inventory.decide import fact, project_all
from services.inventory.model import Arrival, HostRow, OperationRow, Tables, VmRow, position_of
from services.inventory.store import Store
from services.inventory.trail import trail
from tests.fixtures.inventory import (
    CREATE,
    CREATED,
    FACTS,
    LIFE,
    MIGRATIONS,
    PLACEMENT,
    SPEC,
    VM,
    Inventory,
    Told,
    accepted,
    arrivals,
    body_of,
    creation,
    id_of,
    inventory_on,
)
from tests.fixtures.postgres import PostgresServer

VMS = [id_of(number) for number in (10, 11, 12)]
OPERATIONS = [id_of(number) for number in (20, 21, 22, 23)]
HOSTS = ["h1", "h2"]


def about_vms() -> st.SearchStrategy[Any]:
    held = {
        "vm": st.sampled_from(VMS),
        "host": st.sampled_from(HOSTS),
        "generation": st.integers(1, 4),
    }
    powers = st.sampled_from(["running", "stopped", "paused"])
    specs = st.builds(
        lambda name, power, cpus: structs.replace(SPEC, name=name, power=power, cpus=cpus),
        st.sampled_from(["web", "db"]),
        powers,
        st.integers(1, 4),
    )
    guests = st.builds(GuestFacts, hostname=st.sampled_from(["a", "b"]))
    return st.one_of(
        st.builds(events.VmScheduled, **held, spec=specs, placement=st.just(PLACEMENT)),
        st.builds(events.VmReassigned, **held, power=powers, ended=st.booleans()),
        *(
            st.builds(kind, **held)
            for kind in (events.VmDefined, events.VmStarted, events.VmPaused, events.VmDeleted)
        ),
        st.builds(events.VmStopped, **held, reason=st.just("guest")),
        st.builds(events.VmCrashed, **held, detail=st.just("panic")),
        st.builds(events.VmFailed, **held, detail=st.just("no room")),
        st.builds(events.VmGuestChanged, vm=held["vm"], host=held["host"], guest=guests),
    )


def about_operations() -> st.SearchStrategy[Any]:
    commands = st.sampled_from(["vm.create", "vm.stop", "vm.delete"])
    return st.one_of(
        st.builds(lambda command, vm: accepted(command, vm), commands, st.sampled_from(VMS)),
        st.builds(
            events.OperationProgressed, step=st.integers(0, 2), of=st.just(2), detail=st.just("")
        ),
        st.just(events.OperationSucceeded(detail="done")),
        st.just(
            events.OperationFailed(problem=Problem(type="about:blank", title="No", status=409))
        ),
    )


def about_hosts() -> st.SearchStrategy[Any]:
    hosts = st.sampled_from(HOSTS)
    return st.one_of(
        st.builds(
            lambda host, cpus: events.HostRegistered(
                facts=structs.replace(FACTS, host=host, cpus=cpus)
            ),
            hosts,
            st.integers(1, 8),
        ),
        st.builds(events.HostSilent, host=hosts, silent_s=st.just(9.0)),
        st.builds(events.HostReturned, host=hosts),
        st.builds(
            lambda host, generation: events.HostConfigured(
                config=HostConfig(host=host, generation=generation, labels={"g": str(generation)})
            ),
            hosts,
            st.integers(1, 3),
        ),
    )


TOLD: st.SearchStrategy[Told] = st.tuples(
    st.sampled_from(OPERATIONS), st.one_of(about_vms(), about_operations())
) | st.tuples(st.none(), st.one_of(about_hosts(), about_vms()))


@st.composite
def histories(draw: st.DrawFn) -> list[list[Arrival]]:
    """Events that come in batches, some of them later than those after them in the stream."""
    told = draw(st.lists(TOLD, min_size=4, max_size=30))
    ordered = arrivals(*told)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(ordered) - 1))
        ordered.append(ordered.pop(place))
    batches: list[list[Arrival]] = []
    while ordered:
        size = draw(st.integers(1, 6))
        batches.append(sorted(ordered[:size], key=lambda each: each.sequence))
        ordered = ordered[size:]
    return batches


CLEAN = (
    "truncate events, event_keys, gaps, vms, operations, hosts, vm_versions, vm_documents, vm_lives,"
    " operation_versions, host_versions",
    "update ledgers set epoch = 0, number = 0, position = 0, received_at = 'epoch',"
    " hash = decode(repeat('00', 32), 'hex')",
)


@given(histories())
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_fleet_at_a_time_is_what_follows_from_the_events_until_then(
    postgres_server: PostgresServer,
    postgres_database: PostgresSettings,
    history: list[list[Arrival]],
) -> None:
    asyncio.run(check(postgres_server, postgres_database, history))


async def check(
    server: PostgresServer, database: PostgresSettings, history: list[list[Arrival]]
) -> None:
    superuser = server.superuser(database.database)
    async with connect(database, name="inventory") as postgres:
        await migrate(postgres, MIGRATIONS)
        async with connect(superuser, name="test") as over, over.transaction() as connection:
            await connection.execute("set local session_replication_role = replica")
            for statement in CLEAN:
                await connection.execute(statement)
        inventory = inventory_on(postgres)
        stored: list[Arrival] = []
        moments: list[tuple[datetime, list[Arrival]]] = []
        for batch in history:
            await inventory.store.record(batch)
            stored = [*stored, *batch]
            moments.append((await last_stored(inventory), stored))
        for moment, by_then in moments:
            await compare(inventory, moment, by_then)


async def last_stored(inventory: Inventory) -> datetime:
    async with inventory.postgres.connection() as connection:
        at: datetime = await connection.fetchval("select received_at from ledgers")
        return at


async def compare(inventory: Inventory, at: datetime, stored: Sequence[Arrival]) -> None:
    """Every read of that time with what is made from scratch of the events stored by then."""
    facts = [fact(each.envelope, position_of(0, each.sequence)) for each in stored]
    then = project_all(Tables(), facts)
    shown = {id: row for id, row in then.vms.items() if row.spec is not None}
    reads = inventory.reads
    for query, wanted in (
        (ListVms(at=at), lambda row: not row.deleted),
        (ListVms(at=at, state="deleted"), lambda row: row.deleted),
        (ListVms(at=at, host="h1"), lambda row: not row.deleted and row.host == "h1"),
        (ListVms(at=at, name="web"), lambda row: not row.deleted and row.name == "web"),
        (ListVms(at=at, state="running"), lambda row: row.state == "running"),
    ):
        assert listed(await reads.vms(query)) == [
            vm_of(row) for row in newest_first(shown) if wanted(row)
        ]
    for id, row in shown.items():
        assert plain(await reads.vm(GetVm(vm=id, at=at))) == vm_of(row)
    hosts = [host_of(row, shown.values()) for _, row in sorted(then.hosts.items()) if row.facts]
    assert listed(await reads.hosts(ListHosts(at=at))) == hosts
    assert listed(await reads.operations(ListOperations(at=at))) == [
        operation_of(row, shown, placed=False) for row in newest_first(then.operations)
    ]
    for id, operation in then.operations.items():
        said = sorted(
            (each for each in stored if each.envelope.operation == id),
            key=lambda each: each.sequence,
        )
        steps = trail([each.envelope for each in said])
        found = await inventory.reads.past_operation(id, at)
        assert plain(found) == plain_of(operation_of(operation, shown, steps=steps, raw=True))


def newest_first(rows: Mapping[str, Any]) -> list[Any]:
    return [rows[id] for id in sorted(rows, reverse=True)]


def vm_of(row: VmRow) -> Any:
    fields = {name: getattr(row, name) for name in answers.VmAnswer.__struct_fields__}
    return plain_of(answers.vm(fields))


def host_of(row: HostRow, vms: Iterable[VmRow]) -> Any:
    mine = [vm for vm in vms if vm.host == row.name and not vm.deleted]
    reserved = {
        "cpus": sum(vm.cpus for vm in mine),
        "memory_mib": sum(vm.memory_mib for vm in mine),
        "disk_gib": sum(vm.disk_gib for vm in mine),
        "vms": len(mine),
        "unsized": msgspec.json.encode([msgspec.json.decode(vm.unsized) for vm in mine]).decode(),
    }
    names = ("name", "site", "state", "facts", "config", "registered_at", "updated_at")
    fields = {name: getattr(row, name) for name in names}
    return plain_of(answers.host(fields, reserved if mine else None))


def operation_of(
    row: OperationRow,
    vms: Mapping[str, VmRow],
    *,
    placed: bool = True,
    steps: Any = (),
    raw: bool = False,
) -> Any:
    names = set(answers.OperationAnswer.__struct_fields__) - {"name", "trail", "members"}
    fields = {name: getattr(row, name) for name in names}
    named = vms[row.target].name if row.target in vms else None
    fields |= {"name": named} | ({} if placed else {"placement": None})
    answer = answers.operation(fields, steps)
    return answer if raw else plain_of(answer)


def plain_of(answer: Struct) -> Any:
    return msgspec.json.decode(answers.encode(answer))


def plain(answer: bytes | Tagged | Problem) -> Any:
    return msgspec.json.decode(body_of(answer))


def listed(answer: bytes | Tagged | Problem) -> list[Any]:
    found: list[Any] = plain(answer)["items"]
    return found


async def told_until(inventory: Inventory, count: int) -> datetime:
    """Store the first events of a life; the time at which the last of them was stored."""
    await inventory.store.record(arrivals(*LIFE[:count]))
    return await last_stored(inventory)


async def test_a_vm_is_found_by_the_name_it_had_then(inventory: Inventory) -> None:
    lived = await told_until(inventory, len(CREATED))
    gone = await told_until(inventory, len(LIFE))
    await inventory.store.record(arrivals(*creation(100, name="web-1"), first=len(LIFE) + 1))
    reads = inventory.reads
    assert plain(await reads.vm(GetVm(vm="web-1", at=lived)))["id"] == VM
    assert isinstance(await reads.vm(GetVm(vm="web-1", at=gone)), Problem)
    assert plain(await reads.vm(GetVm(vm="web-1")))["id"] == id_of(101)
    assert plain(await reads.vm(GetVm(vm=VM, at=gone)))["state"] == "deleted"


async def test_what_was_yet_to_come_is_not_there(inventory: Inventory) -> None:
    await told_until(inventory, len(CREATED))
    before = datetime(2000, 1, 1, tzinfo=UTC)
    reads = inventory.reads
    assert listed(await reads.vms(ListVms(at=before))) == []
    assert listed(await reads.operations(ListOperations(at=before))) == []
    for answer in (
        await reads.vm(GetVm(vm=VM, at=before)),
        await reads.host(GetHost(host="h1", at=before)),
        await reads.past_operation(CREATE, before),
    ):
        assert isinstance(answer, Problem)
        assert answer.status == 404


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=400)])
async def test_a_time_that_is_yet_to_come_is_refused(
    inventory: Inventory, ahead: timedelta
) -> None:
    answer = await inventory.reads.vms(ListVms(at=datetime.now(UTC) + ahead))
    assert isinstance(answer, Problem)
    assert [(each.field, each.detail) for each in answer.errors] == [("query/at", "is yet to come")]


async def test_a_history_that_begins_later_says_when(
    postgres_database: PostgresSettings,
) -> None:
    """A record that was begun before versions were kept: from then on they are."""
    async with connect(postgres_database, name="inventory") as postgres:
        await migrate(postgres, MIGRATIONS, last=6)
        old = inventory_on(postgres)
        await record_as_before(old, arrivals(*CREATED))
        await migrate(postgres, MIGRATIONS)
        inventory = inventory_on(postgres)
        begins = await last_stored(inventory)
        assert plain(await inventory.reads.vm(GetVm(vm=VM, at=begins)))["state"] == "running"
        refused = await inventory.reads.vm(GetVm(vm=VM, at=begins - timedelta(seconds=1)))
        assert isinstance(refused, Problem)
        assert refused.errors[0].detail == f"the history begins at {begins.isoformat()}"


async def record_as_before(inventory: Inventory, said: Sequence[Arrival]) -> None:
    """As the release before did: without versions."""
    queries = {
        **inventory.queries,
        "remember": "select $1::timestamptz, $2::bigint"
        + "".join(f", ${number}::text[]" for number in range(3, 11)),
    }
    await Store(inventory.postgres, queries, "EVENTS").record(said)


async def test_pages_of_a_time_go_on_where_they_ended(inventory: Inventory) -> None:
    told = [each for number in range(100, 120, 2) for each in creation(number)]
    await inventory.store.record(arrivals(*told))
    at = await last_stored(inventory)
    await inventory.store.record(arrivals(*creation(200), first=100))
    seen: list[str] = []
    after = None
    while True:
        answer = await inventory.reads.vms(ListVms(at=at, limit=3, after=after))
        page = msgspec.convert(plain(answer), Page)
        seen += [item["id"] for item in page.items]
        after = page.next
        if after is None:
            break
    assert seen == [id_of(number + 1) for number in range(118, 98, -2)]
