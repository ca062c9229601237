"""Answers of the inventory: the resources of the language, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from chassis.service import Retry, Tagged
from schemas import events, resources
from schemas.problems import Problem, not_found
from schemas.queries import GetHost, GetVm, ListEvents, ListHosts, ListOperations, ListVms
from schemas.resources import (
    GuestFacts,
    Host,
    HostConfig,
    Operation,
    OperationStep,
    Page,
    Vm,
)
from schemas.wire import encode
from services.inventory import answers
from tests.fixtures.inventory import (
    CREATE,
    CREATED,
    FACTS,
    LIFE,
    PLACEMENT,
    SITE,
    SPEC,
    STOP,
    VM,
    Inventory,
    Told,
    accepted,
    arrivals,
    at,
    body_of,
    creation,
    envelopes,
    id_of,
    inventory_on,
    progressed,
)


def read(answer: bytes | Tagged | Problem, resource: type[Any]) -> Any:
    return msgspec.json.decode(body_of(answer), type=resource)


def items(answer: bytes | Tagged | Problem, resource: type[Any]) -> list[Any]:
    return msgspec.convert(read(answer, Page).items, list[resource])  # type: ignore[valid-type]


@pytest.mark.parametrize(
    ("answer", "resource"),
    [
        (answers.VmAnswer, resources.Vm),
        (answers.HostAnswer, resources.Host),
        (answers.OperationAnswer, resources.Operation),
    ],
)
def test_answers_have_the_fields_of_the_resources(
    answer: type[Struct], resource: type[Struct]
) -> None:
    assert answer.__struct_fields__ == resource.__struct_fields__
    assert answer.__struct_config__.omit_defaults == resource.__struct_config__.omit_defaults


async def test_a_vm_reads_as_it_was_told(inventory: Inventory) -> None:
    guest = GuestFacts(hostname="web-1", os="Tiny", addresses=("10.0.0.2",))
    said = events.VmGuestChanged(vm=VM, host="h1", guest=guest)
    await inventory.store.record(arrivals(*CREATED, (None, said)))
    assert read(await inventory.reads.vm(GetVm(vm="web-1")), Vm) == Vm(
        id=VM,
        site=SITE,
        spec=SPEC,
        state="running",
        power="running",
        host="h1",
        generation=1,
        created_at=at(2),
        updated_at=at(8),
        guest=guest,
        placement=PLACEMENT,
        operation=CREATE,
    )


async def test_a_deleted_vm_is_known_by_its_id_and_no_more_by_its_name(
    inventory: Inventory,
) -> None:
    await inventory.store.record(arrivals(*LIFE))
    assert read(await inventory.reads.vm(GetVm(vm=VM)), Vm).state == "deleted"
    assert await inventory.reads.vm(GetVm(vm="web-1")) == not_found("VM", "web-1")


async def test_a_name_belongs_to_the_vm_that_lives(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*LIFE, *creation(100, name="web-1")))
    assert read(await inventory.reads.vm(GetVm(vm="web-1")), Vm).id == id_of(101)


async def test_deleted_vms_are_listed_only_if_asked_for(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*LIFE, *creation(100)))
    living = items(await inventory.reads.vms(ListVms()), Vm)
    deleted = items(await inventory.reads.vms(ListVms(state="deleted")), Vm)
    assert ([vm.id for vm in living], [vm.id for vm in deleted]) == ([id_of(101)], [VM])


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (ListVms(), [5, 4, 3, 2, 1]),
        (ListVms(host="h2"), [4, 2]),
        (ListVms(name="vm-30"), [3]),
        (ListVms(labels={"tier": "web"}), [5, 3, 1]),
        (ListVms(labels={"tier": "web", "odd": "no"}), []),
        (ListVms(state="running"), []),
        (ListVms(host="h1", labels={"tier": "web"}, state="scheduled"), [5, 3, 1]),
    ],
)
async def test_vms_are_filtered(inventory: Inventory, query: ListVms, numbers: list[int]) -> None:
    for number in range(1, 6):
        odd = number % 2 == 1
        told = creation(
            number * 10, host="h1" if odd else "h2", labels={"tier": "web"} if odd else {}
        )
        await inventory.store.record(arrivals(*told, first=number * 10))
    found = items(await inventory.reads.vms(query), Vm)
    assert [vm.id for vm in found] == [id_of(number * 10 + 1) for number in numbers]


async def test_pages_follow_one_another_without_gap_or_repeat(inventory: Inventory) -> None:
    told = [each for number in range(10, 60, 2) for each in creation(number)]
    await inventory.store.record(arrivals(*told))
    found: list[str] = []
    sizes: list[int] = []
    after: str | None = None
    while True:
        page = read(await inventory.reads.vms(ListVms(limit=10, after=after)), Page)
        found += [item["id"] for item in page.items]
        sizes.append(len(page.items))
        after = page.next
        if after is None:
            break
        # What comes meanwhile is newer and belongs before the first page.
        await inventory.store.record(
            arrivals(*creation(1000 * len(sizes)), first=1000 * len(sizes))
        )
    assert found == [id_of(number + 1) for number in range(58, 8, -2)]
    assert sizes == [10, 10, 5]


async def test_a_page_is_cut_to_what_fits_a_message(inventory: Inventory) -> None:
    await inventory.store.record(
        arrivals(*(each for number in range(10, 30, 2) for each in creation(number)))
    )
    reads = inventory_on(inventory.postgres, page_bytes=2000).reads
    first = body_of(await reads.vms(ListVms()))
    page = read(first, Page)
    assert len(first) < 2200
    assert page.next is not None
    assert 1 <= len(page.items) < 10
    rest = read(await inventory.reads.vms(ListVms(after=page.next)), Page)
    assert len(page.items) + len(rest.items) == 10


@pytest.mark.parametrize("after", ["!", "bm9uc2Vuc2U", "WyJob3N0IiwiaDEiXQ", "x" * 200])
async def test_a_bad_cursor_is_a_problem_that_names_the_field(
    inventory: Inventory, after: str
) -> None:
    answer = await inventory.reads.vms(ListVms(after=after))
    assert isinstance(answer, Problem)
    assert (answer.type, [error.field for error in answer.errors]) == (
        "urn:vireo:problem:invalid-request",
        ["query/after"],
    )


async def test_a_host_reads_with_what_its_vms_take(inventory: Inventory) -> None:
    config = HostConfig(host="h1", generation=1, maintenance=True, labels={"rack": "b"})
    await inventory.store.record(
        arrivals(
            (None, events.HostRegistered(facts=FACTS)),
            (id_of(900), events.HostConfigured(config=config)),
            *CREATED,
            *creation(100),
            *creation(200, host="h2"),
        )
    )
    assert read(await inventory.reads.host(GetHost(host="h1")), Host) == Host(
        name="h1",
        site=SITE,
        state="online",
        facts=FACTS,
        config=config,
        reserved_cpus=3,
        reserved_memory_mib=1024 + 512,
        # 10 GiB of data, the image's own size for the disk without one, and 5 of the other VM
        reserved_disk_gib=10 + 1 + 5,
        vms=2,
        registered_at=at(1),
        updated_at=at(2),
    )


async def test_a_deleted_vm_takes_nothing_of_its_host(inventory: Inventory) -> None:
    registered = (None, events.HostRegistered(facts=FACTS))
    await inventory.store.record(arrivals(registered, *LIFE))
    host = read(await inventory.reads.host(GetHost(host="h1")), Host)
    assert (host.vms, host.reserved_cpus, host.reserved_disk_gib) == (0, 0, 0)
    assert host.config == HostConfig(host="h1")


async def test_hosts_are_listed_by_name_and_filtered(inventory: Inventory) -> None:
    facts = [msgspec.structs.replace(FACTS, host=f"h{n}", labels={"n": str(n)}) for n in (3, 1, 2)]
    await inventory.store.record(
        arrivals(
            *((None, events.HostRegistered(facts=each)) for each in facts),
            (None, events.HostSilent(host="h2", silent_s=12)),
        )
    )

    async def names(query: ListHosts) -> list[str]:
        return [host.name for host in items(await inventory.reads.hosts(query), Host)]

    assert await names(ListHosts()) == ["h1", "h2", "h3"]
    assert await names(ListHosts(state="silent")) == ["h2"]
    assert await names(ListHosts(labels={"n": "3"})) == ["h3"]
    first = read(await inventory.reads.hosts(ListHosts(limit=2)), Page)
    assert await names(ListHosts(after=first.next)) == ["h3"]


async def test_an_unknown_host_is_a_problem(inventory: Inventory) -> None:
    assert await inventory.reads.host(GetHost(host="h9")) == not_found("host", "h9")


async def test_an_operation_reads_with_its_trail(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*CREATED))
    told = [
        ("operation.accepted", f"vm.create {VM}"),
        ("vm.scheduled", "on h1, of 2 considered"),
        ("operation.progressed", "1/2 step 1"),
        ("vm.defined", ""),
        ("vm.started", ""),
        ("operation.progressed", "2/2 step 2"),
        ("operation.succeeded", "done"),
    ]
    assert read((await inventory.reads.trails([CREATE]))[CREATE], Operation) == Operation(
        id=CREATE,
        command="vm.create",
        kind="vm",
        target=VM,
        name=SPEC.name,
        phase="succeeded",
        actor="token/admin",
        created_at=at(1),
        updated_at=at(7),
        progress=1.0,
        detail="done",
        host="h1",
        trail=tuple(
            OperationStep(
                event=event,
                source="h1",
                at=at(number),
                elapsed_ms=(number - 1) * 1000.0,
                detail=detail,
            )
            for number, (event, detail) in enumerate(told, start=1)
        ),
        placement=PLACEMENT,
    )


async def test_an_operation_whose_end_came_first_is_not_known_until_its_beginning_came(
    inventory: Inventory,
) -> None:
    *beginning, end = arrivals(*CREATED)
    assert await inventory.store.record([end]) == {}
    assert await inventory.reads.phases([CREATE]) == {}
    assert await inventory.store.record(beginning) == {CREATE: "succeeded"}
    assert await inventory.reads.phases([CREATE]) == {CREATE: "succeeded"}


async def test_a_failed_operation_reads_with_its_problem(inventory: Inventory) -> None:
    problem = Problem(
        type="urn:vireo:problem:unplaceable",
        title="No host fits",
        status=409,
        reasons={"h1": "in maintenance"},
    )
    asked = events.OperationAccepted(
        command="vm.create", kind="vm", target=VM, request={"vm": VM, "spec": {"name": "big"}}
    )
    await inventory.store.record(
        # The scheduler may be faster than the gateway's own event.
        arrivals((CREATE, events.OperationFailed(problem=problem)), (CREATE, asked))
    )
    operation = read((await inventory.reads.trails([CREATE]))[CREATE], Operation)
    assert (operation.phase, operation.problem) == ("failed", problem)
    assert (operation.target, operation.name) == (VM, "big")


async def test_operations_are_listed_by_the_names_of_their_vms(inventory: Inventory) -> None:
    host = events.OperationAccepted(
        command="host.configure", kind="host", target="h1", request={"host": "h1"}
    )
    await inventory.store.record(arrivals(*CREATED, (id_of(900), host)))

    found = items(await inventory.reads.operations(ListOperations()), Operation)

    assert {(one.command, one.target, one.name) for one in found} == {
        ("vm.create", VM, SPEC.name),
        ("host.configure", "h1", ""),
    }


async def test_operations_are_listed_newest_first_and_filtered(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*LIFE, *creation(100)))

    async def commands(query: ListOperations) -> list[str]:
        found = items(await inventory.reads.operations(query), Operation)
        return [operation.command for operation in found]

    assert await commands(ListOperations()) == ["vm.create", "vm.delete", "vm.stop", "vm.create"]
    assert await commands(ListOperations(target=VM)) == ["vm.delete", "vm.stop", "vm.create"]
    assert await commands(ListOperations(phase="scheduled")) == ["vm.create"]
    assert await commands(ListOperations(actor="nobody")) == []
    assert await commands(ListOperations(target=VM, limit=1)) == ["vm.delete"]


async def test_events_are_listed_oldest_first_as_they_were_published(
    inventory: Inventory,
) -> None:
    await inventory.store.record(arrivals(*LIFE, *creation(100)))
    said = [msgspec.json.decode(encode(each)) for each in envelopes(*LIFE)]
    mine = await inventory.reads.events(ListEvents(vm=VM, limit=1000))
    assert list(read(mine, Page).items) == said
    first = read(await inventory.reads.events(ListEvents(vm=VM, limit=10)), Page)
    second = read(await inventory.reads.events(ListEvents(vm=VM, after=first.next)), Page)
    assert [*first.items, *second.items] == said
    of_one = await inventory.reads.events(ListEvents(operation=CREATE))
    assert list(read(of_one, Page).items) == said[:7]


@pytest.mark.parametrize(
    ("query", "values", "index"),
    [
        ("list_vms", (None, None, None, None, None, 51), "vms_pkey"),
        ("list_vms", (id_of(9), None, None, None, None, 51), "vms_pkey"),
        ("list_vms", (None, "h1", None, None, None, 51), "vms_by_host"),
        ("list_vms", (None, None, "web-1", None, None, 51), "vms_by_name"),
        ("list_operations", (None, None, None, None, 51), "operations_pkey"),
        ("list_operations", (None, VM, None, None, 51), "operations_by_target"),
        ("list_operations", (None, None, None, "token/anna", 51), "operations_by_actor"),
    ],
)
async def test_lists_are_read_in_the_order_of_an_index(
    inventory: Inventory, query: str, values: tuple[Any, ...], index: str
) -> None:
    """Nothing is sorted: a page costs what it shows."""
    async with inventory.postgres.transaction() as connection:
        await connection.execute("set local enable_seqscan = off")
        await connection.execute("set local enable_bitmapscan = off")
        await connection.execute(inventory.queries["plan_for_values"])
        plan = await connection.fetch(f"explain {inventory.queries[query]}", *values)
    text = "\n".join(record[0] for record in plan)
    assert index in text
    assert "Sort" not in text


async def test_a_read_without_postgres_asks_for_another_try(inventory: Inventory) -> None:
    await inventory.postgres.close()
    with pytest.raises(Retry):
        await inventory.reads.vms(ListVms())


# tags


async def tags(inventory: Inventory) -> dict[str, str]:
    found = {name: await inventory.reads.tag(name) for name in ("vm", "host")}
    for listed in (await inventory.reads.vms(ListVms()), await inventory.reads.hosts(ListHosts())):
        assert isinstance(listed, Tagged)
        assert listed.tag in found.values()
    return found


@pytest.mark.parametrize(
    ("told", "changed"),
    [
        (creation(100), {"vm", "host"}),
        ([(STOP, events.VmStopped(vm=VM, host="h1", generation=1, reason="wish"))], {"vm", "host"}),
        ([(None, events.HostRegistered(facts=FACTS))], {"host"}),
        ([(CREATE, progressed(2, 2))], set()),
        ([(STOP, accepted("vm.stop"))], set()),
    ],
    ids=["a new VM", "a VM", "a host", "an operation", "a new operation"],
)
async def test_a_list_has_another_tag_once_what_it_shows_has_changed(
    inventory: Inventory, told: Sequence[Told], changed: set[str]
) -> None:
    await inventory.store.record(arrivals(*CREATED))
    before = await tags(inventory)
    await inventory.store.record(arrivals(*told, first=100))
    after = await tags(inventory)
    assert {name for name in before if before[name] != after[name]} == changed
    await inventory.store.record(arrivals(*told, first=100))
    assert await tags(inventory) == after


async def test_a_row_changed_by_hand_changes_the_tags_too(inventory: Inventory) -> None:
    await inventory.store.record(arrivals(*CREATED))
    seen = [await tags(inventory)]
    async with inventory.postgres.connection() as connection:
        for statement in ("update vms set problem = 'odd'", "delete from vms", "truncate hosts"):
            await connection.execute(statement)
            seen.append(await tags(inventory))
    assert len({each["vm"] for each in seen}) == 3
    assert len({each["host"] for each in seen}) == 4


async def test_a_tag_belongs_to_the_moment_that_was_read(inventory: Inventory) -> None:
    """VMs come while the list is read: the same tag never stands over two answers."""
    await inventory.store.record(arrivals(*CREATED))
    seen: dict[str, set[bytes]] = {}

    async def write() -> None:
        for number in range(100, 160, 2):
            await inventory.store.record(arrivals(*creation(number), first=number))

    writing = asyncio.create_task(write())
    while not writing.done():
        listed = await inventory.reads.vms(ListVms(limit=1000))
        assert isinstance(listed, Tagged)
        seen.setdefault(listed.tag, set()).add(body_of(listed))
    await writing
    assert len(seen) > 1
    assert {len(bodies) for bodies in seen.values()} == {1}
