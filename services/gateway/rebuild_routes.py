"""The routes by which what can be made anew is: a wish like any other, with an operation."""

from __future__ import annotations

from typing import Any

from schemas import commands
from schemas.resources import Operation
from services.gateway.answers import Answer
from services.gateway.asked import Asked
from services.gateway.desk import Desk
from services.gateway.model import Nothing, RebuildRequest, WishQuery
from services.gateway.orders import obey
from services.gateway.route import Route


async def _rebuild_inventory(desk: Desk, asked: Asked[WishQuery, RebuildRequest]) -> Answer:
    def make(_target: str) -> commands.RebuildInventory:
        return commands.RebuildInventory(compare_only=asked.body.compare_only)

    return await obey(desk, asked, _inventory, make)


async def _inventory(_command: str) -> str:
    return "inventory"


async def _rebuild_fleet(desk: Desk, asked: Asked[WishQuery, Nothing]) -> Answer:
    return await obey(desk, asked, _fleet, lambda _: commands.RebuildFleet())


async def _fleet(_command: str) -> str:
    return "fleet"


REBUILDS: tuple[Route[Any, Any], ...] = (
    Route(
        method="POST",
        path="/v1/inventory/rebuild",
        name="rebuild_inventory",
        summary="Make the inventory's tables anew from its events",
        description=(
            "They are made beside those that are read, compared with them, and take their place; with "
            "`compare_only`, only compared: the operation fails if they differ."
        ),
        handler=_rebuild_inventory,
        answer=Operation,
        query=WishQuery,
        body=RebuildRequest,
    ),
    Route(
        method="POST",
        path="/v1/fleet/rebuild",
        name="rebuild_fleet",
        summary="Write to the bucket FLEET what the events say was in it",
        description=(
            "For when it was lost. What is there and not older stays; no guest is touched by it."
        ),
        handler=_rebuild_fleet,
        answer=Operation,
        query=WishQuery,
        body=Nothing,
    ),
)
