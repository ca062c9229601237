"""`vireo fleet`: the desired state of everything, made anew from the record."""

from __future__ import annotations

import typer

from vireo.cli.acting import Waiting, act, waits
from vireo.cli.options import examples

app = typer.Typer(help="The bucket FLEET.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def fleet() -> None:
    """The bucket FLEET: what every host is to run."""


@app.command(epilog=examples("vireo fleet rebuild --dry-run", "vireo fleet rebuild"))
@waits
def rebuild(context: typer.Context, *, how: Waiting) -> None:
    """Write to the bucket FLEET what the events say was in it: after it was lost.

    What is there and not older stays as it is, and no guest is touched.
    """
    act(context, lambda client: client.fleet.rebuild(), how, name="fleet")
