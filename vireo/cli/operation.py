"""`vireo operation`: what was asked, how far it is, how it went."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.resources import OperationPhase
from vireo.cli import acting, completion, options, session
from vireo.cli.audit_away import note_what_is_away
from vireo.cli.options import examples
from vireo.cli.printing import Output, show_data, show_page, show_table

if TYPE_CHECKING:
    from vireo.client import Client

app = typer.Typer(
    help="Operations: the life of each request.", no_args_is_help=True, rich_markup_mode=None
)

MOST = 50


@app.command(
    "list", epilog=examples("vireo operation list", "vireo operation list --phase failed -o wide")
)
def list_(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Option(help="Only those of this VM (id) or host (name).", metavar="TARGET"),
    ] = None,
    phase: Annotated[OperationPhase | None, typer.Option(help="Only those in this phase.")] = None,
    actor: Annotated[
        str | None, typer.Option(help="Only those asked for by this one.", metavar="ACTOR")
    ] = None,
    at: options.At = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.", metavar="N")] = MOST,
    output: options.Output = Output.TABLE,
) -> None:
    """List operations, newest first."""
    then = options.moment_of("--at", at)

    async def body(client: Client) -> None:
        from vireo.cli.operation_view import operation_table

        listing = client.operations.list(
            target=target, phase=phase, actor=actor, at=then, limit=limit
        )
        found = [operation async for operation in listing]
        if output.is_data:
            show_data(found, output)
            return
        now = then or datetime.now(UTC)
        table = operation_table(found, wide=output is Output.WIDE, now=now)
        show_table(table, empty="no operations")

    session.run(context, body)


@app.command(
    epilog=examples(
        "vireo operation show 0198c0de-0000-7000-8000-000000000001",
        "vireo operation show 0198c0de-0000-7000-8000-000000000001 --wait --timeout 1m",
    )
)
def show(
    context: typer.Context,
    operation: Annotated[
        str,
        typer.Argument(
            help="The operation's id.", autocompletion=completion.operations, metavar="OPERATION"
        ),
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end first.")] = False,
    at: options.At = None,
    timeout: options.Timeout = options.WAIT,
    quiet: options.Quiet = False,
    output: options.Output = Output.TABLE,
) -> None:
    """Show an operation's trail, each step with its time, and why the host was chosen."""
    then = options.moment_of("--at", at)
    if then is not None and wait:
        session.refuse("what has been does not change: give --at or --wait")
    how = acting.waiting(wait=wait, timeout=timeout, quiet=quiet, output=output)

    async def body(client: Client) -> None:
        from vireo.cli.operation_view import operation_page

        if wait:
            found = await acting.finish(await client.operations.pending(operation), how)
        else:
            found = await client.operations.get(operation, at=then)
        if output.is_data:
            show_data(found, output)
        else:
            show_page(operation_page(found, now=then or datetime.now(UTC)))
            if not found.trail:
                await note_what_is_away(client, found.created_at)

    session.run(context, body)
