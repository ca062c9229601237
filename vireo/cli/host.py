"""`vireo host`: look at hosts, set maintenance and labels."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.resources import HostState
from vireo.cli import acting, options, session
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, show_data, show_page, show_table
from vireo.cli.quantities import labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vireo.client import Client
    from vireo.operations import PendingOperation

app = typer.Typer(help="Hosts.", no_args_is_help=True, rich_markup_mode=None)


@app.command(
    "list", epilog=examples("vireo host list", "vireo host list --label disk=nvme -o wide")
)
def list_(
    context: typer.Context,
    state: Annotated[HostState | None, typer.Option(help="Only those in this state.")] = None,
    label: options.Labels = None,
    limit: options.Limit = None,
    output: options.Output = Output.TABLE,
) -> None:
    """List hosts by name."""
    wanted = parsed("--label", labels, label or ())

    async def body(client: Client) -> None:
        from vireo.cli.host_view import host_table

        found = [host async for host in client.hosts.list(state=state, labels=wanted, limit=limit)]
        if output.is_data:
            show_data(found, output)
            return
        table = host_table(found, wide=output is Output.WIDE, now=datetime.now(UTC))
        show_table(table, empty="no hosts yet; each registers when its agent starts")

    session.run(context, body)


@app.command(epilog=examples("vireo host show h1", "vireo host show h1 -o json"))
def show(context: typer.Context, host: options.Host, output: options.Output = Output.TABLE) -> None:
    """Show all about one host: capacity and what is reserved, topology, versions, telemetry."""

    async def body(client: Client) -> None:
        from vireo.cli.host_view import host_page

        found = await client.hosts.get(host)
        if output.is_data:
            show_data(found, output)
            return
        reading = await session.if_known(client.hosts.telemetry(host))
        show_page(host_page(found, reading=reading, now=datetime.now(UTC)))

    session.run(context, body)


@app.command(
    "set",
    epilog=examples(
        "vireo host set h1 --maintenance",
        "vireo host set h1 --no-maintenance",
        "vireo host set h1 --label disk=nvme --remove-label rack",
    ),
)
def set_(
    context: typer.Context,
    host: options.Host,
    maintenance: Annotated[
        bool | None,
        typer.Option("--maintenance/--no-maintenance", help="Whether new VMs stay away."),
    ] = None,
    label: options.Labels = None,
    remove_label: Annotated[
        list[str] | None, typer.Option(help="A label to take away.", metavar="KEY")
    ] = None,
    wait: options.Wait = True,
    timeout: options.Timeout = options.WAIT,
    quiet: options.Quiet = False,
    output: options.Output = Output.TABLE,
) -> None:
    """Set a host's maintenance and labels; what isn't named stays as it is."""
    how = acting.waiting(wait=wait, timeout=timeout, quiet=quiet, output=output)
    added, removed = parsed("--label", labels, label or ()), remove_label or []
    if maintenance is None and not added and not removed:
        session.refuse("nothing to set", hint="vireo host set --help")

    async def begin(client: Client) -> PendingOperation:
        wished = await _labels(client, host, added, removed) if added or removed else None
        return await client.hosts.configure(host, maintenance=maintenance, labels=wished)

    acting.act(context, begin, how, name=host)


async def _labels(
    client: Client, host: str, added: Mapping[str, str], removed: Sequence[str]
) -> dict[str, str]:
    """All labels that operators have set, with these changes: the server replaces the whole."""
    old = (await client.hosts.get(host)).config.labels
    return {key: value for key, value in {**old, **added}.items() if key not in removed}
