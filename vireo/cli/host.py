"""`vireo host`: look at hosts, set what operators say of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.resources import HostState, HostTuning
from vireo.cli import acting, metrics, options, plan, session
from vireo.cli.host_change import HostChanges, changed_tuning, removals, taints
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, show_data, show_page, show_table
from vireo.cli.quantities import disk_gib, labels, memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from vireo.client import Client
    from vireo.operations import PendingOperation

Overcommit = Annotated[
    float | None,
    typer.Option(help="How often it may be promised; 2 is twice what there is.", metavar="RATIO"),
]

app = typer.Typer(help="Hosts.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(plan.drain, name="drain")
app.command("metrics", epilog=metrics.HOST_EXAMPLES)(metrics.host)


@app.command(
    "list", epilog=examples("vireo host list", "vireo host list --label disk=nvme -o wide")
)
def list_(
    context: typer.Context,
    state: Annotated[HostState | None, typer.Option(help="Only those in this state.")] = None,
    label: options.Labels = None,
    at: options.At = None,
    limit: options.Limit = None,
    output: options.Output = Output.TABLE,
) -> None:
    """List hosts by name."""
    wanted = parsed("--label", labels, label or ())
    then = options.moment_of("--at", at)

    async def body(client: Client) -> None:
        from vireo.cli.host_view import host_table

        listing = client.hosts.list(state=state, labels=wanted, at=then, limit=limit)
        found = [host async for host in listing]
        if output.is_data:
            show_data(found, output)
            return
        now = then or datetime.now(UTC)
        table = host_table(found, wide=output is Output.WIDE, now=now)
        show_table(table, empty="no hosts yet; each registers when its agent starts")

    session.run(context, body)


@app.command(
    epilog=examples(
        "vireo host show h1", "vireo host show h1 -o json", "vireo host show h1 --at 2026-03-01"
    )
)
def show(
    context: typer.Context,
    host: options.Host,
    at: options.At = None,
    output: options.Output = Output.TABLE,
) -> None:
    """Show all about one host: capacity and what is reserved, topology, versions, telemetry."""
    then = options.moment_of("--at", at)

    async def body(client: Client) -> None:
        from vireo.cli.host_view import host_page

        found = await client.hosts.get(host, at=then)
        if output.is_data:
            show_data(found, output)
            return
        reading = await session.if_known(None if then else client.hosts.telemetry(host))
        show_page(host_page(found, reading=reading, now=then or datetime.now(UTC)))

    session.run(context, body)


@app.command(
    "set",
    epilog=examples(
        "vireo host set h1 --maintenance",
        "vireo host set h1 --no-maintenance",
        "vireo host set h1 --label disk=nvme --remove-label rack",
        "vireo host set h1 --taint gpu=a100:refuse --taint old:avoid",
        "vireo host set h1 --remove-taint gpu --cpu-overcommit 2 --reserve-memory 4GiB",
        "vireo host set h1 --unset cpu-overcommit --weight 5",
    ),
)
@acting.waits
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
    taint: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep VMs away that do not tolerate it: `refuse` (the default) or `avoid`.",
            metavar="K[=V][:EFFECT]",
        ),
    ] = None,
    remove_taint: Annotated[
        list[str] | None,
        typer.Option(help="A taint to take away; what is left out is any.", metavar="K[=V][:E]"),
    ] = None,
    cpu_overcommit: Overcommit = None,
    memory_overcommit: Overcommit = None,
    disk_overcommit: Overcommit = None,
    reserve_cpus: Annotated[
        int | None, typer.Option(help="CPUs kept for the host itself.", metavar="N", min=0)
    ] = None,
    reserve_memory: Annotated[
        str | None, typer.Option(help="Memory kept for the host itself.", metavar="SIZE")
    ] = None,
    reserve_disk: Annotated[
        str | None, typer.Option(help="Disk space kept for the host itself.", metavar="SIZE")
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(help="How often it is chosen beside others, by policies that go by that."),
    ] = None,
    idle_watts: Annotated[float | None, typer.Option(help="What it draws when idle.")] = None,
    full_watts: Annotated[float | None, typer.Option(help="What it draws when busy.")] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(
            help="Back to what the site says: cpu-overcommit, reserve-memory-mib, …", metavar="NAME"
        ),
    ] = None,
    *,
    how: acting.Waiting,
) -> None:
    """Set a host's maintenance, labels, taints and tuning; what isn't named stays as it is."""
    change = HostChanges(
        labels=parsed("--label", labels, label or ()),
        unlabelled=tuple(remove_label or ()),
        taints=parsed("--taint", taints, taint or ()),
        untainted=parsed("--remove-taint", removals, remove_taint or ()),
        tuning={
            "cpu_overcommit": cpu_overcommit,
            "memory_overcommit": memory_overcommit,
            "disk_overcommit": disk_overcommit,
            "reserve_cpus": reserve_cpus,
            "reserve_memory_mib": _size("--reserve-memory", memory_mib, reserve_memory),
            "reserve_disk_gib": _size("--reserve-disk", disk_gib, reserve_disk),
            "weight": weight,
            "idle_watts": idle_watts,
            "full_watts": full_watts,
        },
        unset=tuple(unset or ()),
    )
    # A name that is none is found out before anything is sent.
    parsed("--unset", lambda names: changed_tuning(HostTuning(), {}, unset=names), change.unset)
    if maintenance is None and not change.needs_old:
        session.refuse("nothing to set", hint="vireo host set --help")

    async def begin(client: Client) -> PendingOperation:
        if not change.needs_old:
            return await client.hosts.configure(host, maintenance=maintenance)
        old = (await client.hosts.get(host)).config
        return await client.hosts.configure(
            host,
            maintenance=maintenance,
            labels=change.labels_over(old),
            taints=change.taints_over(old),
            tuning=change.tuning_over(old),
            generation=old.generation,
        )

    acting.act(context, begin, how, name=host)


def _size(option: str, read: Callable[[str], int], text: str | None) -> int | None:
    return None if text is None else parsed(option, read, text)
