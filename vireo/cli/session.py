"""A command's time with the server: choose the context, connect, run, turn errors into exit codes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from vireo.cli.exits import Exit, code_of, error_text
from vireo.cli.printing import note

if TYPE_CHECKING:
    from vireo.client import Client
    from vireo.contexts import Target

T = TypeVar("T")
Body = Callable[["Client"], Awaitable[None]]


def run(context: typer.Context, body: Body) -> None:
    """Run `body` with a client of the chosen context."""
    from vireo.errors import VireoError

    target = target_of(context)
    try:
        asyncio.run(_with_client(target, body))
    except VireoError as error:
        note(error_text(error, url=target.url))
        raise typer.Exit(code_of(error)) from error


def target_of(context: typer.Context) -> Target:
    from vireo.contexts import ContextError, chosen, contexts_file, is_private

    try:
        target = chosen(os.environ, context=context.obj)
    except ContextError as error:
        refuse(str(error), hint="'vireo context list' shows the contexts there are")
    for path in (contexts_file(os.environ), Path(target.token_file or "")):
        if path.is_file() and not is_private(path):
            note(f"warning: others may read {path}; close it with: chmod 600 {path}")
    return target


def refuse(text: str, *, hint: str = "", code: Exit = Exit.USAGE) -> NoReturn:
    """End the command before anything was sent."""
    note(f"error: {text}")
    if hint:
        note(f"hint: {hint}")
    raise typer.Exit(code)


async def _with_client(target: Target, body: Body) -> None:
    from vireo.client import Client
    from vireo.contexts import ContextError

    try:
        client = Client.to(target)
    except (ContextError, ValueError) as error:
        refuse(str(error), hint="'vireo context show' tells where this comes from")
    async with client:
        await body(client)


async def if_known(asked: Awaitable[T] | None) -> T | None:
    """What belongs to a page but must not stand in its way: None if it can't be had."""
    from vireo.errors import VireoError

    if asked is None:
        return None
    try:
        return await asked
    except VireoError:
        return None
