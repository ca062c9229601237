"""What changed between two times, and whose operations had to do with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct, structs

from schemas import events
from schemas.changes import Changed, FieldChange, ListChanges
from schemas.problems import Problem
from schemas.resources import HostConfig
from services.inventory.change_reads import ChangeReads
from tests.fixtures.inventory import (
    CREATE,
    CREATED,
    DELETE,
    FACTS,
    LIFE,
    STOP,
    VM,
    Inventory,
    Told,
    arrivals,
    creation,
    id_of,
)


class Page(Struct):
    items: list[Changed]
    next: str | None = None


class Story:
    """Events as they are told, one batch after the other."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.told = 0

    async def tell(self, *told: Told) -> datetime:
        """The time at which it was stored."""
        await self.inventory.store.record(arrivals(*told, first=self.told + 1))
        self.told += len(told)
        async with self.inventory.postgres.connection() as connection:
            at: datetime = await connection.fetchval("select received_at from ledgers")
            return at


async def changes(inventory: Inventory, **query: Any) -> Page:
    reads = ChangeReads(inventory.postgres, inventory.queries, page_bytes=900_000)
    answer = await reads.changes(ListChanges(**query))
    assert isinstance(answer, bytes), answer
    return msgspec.json.decode(answer, type=Page)


async def test_a_change_says_what_was_and_is_and_who_asked_for_it(inventory: Inventory) -> None:
    story = Story(inventory)
    before = await story.tell(*CREATED)
    after = await story.tell(*LIFE[7:11])
    (changed,) = (await changes(inventory, since=before, until=after)).items
    assert (changed.kind, changed.id, changed.name, changed.change) == (
        *("vm", VM, "web-1"),
        "changed",
    )
    assert changed.fields == (
        FieldChange(field="power", before="running", after="stopped"),
        FieldChange(field="state", before="running", after="stopped"),
    )
    (by,) = changed.by
    assert (by.operation, by.command, by.actor) == (STOP, "vm.stop", "token/admin")


async def test_what_came_and_what_went_is_told(inventory: Inventory) -> None:
    story = Story(inventory)
    start = await story.tell(*creation(300))
    created = await story.tell(*CREATED)
    deleted = await story.tell(*LIFE[7:])

    async def told(since: datetime, until: datetime | None) -> list[tuple[str, list[str]]]:
        found = await changes(inventory, since=since, until=until)
        return [(each.change, [by.operation for by in each.by]) for each in found.items]

    assert await told(start, created) == [("created", [CREATE])]
    assert await told(created, deleted) == [("deleted", [STOP, DELETE])]
    assert await told(start, None) == [("passing", [CREATE, STOP, DELETE])]
    assert await told(deleted, None) == []


async def test_what_became_again_what_it_was_is_no_change(inventory: Inventory) -> None:
    story = Story(inventory)
    before = await story.tell(*CREATED)
    await story.tell((None, events.VmPaused(vm=VM, host="h1", generation=1)))
    await story.tell((None, events.VmResumed(vm=VM, host="h1", generation=1)))
    assert (await changes(inventory, since=before)).items == []


async def test_hosts_that_fall_silent_or_are_configured_are_changes(inventory: Inventory) -> None:
    story = Story(inventory)
    other = structs.replace(FACTS, host="h2")
    before = await story.tell(
        (None, events.HostRegistered(facts=FACTS)), (None, events.HostRegistered(facts=other))
    )
    config = HostConfig(host="h2", generation=1, maintenance=True)
    await story.tell(
        (None, events.HostSilent(host="h1", silent_s=10)),
        (
            id_of(50),
            events.OperationAccepted(
                command="host.configure", kind="host", target="h2", request={}
            ),
        ),
        (id_of(50), events.HostConfigured(config=config)),
        (id_of(50), events.OperationSucceeded()),
    )
    silent, configured = (await changes(inventory, since=before)).items
    assert (silent.id, silent.by) == ("h1", ())
    assert silent.fields == (FieldChange(field="state", before="online", after="silent"),)
    assert FieldChange(field="config/maintenance", before=None, after=True) in configured.fields
    assert [by.command for by in configured.by] == ["host.configure"]


async def test_definitions_are_compared_by_their_own_times(inventory: Inventory) -> None:
    story = Story(inventory)
    before = await story.tell(*CREATED)
    async with inventory.postgres.connection() as connection:
        for version, data in ((1, '{"a":1}'), (2, '{"a":2}')):
            await connection.execute(
                "insert into definitions values ('policy', 'quiet', $1, $2, $3, 'token/anna', now())",
                *(version, data, CREATE if version == 1 else STOP),
            )
    (changed,) = (await changes(inventory, since=before)).items
    assert (changed.kind, changed.name, changed.change) == ("policy", "quiet", "created")
    assert changed.by[0].actor == "token/anna"


async def test_pages_of_changes_go_on(inventory: Inventory) -> None:
    story = Story(inventory)
    before = await story.tell(*CREATED)
    for number in range(100, 110, 2):
        await story.tell(*creation(number))
        await story.tell(
            (None, events.VmPaused(vm=VM, host="h1", generation=1)),
            (None, events.VmResumed(vm=VM, host="h1", generation=1)),
        )
    seen: list[str] = []
    after = None
    while True:
        page = await changes(inventory, since=before, limit=2, after=after)
        assert len(page.items) <= 2
        seen += [each.id for each in page.items]
        after = page.next
        if after is None:
            break
    assert seen == [id_of(number + 1) for number in range(100, 110, 2)]


async def test_times_that_cannot_be_are_refused_each_by_its_name(inventory: Inventory) -> None:
    reads = ChangeReads(inventory.postgres, inventory.queries, page_bytes=900_000)
    later = datetime.now(UTC) + timedelta(days=1)
    answer = await reads.changes(ListChanges(since=later + timedelta(days=1), until=later))
    assert isinstance(answer, Problem)
    assert [each.field for each in answer.errors] == ["query/until", "query/since"]
