"""`vireo diff`: what changed between two times, and who changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vireo.cli import options, session
from vireo.cli.audit_away import note_what_is_away
from vireo.cli.options import examples, moment_of
from vireo.cli.printing import Output, show_data, show_table

if TYPE_CHECKING:
    from vireo.client import Client

EXAMPLES = examples(
    "vireo diff --from 2h",
    "vireo diff --from 2026-03-01 --to 2026-03-02",
    "vireo diff --from 3d -o json",
)


def diff(
    context: typer.Context,
    since: Annotated[
        str,
        typer.Option(
            "--from",
            help="As it was then: 2026-03-01T12:30 (UTC), or 2h ago as 2h.",
            metavar="TIME",
        ),
    ],
    until: Annotated[
        str | None, typer.Option("--to", help="Against then; now if left out.", metavar="TIME")
    ] = None,
    limit: options.Limit = None,
    output: options.Output = Output.TABLE,
) -> None:
    """Show what changed between two times: VMs, hosts, definitions, and whose operations did it."""
    begin, end = moment_of("--from", since), moment_of("--to", until)
    if begin is None:
        session.refuse("give --from")

    async def body(client: Client) -> None:
        from vireo.cli.audit_view import diff_table

        listing = client.audit.changes(since=begin, until=end, limit=limit)
        found = [changed async for changed in listing]
        await note_what_is_away(client, begin)
        if output.is_data:
            show_data(found, output)
            return
        show_table(diff_table(found, wide=output is Output.WIDE), empty="nothing changed")

    session.run(context, body)
