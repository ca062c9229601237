"""The scheduler asked for plans over the bus: answered without a trace on any stream."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chassis.kv import stream_of
from schemas.commands import StopVm
from schemas.plans import Plan, PlanBalance, PlanCheck, PlanDrain
from schemas.problems import Problem
from schemas.subjects import STREAMS
from tests.fixtures.scheduler import command, create, id_of
from tests.fixtures.scheduler_world import World

SETTLED_S = 13


async def peopled(world: World) -> None:
    """Three VMs on the only host; then a second one comes."""
    await world.start_warm()
    await world.host("h1")
    await world.settle()
    await world.advance(SETTLED_S)
    for number in (1, 2, 3):
        await world.send(create(number, f"vm{number}", memory_mib=1024))
        await world.settle()
    await world.host("h2")
    await world.settle()
    await world.advance(SETTLED_S)


async def ask(world: World, endpoint: str, question: Struct) -> Any:
    answer = await world.ask(endpoint, question)
    if isinstance(answer, Problem):
        return answer
    kind: Any = PlanCheck if endpoint == "plan.check" else Plan
    return msgspec.json.decode(answer, type=kind)


async def lengths(world: World) -> dict[str, int]:
    names = [stream_of(one.name) if one.bucket else one.name for one in STREAMS]
    return {name: len(await world.stored(name)) for name in names if name != "KV_LEASES"}


async def test_plans_are_answered_and_leave_nothing_on_any_stream(world: World) -> None:
    await peopled(world)
    before = await lengths(world)
    drained = await ask(world, "drain.plan", PlanDrain(host="h1"))
    assert [(move.name, move.to_host) for move in drained.moves] == [
        *(("vm1", "h2"), ("vm2", "h2"), ("vm3", "h2")),
    ]
    balanced = await ask(world, "balance.plan", PlanBalance())
    assert (balanced.outcome, len(balanced.moves)) == ("stuck", 1)
    assert balanced.id != drained.id
    assert await ask(world, "plan.check", drained) == PlanCheck(
        plan=drained.id, checked_at=world.clock.now()
    )
    assert await lengths(world) == before


async def test_what_is_left_out_of_a_band_is_what_the_settings_say(world: World) -> None:
    await peopled(world)
    plan = await ask(world, "balance.plan", PlanBalance(max_moves=7))
    assert (plan.band.start, plan.band.stop, plan.band.max_moves) == (0.1, 0.05, 7)
    plan = await ask(world, "balance.plan", PlanBalance(start=0.02))
    assert (plan.band.start, plan.band.stop) == (0.02, 0.02)
    answer = await ask(world, "balance.plan", PlanBalance(stop=0.5))
    assert (answer.status, answer.errors[0].field) == (400, "/stop")


async def test_a_plan_is_refused_with_what_has_changed(world: World) -> None:
    await peopled(world)
    plan = await ask(world, "drain.plan", PlanDrain(host="h1"))
    await world.send(command(StopVm(vm=id_of(1001)), 9))
    await world.settle()
    refused = await ask(world, "plan.check", plan)
    assert (refused.status, refused.reasons) == (409, {"vm vm1": "its assignment has changed"})
    elsewhere = await ask(world, "plan.check", replace(plan, site="other"))
    assert (elsewhere.status, elsewhere.detail) == (
        409,
        "The plan is for site other, this is lab.",
    )


async def test_an_unknown_host_cannot_be_drained(world: World) -> None:
    await peopled(world)
    assert (await ask(world, "drain.plan", PlanDrain(host="h9"))).status == 404


async def test_a_scheduler_that_has_only_begun_to_listen_makes_no_plans(world: World) -> None:
    await world.start_warm()
    for question in (PlanBalance(), PlanDrain(host="h1")):
        endpoint = "balance.plan" if isinstance(question, PlanBalance) else "drain.plan"
        assert (await ask(world, endpoint, question)).status == 503
