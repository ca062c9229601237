"""`vireo event`: what happens, as it happens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from vireo.cli import completion, session, subscribe
from vireo.cli.options import examples
from vireo.cli.positions import Position
from vireo.cli.printing import Output, show_lines, show_record

if TYPE_CHECKING:
    from vireo.client import Client

app = typer.Typer(help="Events.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def events() -> None:
    """Events: facts, as they happen."""


@app.command(
    epilog=examples(
        "vireo event tail",
        "vireo event tail --vm web1",
        "vireo event tail --type vm.crashed --type vm.failed -o json",
        "vireo event tail --after 0 --count 10",
        "vireo event tail --name nightly -o json >> events.jsonl",
    )
)
def tail(
    context: typer.Context,
    operation: Annotated[
        str | None,
        typer.Option(
            help="Only those of this operation.",
            autocompletion=completion.operations,
            metavar="OPERATION",
        ),
    ] = None,
    vm: Annotated[
        str | None,
        typer.Option(help="Only those of this VM.", autocompletion=completion.vms, metavar="VM"),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Only those of this host.", autocompletion=completion.hosts, metavar="HOST"
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only this one, like vm.started; repeatable.", metavar="TYPE"),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(help="Begin after this place in the stream; 0 is its start.", metavar="N"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Go on where this was last called by the same name; kept in a file of yours.",
            metavar="NAME",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many.", metavar="N")
    ] = None,
    output: Annotated[
        Output,
        typer.Option(
            "-o",
            "--output",
            help="json and yaml are exactly the CloudEvents: one a line, or one a document.",
            metavar="table|wide|json|yaml",
        ),
    ] = Output.TABLE,
) -> None:
    """Show events as they happen, until Ctrl-C. Reconnects without losing any."""

    position = _position(name)
    begin = after
    if begin is None and position is not None:
        begin = position.read()

    async def body(client: Client) -> None:
        from contextlib import aclosing

        from vireo.cli.operation_view import event_line

        about = (await client.vms.get(vm)).id if vm else None
        events = client.events.stream(
            operation=operation, vm=about, host=host, types=types or (), after=begin
        )
        left = count
        async with aclosing(events):
            async for event in events:
                if output.is_data:
                    show_record(event.raw, output)
                else:
                    show_lines([event_line(event.name, event.header)])
                if position is not None:
                    position.write(event.sequence)
                left = None if left is None else left - 1
                if left == 0:
                    return

    session.run(context, body)


def _position(name: str | None) -> Position | None:
    from schemas.ids import is_name

    if name is None:
        return None
    if not is_name(name):
        session.refuse("--name: expected lower-case letters, digits and hyphens")
    return Position(os.environ, name)


app.command(epilog=subscribe.SUBSCRIBE)(subscribe.subscribe)
app.command(epilog=examples("vireo event unsubscribe pager"))(subscribe.unsubscribe)
app.command(epilog=examples("vireo event subscriptions"))(subscribe.subscriptions)
