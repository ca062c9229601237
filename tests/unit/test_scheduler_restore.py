"""FLEET written anew: what is missing or older is written, and nothing else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from chassis.kv import purge, put
from chassis.service import Rig
from schemas import samples, subjects
from schemas.assignments import VmAssignment
from schemas.envelope import Envelope
from schemas.events import FleetRestored
from schemas.ids import derived_id
from schemas.resources import HostConfig
from schemas.restores import RestoreFleet
from schemas.wire import encode, wrap
from services.scheduler.bucket import FleetLost, watch_bucket
from services.scheduler.ledger import FLEET
from services.scheduler.term import Term
from tests.fixtures.scheduler import facts, id_of, spec
from tests.fixtures.scheduler_world import World

OPERATION = id_of(5000)


def assignment(number: int, generation: int = 3, **changes: Any) -> VmAssignment:
    return VmAssignment(
        **{
            "vm": id_of(number),
            "host": "h1",
            "generation": generation,
            "spec": spec(name=f"vm{number}"),
            "power": "running",
            "operation": derived_id(id_of(number), str(generation)),
            "actor": "ann",
            "placement": replace(samples.PLACEMENT, host="h1"),
            **changes,
        }
    )


def restore(part: int = 1, of: int = 1, **told: Any) -> Envelope[RestoreFleet]:
    return wrap(
        RestoreFleet(part=part, of=of, **told),
        id=derived_id(OPERATION, f"part {part}"),
        site="main",
        sender="inventory",
        at=datetime(2026, 3, 1, tzinfo=UTC),
        about="fleet/fleet",
        operation=OPERATION,
        cause=OPERATION,
    )


async def restored(world: World) -> list[tuple[int, int]]:
    """Of each part: how much was written, and how much was there."""
    return [
        (event.data.written, event.data.kept)
        for event in await world.events()
        if isinstance(event.data, FleetRestored)
    ]


async def test_all_that_is_missing_is_written_and_commands_go_on(world: World) -> None:
    await world.start_warm()
    lost = [assignment(1), assignment(2, power="stopped", stop_mode="forced")]
    config = HostConfig(host="h1", generation=4, labels={"rack": "a"})
    told = restore(assignments=tuple(lost), configs=(config,), hosts=(facts("h1"),))
    await world.send(told)
    await world.settle()
    assert sorted((await world.assignments()).values(), key=lambda one: one.vm) == lost
    assert await restored(world) == [(4, 0)]
    assert (FLEET, subjects.fleet_consumer("h1")) in world.bus._consumers


async def test_told_again_nothing_is_written_twice(world: World) -> None:
    await world.start_warm()
    await world.send(restore(1, 2, assignments=(assignment(1),)))
    await world.settle()
    await world.send(restore(2, 2, assignments=(assignment(1),)))
    await world.settle()
    assert await restored(world) == [(1, 0), (0, 1)]


async def test_a_newer_generation_stays_and_an_older_one_gives_way(world: World) -> None:
    await world.start_warm()
    newer, older = assignment(1, 9), assignment(2, 1)
    for one in (newer, older):
        key = subjects.vm_key(vm=one.vm, host=one.host)
        await world.bus.publish(put(subjects.KV_FLEET, key, encode(one)))
    await world.send(restore(assignments=(assignment(1, 3), assignment(2, 3))))
    await world.settle()
    found = await world.assignments()
    assert sorted(one.generation for one in found.values()) == [3, 9]
    assert await restored(world) == [(1, 1)]


async def test_a_vm_that_was_forgotten_does_not_come_back(world: World) -> None:
    await world.start_warm()
    key = subjects.vm_key(vm=id_of(1), host="h1")
    await world.bus.publish(put(subjects.KV_FLEET, key, encode(assignment(1))))
    await world.bus.publish(purge(subjects.KV_FLEET, key))
    await world.send(restore(assignments=(assignment(1, 4),)))
    await world.settle()
    assert await world.assignments() == {}
    assert await restored(world) == [(0, 1)]


async def test_another_bucket_of_the_name_is_noticed(world: World) -> None:
    rig = Rig(
        service="scheduler",
        instance="test",
        site="main",
        bus=world.bus,
        clock=world.clock,
        ids=world.ids,
    )
    term = Term(rig)
    term.heard(17)
    watching = asyncio.create_task(watch_bucket(rig, term, every_s=1))
    with pytest.raises(FleetLost):
        while not watching.done():
            await world.clock.advance(1.0)
        await watching
