"""`vireo inventory`: what the inventory shows, made anew from its events."""

from __future__ import annotations

from typing import Annotated

import typer

from vireo.cli.acting import Waiting, act, waits
from vireo.cli.options import examples

app = typer.Typer(help="The inventory.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def inventory() -> None:
    """The inventory: the tables that follow from the events."""


@app.command(
    epilog=examples(
        "vireo inventory rebuild --compare-only",
        "vireo inventory rebuild",
        "vireo inventory rebuild --timeout 1h",
    )
)
@waits
def rebuild(
    context: typer.Context,
    compare_only: Annotated[
        bool,
        typer.Option(
            "--compare-only", help="Change nothing: fail if they are not the same, naming the rows."
        ),
    ] = False,
    *,
    how: Waiting,
) -> None:
    """Make the tables of VMs, operations and hosts anew from all events, and read those from then on.

    It goes on in the inventory, whether it is waited for or not; what reads and writes goes on, too.
    """
    act(
        context,
        lambda client: client.inventory.rebuild(compare_only=compare_only),
        how,
        name="inventory",
    )
