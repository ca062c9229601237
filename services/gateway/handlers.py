"""One function per route: what is asked, of whom; what is wished, as which command. Straight lines.

The routes themselves stand in `routes`, the way of a wish in `orders`, event streams in `stream`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from schemas import commands
from schemas.changes import ListChanges
from schemas.copies import members_of
from schemas.ids import is_uuid7
from schemas.problems import FieldError, invalid_request, not_found
from schemas.queries import (
    Empty,
    GetHost,
    GetOperation,
    GetVm,
    GetVmReading,
    ListEvents,
    ListHosts,
    ListOperations,
    ListVms,
    ShowEffects,
)
from schemas.requests import VmRequest
from schemas.resources import Operation, VmSpec
from schemas.wire import encode
from services.gateway import decide, waiting
from services.gateway.answers import Answer, Refused, refuse
from services.gateway.asked import Asked, name_in_path
from services.gateway.desk import Desk
from services.gateway.idempotency import Target
from services.gateway.lists import listed
from services.gateway.model import (
    BatchRequest,
    DeleteRequest,
    EventQuery,
    HostChange,
    Identity,
    Nothing,
    OperationQuery,
    PastQuery,
    RebootRequest,
    StopRequest,
    WishQuery,
)
from services.gateway.naming import whole_spec
from services.gateway.orders import obey
from services.gateway.several import names_of

PAGE_ITEMS = 50
"""Length of a page where the client doesn't say."""

# wishes about VMs


async def create_vm(desk: Desk, asked: Asked[WishQuery, VmRequest]) -> Answer:
    spec: list[VmSpec] = []

    async def prepare() -> None:
        spec.append(await whole_spec(desk, asked.body))

    async def target(command: str) -> str:
        return decide.vm_of(command)

    def make(vm: str) -> commands.CreateVm:
        return commands.CreateVm(vm=vm, spec=spec[-1], cloud_init=asked.body.cloud_init)

    return await obey(desk, asked, target, make, prepare=prepare)


async def create_vms(desk: Desk, asked: Asked[WishQuery, BatchRequest]) -> Answer:
    """The command's operation, with those of its VMs."""
    specs: list[VmSpec] = []
    names = names_of(asked.body)

    async def prepare() -> None:
        specs.append(await whole_spec(desk, asked.body.spec, at="/spec"))

    async def target(_command: str) -> str:
        return names[0]

    def make(_first: str) -> commands.CreateVms:
        return commands.CreateVms(
            spec=specs[-1],
            names=names,
            gang=asked.body.gang,
            cloud_init=asked.body.spec.cloud_init,
        )

    answer = await obey(desk, asked, target, make, prepare=prepare)
    if asked.query.dry_run:
        return answer
    operation = msgspec.json.decode(answer.body, type=Operation)
    whole = replace(operation, members=members_of(operation.id, names))
    return replace(answer, body=encode(whole))


async def start_vm(desk: Desk, asked: Asked[WishQuery, Nothing]) -> Answer:
    return await obey(desk, asked, _vm(desk, asked.path), lambda vm: commands.StartVm(vm=vm))


async def stop_vm(desk: Desk, asked: Asked[WishQuery, StopRequest]) -> Answer:
    def make(vm: str) -> commands.StopVm:
        return commands.StopVm(vm=vm, mode=asked.body.mode, grace_s=asked.body.grace_s)

    return await obey(desk, asked, _vm(desk, asked.path), make)


async def reboot_vm(desk: Desk, asked: Asked[WishQuery, RebootRequest]) -> Answer:
    def make(vm: str) -> commands.RebootVm:
        return commands.RebootVm(vm=vm, mode=asked.body.mode)

    return await obey(desk, asked, _vm(desk, asked.path), make)


async def pause_vm(desk: Desk, asked: Asked[WishQuery, Nothing]) -> Answer:
    return await obey(desk, asked, _vm(desk, asked.path), lambda vm: commands.PauseVm(vm=vm))


async def resume_vm(desk: Desk, asked: Asked[WishQuery, Nothing]) -> Answer:
    return await obey(desk, asked, _vm(desk, asked.path), lambda vm: commands.ResumeVm(vm=vm))


async def delete_vm(desk: Desk, asked: Asked[DeleteRequest, Nothing]) -> Answer:
    def make(vm: str) -> commands.DeleteVm:
        return commands.DeleteVm(vm=vm, mode=asked.query.mode, grace_s=asked.query.grace_s)

    return await obey(desk, asked, _vm(desk, asked.path), make)


# wishes about hosts


async def configure_host(desk: Desk, asked: Asked[WishQuery, HostChange]) -> Answer:
    change = asked.body

    async def target(_command: str) -> str:
        query = GetHost(host=name_in_path("host", asked.path["host"]))
        await desk.ask("inventory", "host.get", query)
        return query.host

    def make(host: str) -> commands.ConfigureHost:
        return commands.ConfigureHost(
            host=host,
            generation=change.generation,
            maintenance=change.maintenance,
            labels=change.labels,
            taints=change.taints,
            tuning=change.tuning,
        )

    return await obey(desk, asked, target, make)


# questions


async def list_vms(desk: Desk, asked: Asked[ListVms, Nothing]) -> Answer:
    require_page(desk, asked.query.limit)
    return await listed(desk, asked, "vm.list")


async def get_vm(desk: Desk, asked: Asked[PastQuery, Nothing]) -> Answer:
    query = GetVm(vm=name_in_path("VM", asked.path["vm"]), at=asked.query.at)
    return Answer(body=await desk.ask("inventory", "vm.get", query))


