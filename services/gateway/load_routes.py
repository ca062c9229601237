"""The routes by which a whole fleet is looked through: what is newest of every host and VM, in pages."""

from __future__ import annotations

from functools import partial
from typing import Any

from schemas.loads import HostLoad, ListHostLoads, ListVmLoads, VmLoad
from services.gateway.answers import Answer
from services.gateway.asked import Asked
from services.gateway.desk import Desk
from services.gateway.handlers import require_page
from services.gateway.model import Nothing
from services.gateway.route import Route


async def _ask(endpoint: str, desk: Desk, asked: Asked[Any, Nothing]) -> Answer:
    require_page(desk, asked.query.limit)
    return Answer(body=await desk.ask("metrics", endpoint, asked.query))


LOADS: tuple[Route[Any, Any], ...] = (
    Route(
        method="GET",
        path="/v1/telemetry/hosts",
        name="list_host_loads",
        summary="List how busy hosts are, by name",
        description="What each told last. With `recent`, as many ticks of its CPU go along.",
        handler=partial(_ask, "load.hosts"),
        answer=HostLoad,
        query=ListHostLoads,
        body=Nothing,
        page=True,
    ),
    Route(
        method="GET",
        path="/v1/telemetry/vms",
        name="list_vm_loads",
        summary="List how busy VMs are, by id",
        description="What was told of each last. With `recent`, as many ticks of its CPU go along.",
        handler=partial(_ask, "load.vms"),
        answer=VmLoad,
        query=ListVmLoads,
        body=Nothing,
        page=True,
    ),
)
