"""Names for the shell to complete, asked of the server; nothing at all rather than a slow shell."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from vireo.client import Client

Names = Callable[["Client"], AsyncIterator[str]]

_MOST = 500
_PATIENCE_S = 1.5


def vms(context: typer.Context, incomplete: str) -> list[str]:
    return _matching(context, incomplete, _vm_names)


def hosts(context: typer.Context, incomplete: str) -> list[str]:
    return _matching(context, incomplete, _host_names)


def operations(context: typer.Context, incomplete: str) -> list[str]:
    return _matching(context, incomplete, _operation_ids)


def definitions(room: str) -> Callable[[typer.Context, str], list[str]]:
    """Names of one kind of definition; `room` is the client's: `policies`, …"""

    async def names(client: Client) -> AsyncIterator[str]:
        async for definition in getattr(client, room).list(limit=_MOST):
            yield definition.name

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        return _matching(context, incomplete, names)

    return complete


def names_of_group(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the kind that a group of commands is about: in `vireo policy show`, of policies."""
    group = context.parent.info_name if context.parent is not None else None
    rooms = {
        "policy": "policies",
        "template": "templates",
        "project": "projects",
        "alert": "rules",
    }
    return definitions(rooms[group])(context, incomplete) if group in rooms else []


def contexts(incomplete: str) -> list[str]:
    from vireo.contexts import ContextError, contexts_file, load

    try:
        names = load(contexts_file(os.environ)).contexts
    except ContextError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


async def _vm_names(client: Client) -> AsyncIterator[str]:
    async for vm in client.vms.list(limit=_MOST):
        yield vm.spec.name


async def _host_names(client: Client) -> AsyncIterator[str]:
    async for host in client.hosts.list(limit=_MOST):
        yield host.name


async def _operation_ids(client: Client) -> AsyncIterator[str]:
    async for operation in client.operations.list(limit=50):
        yield operation.id


def _matching(context: typer.Context, incomplete: str, names: Names) -> list[str]:
    from vireo.contexts import ContextError
    from vireo.errors import VireoError

    chosen = context.find_root().params.get("chosen")
    try:
        found = asyncio.run(_ask(chosen, names))
    except (ContextError, VireoError, ValueError, TimeoutError):
        return []
    return sorted(name for name in found if name.startswith(incomplete))


async def _ask(context: str | None, names: Names) -> list[str]:
    from vireo.client import Client
    from vireo.contexts import chosen
    from vireo.settings import ClientSettings

    target = chosen(os.environ, context=context)
    async with asyncio.timeout(_PATIENCE_S):
        async with Client.to(target, settings=ClientSettings(attempts=1)) as client:
            return [name async for name in names(client)]
