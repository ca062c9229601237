"""What is asked of those who decide, without anything being done: dry runs, reviews, capacity, use.

What belongs here: which question a request becomes, and to whom. No command, no event and no idempotency
record comes of any of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from msgspec import Raw

from chassis import tracing
from schemas import subjects
from schemas.commands import Command, CreateVm, told_of
from schemas.definitions import Definition
from schemas.forecasts import Forecast, PlacementReview, PolicyTrial
from schemas.policies import Policy
from schemas.problems import FieldError, invalid_request, not_found
from schemas.queries import CountCapacity, GetDefinition, GetProjectUse, GetVm, Try
from schemas.resources import Vm
from schemas.wire import encode
from services.gateway import decide
from services.gateway.answers import Answer, refuse
from services.gateway.asked import Asked, name_in_path
from services.gateway.desk import Desk
from services.gateway.idempotency import Target
from services.gateway.model import Caller, CapacityRequest, Nothing, ReviewQuery, TrialRequest
from services.gateway.naming import whole_spec

SCHEDULER = "scheduler"

_vm = msgspec.json.Decoder(Vm)
_forecast = msgspec.json.Decoder(Forecast)
_kept_policy = msgspec.json.Decoder(Definition[Policy])


async def dry_run(
    desk: Desk, caller: Caller, target: Target, make: Callable[[str], Command]
) -> Answer:
    """What would come of a wish, as its owner says. Raises Refused as the wish itself would."""
    desk.require_bus()
    command = desk.rig.ids.new()
    message = make(await target(command))
    return Answer(body=await _foretell(desk, caller, message, command=command))


async def review_placement(desk: Desk, asked: Asked[ReviewQuery, Nothing]) -> Answer:
    """Why a VM is where it is, and how it would be decided now."""
    query = GetVm(vm=name_in_path("VM", asked.path["vm"]), at=asked.query.at)
    vm = _vm.decode(await desk.ask("inventory", "vm.get", query))
    review = PlacementReview(vm=vm.id, name=vm.spec.name, host=vm.host, placement=vm.placement)
    if asked.query.now:
        command = desk.rig.ids.new()
        anew = CreateVm(vm=decide.vm_of(command), spec=vm.spec)
        body = await _foretell(desk, asked.caller, anew, command=command, without_vm=vm.id)
        review = msgspec.structs.replace(review, now=_forecast.decode(body))
    return Answer(body=encode(review))


async def try_policy(desk: Desk, asked: Asked[Nothing, TrialRequest]) -> Answer:
    """How a policy, or a draft of it, would place such a VM, beside how the one that counts would."""
    policy = asked.body.draft or await _policy(desk, name_in_path("policy", asked.path["name"]))
    if policy.name != asked.path["name"]:
        detail = f"expected {asked.path['name']!r}, as the path says"
        raise refuse(invalid_request(FieldError(field="/draft/name", detail=detail)))
    spec = await whole_spec(desk, asked.body.spec, at="/spec")
    command = desk.rig.ids.new()
    wish = CreateVm(vm=decide.vm_of(command), spec=spec)
    given, in_force = await asyncio.gather(
        _foretell(desk, asked.caller, wish, command=command, policy=policy),
        _foretell(desk, asked.caller, wish, command=command),
    )
    trial = PolicyTrial(given=_forecast.decode(given), in_force=_forecast.decode(in_force))
    return Answer(body=encode(trial))


async def _policy(desk: Desk, name: str) -> Policy:
    found = await desk.ask("inventory", "definition.get", GetDefinition(kind="policy", name=name))
    policy = _kept_policy.decode(found).definition
    if policy is None:
        raise refuse(not_found("policy", name))
    return policy


async def count_capacity(desk: Desk, asked: Asked[Nothing, CapacityRequest]) -> Answer:
    """How many more would fit at this site."""
    wanted = asked.body
    spec = await whole_spec(desk, wanted.spec, at="/spec") if wanted.spec is not None else None
    question = CountCapacity(spec=spec, by=wanted.by, without=wanted.without, add=wanted.add)
    timeout_s = desk.settings.capacity_timeout_s
    asked.extend(timeout_s)
    endpoint = subjects.of_site("capacity", site=desk.rig.site)
    return Answer(body=await desk.ask(SCHEDULER, endpoint, question, timeout_s=timeout_s))


async def show_use(desk: Desk, asked: Asked[Nothing, Nothing]) -> Answer:
    """What a project's VMs take at this site, as who holds them to the quota counts it."""
    query = GetProjectUse(project=name_in_path("project", asked.path["name"]))
    return Answer(
        body=await desk.ask(SCHEDULER, subjects.of_site("use", site=desk.rig.site), query)
    )


async def _foretell(
    desk: Desk,
    caller: Caller,
    message: Command,
    *,
    command: str,
    without_vm: str | None = None,
    policy: Policy | None = None,
) -> bytes:
    site = desk.rig.site
    what = decide.accept(
        told_of(message),
        command=command,
        site=site,
        caller=caller,
        traceparent=tracing.traceparent(),
    )
    owner = subjects.BY_MESSAGE[type(message)].owner
    endpoint = subjects.of_site("try", site=site) if owner == SCHEDULER else "try"
    question = Try(command=Raw(encode(what.command)), without_vm=without_vm, policy=policy)
    return await desk.ask(owner, endpoint, question)
