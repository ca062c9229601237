"""Policies, templates, projects and alert rules: one function per kind of request, for all of them.

The routes stand in `definition_routes`; what becomes of an applied definition is the inventory's.
"""

from __future__ import annotations

from msgspec import Struct

from schemas import commands
from schemas.definitions import AnyDefinition, DefinitionKind
from schemas.problems import FieldError, invalid_request
from schemas.queries import GetDefinition, ListDefinitions, ListVersions
from services.gateway.answers import Answer, refuse
from services.gateway.asked import Asked, name_in_path
from services.gateway.desk import Desk
from services.gateway.handlers import require_page
from services.gateway.model import Nothing, PageQuery, VersionQuery, WishQuery
from services.gateway.orders import obey

APPLY: dict[DefinitionKind, type[commands.ApplyDefinition]] = {
    "policy": commands.ApplyPolicy,
    "template": commands.ApplyTemplate,
    "project": commands.ApplyProject,
    "rule": commands.ApplyRule,
}
REMOVE: dict[DefinitionKind, type[commands.RemoveDefinition]] = {
    "policy": commands.RemovePolicy,
    "template": commands.RemoveTemplate,
    "project": commands.RemoveProject,
    "rule": commands.RemoveRule,
}


async def apply(kind: DefinitionKind, desk: Desk, asked: Asked[WishQuery, AnyDefinition]) -> Answer:
    name = name_in_path(kind, asked.path["name"])
    if asked.body.name != name:
        error = FieldError(field="/name", detail=f"expected {name!r}, as the path says")
        raise refuse(invalid_request(error))

    async def target(_command: str) -> str:
        return name

    return await obey(desk, asked, target, lambda _: APPLY[kind](definition=asked.body))  # type: ignore[arg-type]


async def remove(kind: DefinitionKind, desk: Desk, asked: Asked[WishQuery, Nothing]) -> Answer:
    async def target(_command: str) -> str:
        query = GetDefinition(kind=kind, name=name_in_path(kind, asked.path["name"]))
        await desk.ask("inventory", "definition.get", query)
        return query.name

    return await obey(desk, asked, target, lambda name: REMOVE[kind](name=name))


async def show(kind: DefinitionKind, desk: Desk, asked: Asked[VersionQuery, Nothing]) -> Answer:
    name = name_in_path(kind, asked.path["name"])
    query = GetDefinition(kind=kind, name=name, version=asked.query.version)
    return Answer(body=await desk.ask("inventory", "definition.get", query))


async def list_all(kind: DefinitionKind, desk: Desk, asked: Asked[PageQuery, Nothing]) -> Answer:
    require_page(desk, asked.query.limit)
    query = ListDefinitions(kind=kind, limit=asked.query.limit, after=asked.query.after)
    return await _page(desk, "definition.list", query)


async def versions(kind: DefinitionKind, desk: Desk, asked: Asked[PageQuery, Nothing]) -> Answer:
    require_page(desk, asked.query.limit)
    name = name_in_path(kind, asked.path["name"])
    query = ListVersions(kind=kind, name=name, limit=asked.query.limit, after=asked.query.after)
    return await _page(desk, "definition.versions", query)


async def _page(desk: Desk, endpoint: str, query: Struct) -> Answer:
    return Answer(body=await desk.ask("inventory", endpoint, query))
