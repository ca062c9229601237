"""Several VMs by one command: placed together, each under its own operation, killed after each step."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.cloud_init import CloudInit
from schemas.commands import StopVm
from schemas.copies import creates_of, members_of
from schemas.envelope import Envelope
from schemas.events import OperationFailed, OperationSucceeded
from schemas.forecasts import Change
from schemas.ids import derived_id
from services.scheduler.batches import decide_many
from services.scheduler.model import Placed, Refused
from services.scheduler.trial import told_many
from tests.fixtures.cut_bus import CutBus
from tests.fixtures.scheduler import command, create_many, facts, fleet_of, id_of
from tests.fixtures.scheduler_world import World, message_of, until

NAMES = ("web-1", "web-2", "web-3")
OPERATIONS = tuple(member.operation for member in members_of(id_of(1), NAMES))
VMS = tuple(member.vm for member in members_of(id_of(1), NAMES))


def many(*, gang: bool = False, names: tuple[str, ...] = NAMES, **changes: Any) -> Envelope[Any]:
    return create_many(1, *names, gang=gang, **changes)


def test_each_of_several_is_given_the_same_for_cloud_init() -> None:
    given = CloudInit(user_data="#!/bin/sh")
    wish = many(seeded=True)
    wish = replace(wish, data=replace(wish.data, cloud_init=given))
    placed = [create.data for create in creates_of(wish)]
    assert [(one.vm, one.spec.name, one.cloud_init) for one in placed] == [
        (vm, name, given) for vm, name in zip(VMS, NAMES, strict=True)
    ]


async def with_host(world: World, **changes: Any) -> None:
    await world.start_warm()
    await world.host("h1", **changes)
    await until(lambda: ("KV_FLEET", "FLEET_h1") in world.bus._consumers)


async def ends(world: World) -> dict[str, str]:
    """How the operations ended that the scheduler ended, and what it said of it."""
    found = {}
    for event in await world.events():
        if isinstance(event.data, OperationFailed):
            found[event.operation or ""] = event.data.problem.detail
        elif isinstance(event.data, OperationSucceeded):
            found[event.operation or ""] = event.data.detail
    return found


async def test_each_vm_is_placed_under_its_own_operation_and_the_commands_ends(
    world: World,
) -> None:
    await with_host(world)
    await world.send(many())
    await world.settle()
    placed = {one.vm: one for one in (await world.assignments()).values()}
    assert set(placed) == set(VMS)
    assert [placed[vm].spec.name for vm in VMS] == list(NAMES)
    assert [placed[vm].operation for vm in VMS] == list(OPERATIONS)
    scheduled = {e.id for e in await world.events() if e.type == "vireo.vm.scheduled.v1"}
    assert scheduled == {derived_id(one, "vm.scheduled") for one in OPERATIONS}
    assert await ends(world) == {id_of(1): "3 of 3 VMs are placed"}


async def test_where_not_all_fit_those_that_do_are_placed(world: World) -> None:
    await with_host(world, memory_mib=512 + 1024)
    await world.send(many())
    await world.settle()
    assert len(await world.assignments()) == 2
    said = await ends(world)
    assert said[id_of(1)] == "2 of 3 VMs are placed"
    assert said[OPERATIONS[2]].startswith("No host of 1 can take")


async def test_of_a_gang_that_does_not_fit_none_is_placed_and_all_are_told_why(
    world: World,
) -> None:
    await with_host(world, memory_mib=512 + 1024)
    await world.send(many(gang=True))
    await world.settle()
    assert await world.assignments() == {}
    said = await ends(world)
    assert set(said) == {id_of(1), *OPERATIONS}
    assert said[id_of(1)] == said[OPERATIONS[2]]
    assert said[id_of(1)].startswith("No host of 1 can take 1 CPU and 512 MiB")
    assert said[OPERATIONS[0]].startswith("It was to be placed with 2 others or not at all")


async def test_what_is_wished_of_a_vm_while_its_placing_is_written_comes_after(
    world: World,
) -> None:
    await with_host(world)
    await asyncio.gather(world.send(many()), world.send(command(StopVm(vm=VMS[1]), 2)))
    await world.settle()
    assert (world.assignment(VMS[1]).generation, world.assignment(VMS[1]).power) == (2, "stopped")


@pytest.mark.parametrize("gang", [False, True])
@pytest.mark.parametrize("publishes", range(1, 9))
async def test_killed_after_any_publish_it_ends_the_same(
    world: World, publishes: int, gang: bool
) -> None:
    await with_host(world)
    await world.kill()
    bus = CutBus(world.bus, publishes=publishes)
    await world.start(bus)
    await world.send(many(gang=gang))
    for _ in range(3_000):
        if bus.cut.is_set() or not await world.unhandled():
            break
        await asyncio.sleep(0)
    await world.kill()
    await world.start_warm()
    await world.advance(40)
    await world.settle()
    assert set(await world.assignments()) == {f"vm.{vm}.h1" for vm in VMS}
    said = Counter(await world.said())
    assert said == {
        **{f"vm.scheduled vm/{vm}": 1 for vm in VMS},
        f"operation.succeeded operation/{id_of(1)}": 1,
    }


@pytest.mark.parametrize("publishes", range(1, 5))
async def test_a_gang_that_was_refused_stays_refused_though_it_would_fit_by_now(
    world: World, publishes: int
) -> None:
    await with_host(world, memory_mib=512 + 1024)
    await world.kill()
    bus = CutBus(world.bus, publishes=publishes)
    await world.start(bus)
    await world.send(many(gang=True))
    await bus.cut.wait()
    await world.kill()
    await world.start_warm()
    await world.host("h2")
    await world.advance(40)
    await world.settle()
    assert await world.assignments() == {}
    assert set(await ends(world)) == {id_of(1), *OPERATIONS}


async def test_handled_twice_it_says_and_writes_nothing_more(world: World) -> None:
    await with_host(world)
    await world.send(many())
    await world.settle()
    before = (await world.said(), await world.assignments())
    await world.bus.publish(replaced_id(many()))
    await world.settle()
    assert (await world.said(), await world.assignments()) == before


def replaced_id(wish: Envelope[Any]) -> Any:
    """The same command once more, past the bus's memory of ids."""
    return replace(message_of(wish), message_id="again")


def test_deciding_many_takes_names_that_are_taken_for_refusals_of_their_own() -> None:
    fleet = fleet_of(facts("h1"))
    decisions = decide_many(many(names=("a", "b", "a")), fleet, now=0.0)
    assert [type(one) for one in decisions] == [Placed, Placed, Refused]


def test_the_forecast_of_several_says_where_each_would_go_and_reserves_nothing() -> None:
    fleet = fleet_of(facts("h1"))
    forecast = told_many(many(), fleet, now=0.0)
    assert forecast.detail == "3 of 3 VMs would be placed"
    assert forecast.changes == tuple(Change(field=name, after="h1") for name in NAMES)
    assert fleet.reserved("h1").cpus == 0
