"""The gateway asked for plans, by HTTP and by the SDK; nothing is published."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas import samples, subjects
from schemas.plans import MOST_MOVES, Plan, PlanBalance, PlanDrain
from schemas.problems import Problem
from tests.fixtures.gateway import TOKEN, GatewayUnderTest
from vireo import Client, Conflict, NotFound

PLAN = msgspec.to_builtins(samples.PLAN)


async def test_a_plan_is_passed_on_as_the_scheduler_made_it(gateway: GatewayUnderTest) -> None:
    body = {"start": 0.2, "max_moves": 5}
    answer = await gateway.http.post("/v1/plans/balance", json=body)
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=Plan) == samples.PLAN
    assert (await gateway.http.post("/v1/plans/balance")).status_code == 200
    assert gateway.scheduler.planned == [PlanBalance(start=0.2, max_moves=5), PlanBalance()]
    assert await gateway.messages(subjects.COMMANDS) == []
    assert await gateway.messages(subjects.EVENTS) == []


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("balance", {"start": 2, "stop": "x", "max_moves": 0}, ["/start", "/stop", "/max_moves"]),
        ("balance", {"start": 0.1, "stop": 0.2}, ["/stop"]),
        ("drain", {}, ["/host"]),
        ("drain", {"host": "H 1", "hots": 1}, ["/host", "/hots"]),
        ("check", {**PLAN, "kind": "other", "cost_mib": "1"}, ["/kind", "/cost_mib"]),
        ("check", {**PLAN, "moves": [{**PLAN["moves"][0], "to_host": "!"}]}, ["/moves/0/to_host"]),
        ("check", {**PLAN, "moves": PLAN["moves"] * (MOST_MOVES + 1)}, None),
    ],
)
async def test_every_bad_field_of_a_question_is_named(
    gateway: GatewayUnderTest, path: str, body: Any, fields: list[str] | None
) -> None:
    answer = await gateway.http.post(f"/v1/plans/{path}", json=body)
    if fields is None:
        assert answer.status_code == 413
        return
    found = msgspec.json.decode(answer.content, type=Problem)
    assert (answer.status_code, [error.field for error in found.errors]) == (400, fields)
    assert gateway.scheduler.planned == []


async def test_plans_by_the_sdk(gateway: GatewayUnderTest) -> None:
    async with Client(gateway.url, TOKEN) as client:
        assert await client.plans.balance(stop=0.01) == samples.PLAN
        assert await client.plans.drain(samples.HOST) == samples.PLAN
        assert await client.plans.check(samples.PLAN) == samples.PLAN_CHECK
        with pytest.raises(NotFound):
            await client.plans.drain("h9")
        with pytest.raises(Conflict) as refused:
            await client.plans.check(replace(samples.PLAN, cost_mib=7))
    assert refused.value.problem.reasons == {"vm a": "gone"}
    assert gateway.scheduler.planned[:2] == [PlanBalance(stop=0.01), PlanDrain(host=samples.HOST)]


async def test_a_plan_with_as_many_moves_as_a_full_host_has_vms_can_be_checked(
    gateway: GatewayUnderTest,
) -> None:
    """A thousand moves to a thousand hosts, with all that they rely on."""
    move, relied = samples.PLAN.moves[0], samples.PLAN.relies_on[0]
    hosts = [f"host-{number:06d}" for number in range(1000)]
    plan = replace(
        samples.PLAN,
        moves=tuple(replace(move, name=f"vm-{host}", to_host=host) for host in hosts),
        relies_on=tuple(replace(relied, host=host) for host in hosts),
    )
    async with Client(gateway.url, TOKEN) as client:
        with pytest.raises(Conflict):
            await client.plans.check(plan)
