"""What all commands that start an operation share: begin it, wait for it if wished, say how it went."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import typer
from msgspec import Struct

from vireo.cli import session
from vireo.cli.options import parsed
from vireo.cli.printing import Output, note, show_data, show_lines
from vireo.cli.quantities import seconds

if TYPE_CHECKING:
    from schemas.resources import Operation
    from vireo.client import Client
    from vireo.operations import PendingOperation

Begin = Callable[["Client"], Awaitable["PendingOperation"]]


class Waiting(Struct, frozen=True, kw_only=True):
    """How a command was asked to wait and to report."""

    wait: bool
    timeout_s: float
    quiet: bool
    output: Output


def waiting(*, wait: bool, timeout: str, quiet: bool, output: Output) -> Waiting:
    timeout_s = parsed("--timeout", seconds, timeout)
    return Waiting(wait=wait, timeout_s=timeout_s, quiet=quiet, output=output)


def act(context: typer.Context, begin: Begin, how: Waiting, *, name: str) -> None:
    """Run one operation on `name` and report it: its end, or that it was accepted."""

    async def body(client: Client) -> None:
        pending = await begin(client)
        operation = await finish(pending, how) if how.wait else pending.latest
        report(operation, how.output, name=name)

    session.run(context, body)


async def finish(pending: PendingOperation, how: Waiting) -> Operation:
    """Wait with progress. Raises OperationFailed, TimedOut."""
    from vireo.cli.progress import watch

    try:
        return await watch(pending, timeout_s=how.timeout_s, quiet=how.quiet)
    except asyncio.CancelledError:
        note(f"the operation goes on: vireo operation show {pending.id}")
        raise


def report(operation: Operation, output: Output, *, name: str) -> None:
    if output.is_data:
        show_data(operation, output)
    else:
        show_lines([result_line(operation, name)])


def result_line(operation: Operation, name: str) -> str:
    """`vm.create web1: succeeded on h1 in 3.4 s`"""
    from vireo.cli.operation_view import took

    if operation.phase != "succeeded":
        return f"{operation.command} {name}: {operation.phase} (operation {operation.id})"
    where = f" on {operation.host}" if operation.host else ""
    return f"{operation.command} {name}: succeeded{where} in {took(operation)}"
