"""Policies, templates and projects in Postgres and in CONFIG: once each, whatever is killed when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from chassis import kv
from chassis.bus import Bus, Incoming, Start
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.memory_bus import memory_bus
from chassis.migrations import migrate
from chassis.postgres import PostgresSettings, connect
from chassis.service import Retry
from schemas import subjects
from schemas.commands import (
    ApplyPolicy,
    ApplyProject,
    ApplyTemplate,
    RemovePolicy,
    RemoveProject,
    RemoveTemplate,
)
from schemas.definitions import Definition, Project, Template
from schemas.policies import Policy
from schemas.problems import Problem
from schemas.queries import GetDefinition, ListDefinitions, ListVersions
from schemas.resources import Page
from schemas.wire import encode
from services.inventory.definitions import Identity, Outcome
from tests.fixtures.cut_bus import CutBus
from tests.fixtures.inventory import START, arrivals, creation, id_of, inventory_on
from tests.fixtures.kept_definitions import DefinitionRooms, ordered, outbox_on, rooms_on

QUIET = Policy(name="quiet", weights={"free_cpu": 2.0})
NAME = Identity(kind="policy", name="quiet")
SHIPPED = ["balanced", "energy", "pack", "spread", "weighted-random"]


@pytest.fixture
async def rooms(postgres_database: PostgresSettings) -> AsyncIterator[DefinitionRooms]:
    async with connect(postgres_database, name="inventory") as postgres:
        await migrate(postgres, "services.inventory.migrations")
        yield rooms_on(postgres)


@pytest.fixture
async def config() -> AsyncIterator[Bus]:
    async with memory_bus(SystemClock()) as bus:
        await ensure_streams(bus, SystemClock())
        yield bus


async def told(rooms: DefinitionRooms, number: int, command: Any) -> Outcome:
    return await rooms.store.carry_out(ordered(number, command), at=START)


async def apply(rooms: DefinitionRooms, number: int, **changes: Any) -> Outcome:
    policy = msgspec.structs.replace(QUIET, **changes)
    return await told(rooms, number, ApplyPolicy(definition=policy))


async def in_config(bus: Bus, key: str = "policy.quiet") -> Policy | None:
    stream = kv.stream_of(subjects.KV_CONFIG)
    found = await bus.last(stream, kv.subject_of(subjects.KV_CONFIG, key))
    value = kv.entry(found).value if found is not None else None
    return msgspec.json.decode(value, type=Policy) if value is not None else None


def read(answer: bytes | Problem) -> Definition[dict[str, Any]]:
    assert isinstance(answer, bytes), answer
    return msgspec.json.decode(answer, type=Definition[dict[str, Any]])


def listed(answer: bytes | Problem) -> list[tuple[str, int, bool, bool]]:
    assert isinstance(answer, bytes), answer
    page = msgspec.json.decode(answer, type=Page)
    found = msgspec.convert(page.items, list[Definition[dict[str, Any]]])
    return [(each.name, each.version, each.shipped, each.definition is None) for each in found]


async def test_versions_are_kept_one_by_one(rooms: DefinitionRooms) -> None:
    changes = [
        await apply(rooms, 1),
        await apply(rooms, 2),
        await apply(rooms, 3, description="x"),
        await told(rooms, 4, RemovePolicy(name="quiet")),
        await apply(rooms, 5),
    ]
    assert [(each.change, each.version) for each in changes] == [
        ("applied", 1),
        ("unchanged", 1),
        ("applied", 2),
        ("removed", 3),
        ("applied", 4),
    ]
    versions = await rooms.reads.versions(ListVersions(kind="policy", name="quiet"))
    assert listed(versions) == [
        ("quiet", 4, False, False),
        ("quiet", 3, False, True),
        ("quiet", 2, False, False),
        ("quiet", 1, False, False),
    ]
    second = read(await rooms.reads.one(GetDefinition(kind="policy", name="quiet", version=2)))
    assert (second.actor, second.operation, second.at) == ("token/admin", id_of(3), START)
    assert second.definition == {
        "name": "quiet",
        "version": 2,
        "description": "x",
        "weights": {"free_cpu": 2.0},
    }


async def test_a_command_that_comes_again_comes_to_the_same(rooms: DefinitionRooms) -> None:
    once = await apply(rooms, 1)
    await apply(rooms, 2, description="x")
    assert await apply(rooms, 1) == once
    refused = await told(rooms, 3, RemovePolicy(name="absent"))
    await told(rooms, 4, ApplyPolicy(definition=Policy(name="absent")))
    assert await told(rooms, 3, RemovePolicy(name="absent")) == refused
    latest = await rooms.store.newest(NAME)
    assert latest is not None
    assert latest.version == 2


async def test_commands_at_one_time_are_decided_one_after_another(rooms: DefinitionRooms) -> None:
    outcomes = await asyncio.gather(
        *(apply(rooms, number, description=str(number)) for number in range(1, 9))
    )
    assert sorted(each.version for each in outcomes) == [*range(1, 9)]


async def test_what_is_named_must_exist_and_stays_while_it_is_named(
    rooms: DefinitionRooms,
) -> None:
    project = ApplyProject(definition=Project(name="shop", policy="quiet"))
    assert (await told(rooms, 1, project)).change == "refused"
    await apply(rooms, 2)
    assert (await told(rooms, 3, project)).change == "applied"
    template = ApplyTemplate(definition=Template(name="web", project="shop", policy="pack"))
    assert (await told(rooms, 4, template)).change == "applied"
    for number, (command, users) in enumerate(
        [(RemovePolicy(name="quiet"), "project shop"), (RemoveProject(name="shop"), "template web")]
    ):
        outcome = await told(rooms, 10 + number, command)
        assert outcome.problem is not None
        assert outcome.problem.detail.endswith(f"is in use by {users}.")
    order = [RemoveTemplate(name="web"), RemoveProject(name="shop"), RemovePolicy(name="quiet")]
    outcomes = [await told(rooms, 20 + number, each) for number, each in enumerate(order)]
    assert [each.change for each in outcomes] == ["removed"] * 3


async def test_a_project_stays_while_a_vm_belongs_to_it(
    postgres_database: PostgresSettings,
) -> None:
    async with connect(postgres_database, name="inventory") as postgres:
        await migrate(postgres, "services.inventory.migrations")
        rooms = rooms_on(postgres)
        told_of = creation(50, name="web-1", project="shop", metadata={"odd": "\0"})
        await inventory_on(postgres).store.record(arrivals(*told_of))
        await told(rooms, 1, ApplyProject(definition=Project(name="shop")))
        outcome = await told(rooms, 2, RemoveProject(name="shop"))
    assert outcome.problem is not None
    assert outcome.problem.detail == "The project 'shop' is in use by VM web-1."


async def test_shipped_policies_are_listed_and_may_be_overridden(rooms: DefinitionRooms) -> None:
    question = ListDefinitions(kind="policy")
    assert listed(await rooms.reads.present(question)) == [
        (name, 1, True, False) for name in SHIPPED
    ]
    refused = await told(rooms, 1, RemovePolicy(name="pack"))
    assert refused.change == "refused"
    own = Policy(name="pack", weights={"packed": 1.0})
    assert (await told(rooms, 2, ApplyPolicy(definition=own))).version == 2
    assert ("pack", 2, False, False) in listed(await rooms.reads.present(question))
    await told(rooms, 3, RemovePolicy(name="pack"))
    assert listed(await rooms.reads.present(question)) == [
        (name, 1, True, False) for name in SHIPPED
    ]
    versions = await rooms.reads.versions(ListVersions(kind="policy", name="pack"))
    assert [version for _, version, _, _ in listed(versions)] == [3, 2, 1]


async def test_a_list_comes_page_by_page(rooms: DefinitionRooms) -> None:
    for number, name in enumerate(["aaa", "mmm", "zzz"], start=1):
        await told(rooms, number, ApplyPolicy(definition=Policy(name=name)))
    names, after = [], None
    while True:
        answer = await rooms.reads.present(ListDefinitions(kind="policy", limit=2, after=after))
        names += [name for name, *_ in listed(answer)]
        assert isinstance(answer, bytes)
        after = msgspec.json.decode(answer, type=Page).next
        if after is None:
            break
    assert names == sorted(["aaa", "mmm", "zzz", *SHIPPED])


async def test_there_may_be_only_as_many_as_the_setting_says(
    postgres_database: PostgresSettings,
) -> None:
    async with connect(postgres_database, name="inventory") as postgres:
        await migrate(postgres, "services.inventory.migrations")
        rooms = rooms_on(postgres, most=1)
        await apply(rooms, 1)
        assert (await apply(rooms, 2, description="x")).change == "applied"
        more = ApplyPolicy(definition=Policy(name="more"))
        assert (await told(rooms, 3, more)).change == "refused"


async def test_what_was_committed_reaches_config_though_its_writer_was_killed(
    rooms: DefinitionRooms, config: Bus
) -> None:
    """Killed between the commit and the write, and between the write and the note that it was done."""
    for number, publishes in enumerate((0, 1), start=1):
        await apply(rooms, number, description=str(number))
        dying = CutBus(config, publishes=publishes)
        copying = asyncio.create_task(outbox_on(rooms, dying).copy(NAME))
        await asyncio.wait_for(dying.cut.wait(), 10)
        copying.cancel()
        assert await rooms.store.outbox(limit=10) == [NAME]
        await outbox_on(rooms, config).catch_up()
        assert await rooms.store.outbox(limit=10) == []
        found = await in_config(config)
        assert found is not None
        assert (found.version, found.description) == (number, str(number))


async def test_a_removal_reaches_config(rooms: DefinitionRooms, config: Bus) -> None:
    await apply(rooms, 1)
    await outbox_on(rooms, config).copy(NAME)
    await told(rooms, 2, RemovePolicy(name="quiet"))
    await outbox_on(rooms, config).copy(NAME)
    assert await in_config(config) is None


async def test_an_older_version_never_undoes_a_newer_one(
    rooms: DefinitionRooms, config: Bus
) -> None:
    """Many copy at one time, while versions come and go."""

    async def change(number: int) -> None:
        if number % 3:
            await apply(rooms, number, description=str(number))
        else:
            await told(rooms, number, RemovePolicy(name="quiet"))
        await _patiently(outbox_on(rooms, config).copy, NAME)

    await asyncio.gather(*(change(number) for number in range(1, 13)))
    latest = await rooms.store.newest(NAME)
    assert latest is not None
    found = await in_config(config)
    assert (None if found is None else encode(found)) == latest.data


async def _patiently(copy: Any, identity: Identity) -> None:
    while True:
        try:
            await copy(identity)
        except Retry:
            continue
        return


async def test_a_bus_that_is_away_is_asked_again_later(rooms: DefinitionRooms, config: Bus) -> None:
    await apply(rooms, 1)
    away = CutBus(config, publishes=0, refuses=True)
    with pytest.raises(Retry):
        await outbox_on(rooms, away).copy(NAME)
    assert await rooms.store.outbox(limit=10) == [NAME]


async def test_a_bucket_that_was_lost_is_made_again(rooms: DefinitionRooms) -> None:
    await apply(rooms, 1)
    await told(rooms, 2, ApplyProject(definition=Project(name="shop", policy="quiet")))
    await told(rooms, 3, ApplyTemplate(definition=Template(name="gone")))
    await told(rooms, 4, RemoveTemplate(name="gone"))
    for _ in range(2):
        async with memory_bus(SystemClock()) as fresh:
            await ensure_streams(fresh, SystemClock())
            await fresh.publish(kv.put(subjects.KV_CONFIG, "token.admin", b"{}"))
            await fresh.publish(kv.put(subjects.KV_CONFIG, "policy.strange", b"{}"))
            await outbox_on(rooms, fresh).catch_up()
            assert await _keys(fresh) == [
                "policy.quiet",
                "policy.strange",
                "project.shop",
                "token.admin",
            ]


async def _keys(bus: Bus) -> list[str]:
    pattern = kv.subject_of(subjects.KV_CONFIG, ">")
    found = []
    stream = kv.stream_of(subjects.KV_CONFIG)
    async with bus.follow(stream, [pattern], start=Start(at="last_per_subject")) as messages:
        async for message in messages:
            if not isinstance(message, Incoming):
                break
            found.append(kv.entry(message).key)
    return sorted(found)
