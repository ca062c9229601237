"""The scheduler asked over the bus: answered without a trace on any stream."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import Raw

from chassis.kv import stream_of
from schemas.commands import StartVm
from schemas.envelope import Envelope
from schemas.forecasts import Capacity, Forecast
from schemas.policies import Policy
from schemas.problems import Problem
from schemas.queries import CountCapacity, Try
from schemas.resources import HostFacts
from schemas.subjects import STREAMS
from schemas.wire import encode
from tests.fixtures.scheduler import command, create, facts, id_of, spec
from tests.fixtures.scheduler_world import ROUNDS, World

SETTLED_S = 13
"""After so long a lease that is there would have been heard."""


def trial(wish: Envelope[Any], **said: Any) -> Try:
    return Try(command=Raw(encode(wish)), **said)


async def with_hosts(world: World, *hosts: HostFacts) -> None:
    """Hosts that the scheduler has heard of, and time enough to be sure that there are no others."""
    await world.start_warm()
    for host in hosts:
        world.renewing.add(host.host)
        await world.renew()
        await world.register(host)
    for _ in range(ROUNDS):
        found = await count(world, CountCapacity(spec=spec(cpus=1, memory_mib=32)))
        if found.hosts_with_room == len(hosts):
            break
        await asyncio.sleep(0)
    await world.advance(SETTLED_S)


async def count(world: World, asked: CountCapacity) -> Capacity:
    answer = await world.ask("capacity", asked)
    assert isinstance(answer, bytes), answer
    return msgspec.json.decode(answer, type=Capacity)


async def forecast(world: World, asked: Try) -> Forecast:
    answer = await world.ask("try", asked)
    assert isinstance(answer, bytes), answer
    return msgspec.json.decode(answer, type=Forecast)


async def everything(world: World) -> dict[str, list[int]]:
    """The sequences of all that lies on any stream, but for leases, which come and go."""
    names = [stream_of(one.name) if one.bucket else one.name for one in STREAMS]
    return {
        name: [message.sequence for message in await world.stored(name)]
        for name in names
        if name != "KV_LEASES"
    }


async def test_a_forecast_is_what_then_happens_and_leaves_nothing_on_any_stream(
    world: World,
) -> None:
    await with_hosts(world, facts("h1"), facts("h2", memory_mib=8192))
    before = await everything(world)
    said = await forecast(world, trial(create(1)))
    assert await everything(world) == before
    await world.send(create(1))
    await world.settle()
    assert world.assignment(id_of(1001)).placement == said.placement


async def test_capacity_is_counted_and_leaves_nothing_on_any_stream(world: World) -> None:
    await with_hosts(world, facts("h1"), facts("h2"))
    before = await everything(world)
    found = await count(world, CountCapacity(spec=spec(memory_mib=1024), without=("h2",)))
    assert (found.site, found.count) == ("lab", 4)
    assert await everything(world) == before
    assert (await count(world, CountCapacity(spec=spec(memory_mib=1024)))).count == 8


async def test_a_policy_may_be_tried_that_nobody_has_applied(world: World) -> None:
    await with_hosts(world, facts("h1"), facts("h2", memory_mib=8192))
    mine = Policy(name="mine", version=1, weights={"packed": 1.0})
    said = await forecast(world, trial(create(1), policy=mine))
    assert said.placement is not None
    assert (said.host, said.placement.policy) == ("h1", "mine")


async def test_a_scheduler_that_has_only_begun_to_listen_does_not_call_hosts_silent(
    world: World,
) -> None:
    await world.start_warm()
    answer = await world.ask("try", trial(create(1)))
    assert isinstance(answer, Problem)
    assert answer.status == 503
    await world.advance(SETTLED_S)
    said = await forecast(world, trial(create(1)))
    assert said.problem is not None
    assert said.problem.type == "urn:vireo:problem:unplaceable"


async def test_what_would_be_refused_is_an_answer_with_the_problem_in_it(world: World) -> None:
    await with_hosts(world, facts("h1"))
    said = await forecast(world, trial(command(StartVm(vm=id_of(7)), 1)))
    assert said.problem is not None
    assert (said.problem.status, said.command, said.target) == (404, "vm.start", id_of(7))


async def test_what_is_no_command_is_named(world: World) -> None:
    await with_hosts(world, facts("h1"))
    answer = await world.ask("try", Try(command=Raw(b'{"specversion":"1.0"}')))
    assert isinstance(answer, Problem)
    assert (answer.status, answer.errors[0].field) == (400, "/command")


async def test_an_unknown_host_is_said_to_be_one(world: World) -> None:
    await with_hosts(world, facts("h1"))
    answer = await world.ask("capacity", CountCapacity(without=("h9",)))
    assert isinstance(answer, Problem)
    assert answer.status == 404
