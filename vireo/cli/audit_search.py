"""`vireo audit log` and `vireo audit show`: what was asked and what came of it, from the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vireo.cli import completion, options, session
from vireo.cli.audit_away import note_what_is_away
from vireo.cli.options import examples, moment_of
from vireo.cli.printing import Output, note, show_data, show_lines, show_table

if TYPE_CHECKING:
    from schemas.envelope import Header
    from vireo.client import Client

LOG_EXAMPLES = examples(
    "vireo audit log",
    "vireo audit log --actor token/anna --since 2h",
    "vireo audit log --vm web1 --type vm.crashed --type vm.stopped",
    "vireo audit log --kind host --since 2026-03-01 --until 2026-03-02 --oldest -o json",
)
SHOW_EXAMPLES = examples(
    "vireo audit show 0198c0de-0000-7000-8000-000000000001",
    "vireo audit show 0198c0de-0000-7000-8000-000000000001 -o wide",
)
MOST = 50


def log(
    context: typer.Context,
    actor: Annotated[
        str | None,
        typer.Option(help="Only what this one asked for, like token/anna.", metavar="ACTOR"),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Only events about a vm, a host, an operation, …", metavar="KIND"),
    ] = None,
    vm: Annotated[
        str | None,
        typer.Option(help="Only those of this VM.", autocompletion=completion.vms, metavar="VM"),
    ] = None,
    host: options.OnlyHost = None,
    operation: Annotated[
        str | None,
        typer.Option(
            help="Only those of this operation.",
            autocompletion=completion.operations,
            metavar="OPERATION",
        ),
    ] = None,
    type: Annotated[
        list[str] | None,
        typer.Option(help="Only these, like vm.started; may be repeated.", metavar="TYPE"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Stored then or later: 2026-03-01T12:30 (UTC), or 2h.", metavar="TIME"),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stored before.", metavar="TIME")] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.", metavar="N")] = MOST,
    output: options.Output = Output.TABLE,
) -> None:
    """Search the record, the newest first. All that is given must hold, one of the types."""
    types = [*(type or ()), *([f"{kind}.*"] if kind else [])]
    if kind and type:
        session.refuse("give --kind or --type, not both")
    begin, end = moment_of("--since", since), moment_of("--until", until)

    async def body(client: Client) -> None:
        from vireo.cli.audit_view import log_table

        about = await vm_ever(client, vm) if vm else None
        listing = client.events.list(
            operation=operation,
            vm=about,
            host=host,
            actor=actor,
            types=types,
            since=begin,
            until=end,
            newest=not oldest,
            limit=limit,
        )
        found = [header async for header in listing]
        if len(found) < limit:
            await note_what_is_away(client, begin)
        if output.is_data:
            show_data([_plain(header) for header in found], output)
            return
        show_table(log_table(found, wide=output is Output.WIDE), empty="nothing in the record")

    session.run(context, body)


def show(
    context: typer.Context,
    operation: Annotated[
        str,
        typer.Argument(
            help="The operation's id.", autocompletion=completion.operations, metavar="OPERATION"
        ),
    ],
    output: options.Output = Output.TABLE,
) -> None:
    """Show all that one request caused, as a tree, each step with the time since the request."""

    async def body(client: Client) -> None:
        from vireo.cli.audit_view import tree_lines

        found = await client.operations.effects(operation)
        if output.is_data:
            show_data(found, output)
            return
        show_lines(tree_lines(found, wide=output is Output.WIDE))
        if found.away:
            note(f"its events may also be among what is not in the database any more: {found.away}")
        if not found.whole:
            note("there is more than is shown: vireo audit log --operation " + operation)

    session.run(context, body)


async def vm_ever(client: Client, vm: str) -> str:
    """The id of a VM that is, or of the newest of those that were called so."""
    from vireo.errors import NotFound

    try:
        return (await client.vms.get(vm)).id
    except NotFound:
        async for gone in client.vms.list(name=vm, state="deleted", limit=1):
            return gone.id
        raise


def _plain(header: Header) -> Any:
    """With its data as plain values, which YAML needs."""
    import msgspec

    fields = {name: getattr(header, name) for name in header.__struct_fields__}
    given = {name: value for name, value in fields.items() if value is not None}
    return {**given, "data": msgspec.json.decode(header.data)}
