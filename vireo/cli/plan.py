"""`vireo balance plan`, `vireo host drain plan`, `vireo plan`: moves proposed, saved, compared, checked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from schemas.plans import Plan
from vireo.cli import options, session, words
from vireo.cli.exits import Exit
from vireo.cli.options import examples
from vireo.cli.printing import Output, data_text, note, show_data, show_page, show_table

if TYPE_CHECKING:
    from vireo.client import Client

MOST_BYTES = 8 << 20

balance = typer.Typer(
    help="Even the fleet out: what is proposed.", no_args_is_help=True, rich_markup_mode=None
)
drain = typer.Typer(
    help="Empty a host: what is proposed.", no_args_is_help=True, rich_markup_mode=None
)
app = typer.Typer(
    help="Saved plans: look at them, compare, check.", no_args_is_help=True, rich_markup_mode=None
)

Save = Annotated[
    Path | None,
    typer.Option("--save", help="Write the plan as JSON to this file, too.", metavar="FILE"),
]
Saved = Annotated[Path, typer.Argument(help="A saved plan; - is standard input.", metavar="FILE")]


@balance.command(
    "plan",
    epilog=examples(
        "vireo balance plan",
        "vireo balance plan --start 0.15 --stop 0.05 --max-moves 20",
        "vireo balance plan --save monday.json",
    ),
)
def plan_balance(
    context: typer.Context,
    start: Annotated[
        float | None,
        typer.Option(help="Propose moves above this imbalance.", min=0, max=1, metavar="SHARE"),
    ] = None,
    stop: Annotated[
        float | None,
        typer.Option(help="Propose them down to this imbalance.", min=0, max=1, metavar="SHARE"),
    ] = None,
    max_moves: Annotated[
        int | None,
        typer.Option("--max-moves", help="Propose at most so many.", min=1, metavar="N"),
    ] = None,
    save: Save = None,
    output: options.Output = Output.TABLE,
) -> None:
    """Propose the fewest moves that take the fleet below an imbalance. Nothing is moved.

    Exit code 1 if the imbalance stays above what was asked for.
    """

    async def body(client: Client) -> None:
        plan = await client.plans.balance(start=start, stop=stop, max_moves=max_moves)
        _show(plan, save, output)

    session.run(context, body)


@drain.command(
    "plan",
    epilog=examples("vireo host drain plan h1", "vireo host drain plan h1 --save drain-h1.json"),
)
def plan_drain(
    context: typer.Context,
    host: options.Host,
    save: Save = None,
    output: options.Output = Output.TABLE,
) -> None:
    """Propose the moves that empty a host, and say who can go nowhere. Nothing is moved.

    Exit code 1 if a VM would have to stay.
    """

    async def body(client: Client) -> None:
        _show(await client.plans.drain(host), save, output)

    session.run(context, body)


@app.command(epilog=examples("vireo plan show monday.json"))
def show(file: Saved, output: options.Output = Output.TABLE) -> None:
    """Show a saved plan."""
    _print(_read(file), output)


@app.command(epilog=examples("vireo plan check monday.json"))
def check(context: typer.Context, file: Saved, output: options.Output = Output.TABLE) -> None:
    """Tell whether a saved plan still holds, or what has changed of what it relied on.

    Exit code 5 if it does not hold any more.
    """
    plan = _read(file)

    async def body(client: Client) -> None:
        found = await client.plans.check(plan)
        if output.is_data:
            show_data(found, output)
        else:
            typer.echo(f"plan {plan.id} holds: {plan.detail}")

    session.run(context, body)


@app.command(epilog=examples("vireo plan diff monday.json tuesday.json"))
def diff(
    old: Annotated[Path, typer.Argument(help="A saved plan.", metavar="A")],
    new: Annotated[Path, typer.Argument(help="A saved plan.", metavar="B")],
) -> None:
    """Show which moves B has that A has not, and the other way round.

    Exit code 1 if they differ.
    """
    from vireo.cli.plan_view import diff_summary, diff_table

    first, second = _read(old), _read(new)
    table = diff_table(first, second)
    if table.rows:
        show_table(table, empty="")
    note(diff_summary(first, second))
    if table.rows:
        raise typer.Exit(Exit.FAILED)


def _show(plan: Plan, save: Path | None, output: Output) -> None:
    if save is not None:
        _write(save, plan)
    _print(plan, output)
    if plan.outcome in ("limited", "stuck"):
        raise typer.Exit(Exit.FAILED)


def _print(plan: Plan, output: Output) -> None:
    if output.is_data:
        show_data(plan, output)
        return
    from vireo.cli.plan_view import plan_page

    show_page(plan_page(plan))


def _write(file: Path, plan: Plan) -> None:
    try:
        file.write_text(data_text(plan, Output.JSON), encoding="utf-8")
    except OSError as error:
        session.refuse(f"cannot write {file}: {words.unreadable(error)}")


def _read(file: Path) -> Plan:
    try:
        if str(file) == "-":
            text = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with file.open("rb") as opened:
                text = opened.read(MOST_BYTES + 1)
    except OSError as error:
        session.refuse(f"cannot read {file}: {words.unreadable(error)}")
    if len(text) > MOST_BYTES:
        session.refuse(f"{file} is larger than {MOST_BYTES} bytes")
    try:
        return msgspec.json.decode(text, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        session.refuse(f"{file} holds no plan: {error}")
