"""What all commands that start an operation share: begin it, wait for it if wished, say how it went."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import typer
from msgspec import Struct

from vireo.cli import options, session
from vireo.cli.options import parsed
from vireo.cli.printing import Output, note, show_data, show_lines, show_page
from vireo.cli.quantities import seconds

if TYPE_CHECKING:
    from schemas.forecasts import Forecast
    from schemas.resources import Operation
    from vireo.client import Client
    from vireo.operations import PendingOperation

Begin = Callable[[Any], Awaitable["PendingOperation | Forecast"]]
"""From a client, or its dry run, which has the same calls, to what comes of the call."""


class Waiting(Struct, frozen=True, kw_only=True):
    """How a command was asked to wait and to report."""

    wait: bool
    timeout_s: float
    quiet: bool
    output: Output
    dry_run: bool = False


def waiting(
    wait: options.Wait = True,
    timeout: options.Timeout = options.WAIT,
    quiet: options.Quiet = False,
    dry_run: options.DryRun = False,
    output: options.Output = Output.TABLE,
) -> Waiting:
    """From the options that all such commands share."""
    timeout_s = parsed("--timeout", seconds, timeout)
    return Waiting(wait=wait, timeout_s=timeout_s, quiet=quiet, output=output, dry_run=dry_run)


def waits(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options of `waiting` in place of its parameter `how`.

    typer reads a command's options from its signature, so there they are put.
    """
    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(waiting, eval_str=True).parameters

    @wraps(command)
    def with_options(**given: Any) -> None:
        how = waiting(**{name: given.pop(name) for name in shared})
        command(**given, how=how)

    parameters = [one for one in own.values() if one.name != "how"] + [*shared.values()]
    by_name = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    with_options.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in by_name}
    return with_options


def act(context: typer.Context, begin: Begin, how: Waiting, *, name: str) -> None:
    """Run one operation on `name` and report it: its end, or that it was accepted; or, without doing
    anything, what would come of it."""

    async def body(client: Client) -> None:
        from vireo.operations import PendingOperation

        pending = await begin(client.dry_run if how.dry_run else client)
        if not isinstance(pending, PendingOperation):
            foretell(pending, how.output, name=name)
            return
        operation = await finish(pending, how) if how.wait else pending.latest
        report(operation, how.output, name=name)

    session.run(context, body)


def act_many(context: typer.Context, begin: Begin, how: Waiting, *, name: str) -> None:
    """Run one operation that makes several VMs and report each of theirs. Where one did not come to
    be, the command ends as its refusal would."""

    async def body(client: Client) -> None:
        from vireo.cli.exits import code_of_failure
        from vireo.operations import PendingOperation

        pending = await begin(client.dry_run if how.dry_run else client)
        if not isinstance(pending, PendingOperation):
            foretell(pending, how.output, name=name)
            return
        ended = await finish_all(pending, how)
        if how.output.is_data:
            show_data(ended, how.output)
        problems = [one.problem for one in ended if one.problem is not None]
        if problems:
            raise typer.Exit(code_of_failure(problems[0]))

    session.run(context, body)


async def finish_all(pending: PendingOperation, how: Waiting) -> list[Operation]:
    """The operations of the VMs, as they ended or, without waiting, as they began; a line for each as
    soon as it is known. Raises OperationFailed if nothing was placed, TimedOut."""
    from vireo.errors import OperationFailed

    members = list(zip(pending.latest.members, pending.members, strict=True))
    now = asyncio.get_running_loop().time
    until = now() + how.timeout_s
    if how.wait:
        await finish(pending, how)

    async def end(name: str, member: PendingOperation) -> Operation:
        try:
            operation = await member.wait(max(0.0, until - now())) if how.wait else member.latest
        except OperationFailed as failed:
            operation = failed.operation
        if not how.output.is_data:
            why = f": {operation.problem.detail}" if operation.problem is not None else ""
            show_lines([result_line(operation, name) + why])
        return operation

    return list(await asyncio.gather(*(end(one.name, member) for one, member in members)))


async def finish(pending: PendingOperation, how: Waiting) -> Operation:
    """Wait with progress. Raises OperationFailed, TimedOut."""
    from vireo.cli.progress import watch

    try:
        return await watch(pending, timeout_s=how.timeout_s, quiet=how.quiet)
    except asyncio.CancelledError:
        note(f"the operation goes on: vireo operation show {pending.id}")
        raise


def foretell(forecast: Forecast, output: Output, *, name: str) -> None:
    """Show what would come of it. What would be refused ends as the refusal itself would."""
    from vireo.cli.exits import code_of_failure
    from vireo.cli.forecast_view import forecast_page

    if output.is_data:
        show_data(forecast, output)
    else:
        show_page(forecast_page(forecast, name=name))
    if forecast.problem is not None:
        raise typer.Exit(code_of_failure(forecast.problem))


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
    # Whether it shut down or was cut off is worth a word, and which version a definition has now.
    telling = operation.command == "vm.stop" or operation.kind not in ("vm", "host")
    how = f": {operation.detail}" if telling and operation.detail else ""
    return f"{operation.command} {name}: succeeded{where} in {took(operation)}{how}"