async def get_vm_reading(desk: Desk, asked: Asked[Nothing, Nothing]) -> Answer:
    vm = await id_of(desk, asked.path["vm"])
    return Answer(body=await desk.ask("metrics", "vm", GetVmReading(vm=vm)))


async def list_hosts(desk: Desk, asked: Asked[ListHosts, Nothing]) -> Answer:
    require_page(desk, asked.query.limit)
    return await listed(desk, asked, "host.list")


async def get_host(desk: Desk, asked: Asked[PastQuery, Nothing]) -> Answer:
    query = GetHost(host=name_in_path("host", asked.path["host"]), at=asked.query.at)
    return Answer(body=await desk.ask("inventory", "host.get", query))


async def get_host_reading(desk: Desk, asked: Asked[Nothing, Nothing]) -> Answer:
    query = GetHost(host=name_in_path("host", asked.path["host"]))
    return Answer(body=await desk.ask("metrics", "host", query))


async def list_operations(desk: Desk, asked: Asked[ListOperations, Nothing]) -> Answer:
    require_page(desk, asked.query.limit)
    return Answer(body=await desk.ask("inventory", "operation.list", asked.query))


async def get_operation(desk: Desk, asked: Asked[OperationQuery, Nothing]) -> Answer:
    operation = asked.path["operation"]
    if not is_uuid7(operation):
        raise refuse(not_found("operation", operation))
    if asked.query.at is not None:
        past = GetOperation(operation=operation, at=asked.query.at)
        return Answer(body=await desk.ask("inventory", "operation.get", past))
    settings = desk.settings
    query = decide.operation_query(
        operation,
        waiting.wait_s(desk, asked.query.wait),
        now=desk.rig.clock.now(),
        fresh_s=settings.fresh_operation_s,
        fresh_wait_s=settings.fresh_wait_s,
    )
    if query.until == "exists":
        timeout_s = settings.ask_timeout_s + query.wait_s
        return Answer(body=await desk.ask("inventory", "operation.get", query, timeout_s=timeout_s))
    asked.extend(query.wait_s)
    with desk.waits.one(desk.crowded("Too many requests wait for operations.")):
        return Answer(body=await waiting.until_ended(desk, query))


async def list_changes(desk: Desk, asked: Asked[ListChanges, Nothing]) -> Answer:
    require_page(desk, asked.query.limit)
    return Answer(body=await desk.ask("inventory", "change.list", asked.query))


async def get_effects(desk: Desk, asked: Asked[Nothing, Nothing]) -> Answer:
    operation = asked.path["operation"]
    if not is_uuid7(operation):
        raise refuse(not_found("operation", operation))
    question = ShowEffects(operation=operation)
    return Answer(body=await desk.ask("inventory", "operation.effects", question))


async def list_events(desk: Desk, asked: Asked[EventQuery, Nothing]) -> Answer:
    """The list; the stream of the same route stands in `stream`."""
    query = asked.query
    if query.site is not None:
        detail = "only streams know this parameter: ask with Accept: text/event-stream"
        raise refuse(invalid_request(FieldError(field="query/site", detail=detail)))
    limit = PAGE_ITEMS if query.limit is None else query.limit
    require_page(desk, limit)
    question = ListEvents(
        limit=limit,
        after=query.after,
        operation=query.operation,
        vm=await id_of(desk, query.vm) if query.vm else None,
        newest=query.newest,
        host=query.host,
        actor=query.actor,
        types=query.type,
        since=query.since,
        until=query.until,
    )
    return Answer(body=await desk.ask("inventory", "event.list", question))


# health


async def live(_desk: Desk) -> Answer:
    """The process answers."""
    return Answer(body=b'{"status":"live"}')


async def ready(desk: Desk) -> Answer:
    """Requests can be served: tokens are known, the bus is there, the inventory answers."""
    desk.require_bus()
    if not desk.tokens.ready:
        raise desk.away("The tokens have not been read yet.")
    await desk.ask("inventory", "ready", Empty(), timeout_s=desk.settings.ready_timeout_s)
    return Answer(body=b'{"status":"ready"}')


# what several of them need


async def id_of(desk: Desk, vm: str) -> str:
    """An id as it is, a name resolved: for questions, where an unknown id harms nobody."""
    return vm if is_uuid7(vm) else await vm_id(desk, vm)


async def vm_id(desk: Desk, vm: str) -> str:
    """The id of a VM given by id or name. Raises Refused if there is none.

    An id so young that the inventory may not know it yet is taken as it is: the scheduler, which gets
    commands in their order, knows better.
    """
    query = GetVm(vm=name_in_path("VM", vm))
    try:
        found = await desk.ask("inventory", "vm.get", query)
    except Refused as refused:
        fresh_s = desk.settings.fresh_operation_s
        young = decide.is_fresh(vm, now=desk.rig.clock.now(), within_s=fresh_s)
        if refused.refusal.problem.status == 404 and young:
            return vm
        raise
    return msgspec.json.decode(found, type=Identity).id


def _vm(desk: Desk, path: Mapping[str, str]) -> Target:
    async def target(_command: str) -> str:
        return await vm_id(desk, path["vm"])

    return target


def require_page(desk: Desk, limit: int) -> None:
    most = desk.settings.limits.page_items
    if limit > most:
        error = FieldError(field="query/limit", detail=f"expected int <= {most}")
        raise refuse(invalid_request(error))
