"""`vireo vm`: look at and change virtual machines; how one is asked for stands in `vm_create`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.resources import VmState
from vireo.cli import acting, metrics, options, session, vm_create
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, show_data, show_page, show_table
from vireo.cli.quantities import labels, seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from schemas.resources import StopMode, Vm
    from vireo.client import Client
    from vireo.operations import PendingOperation

app = typer.Typer(help="Virtual machines.", no_args_is_help=True, rich_markup_mode=None)


app.command("create", epilog=vm_create.EXAMPLES)(vm_create.create)
app.command("metrics", epilog=metrics.VM_EXAMPLES)(metrics.vm)


@app.command(
    "list",
    epilog=examples(
        "vireo vm list",
        "vireo vm list --host h1 --state running -o wide",
        "vireo vm list --label app=shop -o json",
        "vireo vm list --at 2026-03-01T12:30",
    ),
)
def list_(
    context: typer.Context,
    host: options.OnlyHost = None,
    state: Annotated[VmState | None, typer.Option(help="Only those in this state.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Only the one of this name.", metavar="NAME")
    ] = None,
    label: options.Labels = None,
    at: options.At = None,
    limit: options.Limit = None,
    output: options.Output = Output.TABLE,
) -> None:
    """List VMs, newest first. Deleted ones are shown only with --state deleted."""
    wanted = parsed("--label", labels, label or ())
    then = options.moment_of("--at", at)

    async def body(client: Client) -> None:
        from vireo.cli.vm_view import vm_table

        listing = client.vms.list(
            host=host, state=state, name=name, labels=wanted, at=then, limit=limit
        )
        found = [vm async for vm in listing]
        if output.is_data:
            show_data(found, output)
            return
        table = vm_table(found, wide=output is Output.WIDE, now=then or datetime.now(UTC))
        show_table(table, empty="no VMs; 'vireo vm create --help' shows how to make one")

    session.run(context, body)


@app.command(
    epilog=examples(
        "vireo vm show web1", "vireo vm show web1 -o yaml", "vireo vm show web1 --at 2h"
    )
)
def show(
    context: typer.Context,
    vm: options.Vm,
    at: options.At = None,
    output: options.Output = Output.TABLE,
) -> None:
    """Show all about one VM: state, spec, its guest, why it is where it is, its last operation."""
    then = options.moment_of("--at", at)

    async def body(client: Client) -> None:
        found = await client.vms.get(vm, at=then)
        if output.is_data:
            show_data(found, output)
        else:
            await _show_page(client, found, then)

    session.run(context, body)


@app.command(
    epilog=examples("vireo vm why web1", "vireo vm why web1 --now", "vireo vm why web1 --at 3d")
)
def why(
    context: typer.Context,
    vm: options.Vm,
    now: Annotated[
        bool, typer.Option("--now", help="Also, how it would be decided now; nothing is done.")
    ] = False,
    at: options.At = None,
    output: options.Output = Output.TABLE,
) -> None:
    """Show why a VM is where it is: the best hosts by score, and why not on the others."""
    then = options.moment_of("--at", at)

    async def body(client: Client) -> None:
        from vireo.cli.forecast_view import review_page

        review = await client.vms.placement(vm, now=now, at=then)
        if output.is_data:
            show_data(review, output)
        else:
            show_page(review_page(review))

    session.run(context, body)


@app.command(epilog=examples("vireo vm start web1"))
@acting.waits
def start(
    context: typer.Context,
    vm: options.Vm,
    *,
    how: acting.Waiting,
) -> None:
    """Start a stopped VM."""
    acting.act(context, lambda client: client.vms.start(vm), how, name=vm)


@app.command(
    epilog=examples(
        "vireo vm stop web1", "vireo vm stop web1 --grace 2m", "vireo vm stop web1 --force"
    )
)
@acting.waits
def stop(
    context: typer.Context,
    vm: options.Vm,
    force: options.Forced = False,
    grace: options.Grace = options.GRACE,
    *,
    how: acting.Waiting,
) -> None:
    """Shut a VM down. The plug is pulled if the guest takes longer than --grace."""
    grace_s = parsed("--grace", seconds, grace)

    def begin(client: Client) -> Awaitable[PendingOperation]:
        return client.vms.stop(vm, mode=_mode(force), grace_s=grace_s)

    acting.act(context, begin, how, name=vm)


@app.command(epilog=examples("vireo vm reboot web1", "vireo vm reboot web1 --force"))
@acting.waits
def reboot(
    context: typer.Context,
    vm: options.Vm,
    force: options.Forced = False,
    *,
    how: acting.Waiting,
) -> None:
    """Reboot a running VM."""
    acting.act(context, lambda client: client.vms.reboot(vm, mode=_mode(force)), how, name=vm)


@app.command(epilog=examples("vireo vm pause web1"))
@acting.waits
def pause(
    context: typer.Context,
    vm: options.Vm,
    *,
    how: acting.Waiting,
) -> None:
    """Freeze a running VM; its memory stays where it is."""
    acting.act(context, lambda client: client.vms.pause(vm), how, name=vm)


@app.command(epilog=examples("vireo vm resume web1"))
@acting.waits
def resume(
    context: typer.Context,
    vm: options.Vm,
    *,
    how: acting.Waiting,
) -> None:
    """Let a paused VM go on."""
    acting.act(context, lambda client: client.vms.resume(vm), how, name=vm)


@app.command(
    epilog=examples("vireo vm delete web1", "vireo vm delete web1 --yes --graceful --grace 2m")
)
@acting.waits
def delete(
    context: typer.Context,
    vm: options.Vm,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Don't ask.")] = False,
    graceful: Annotated[
        bool, typer.Option("--graceful", help="Let the guest shut down first.")
    ] = False,
    grace: options.Grace = options.GRACE,
    *,
    how: acting.Waiting,
) -> None:
    """Delete a VM and its disks. There is no way back; on a terminal you are asked first."""
    grace_s = parsed("--grace", seconds, grace)
    if not (yes or how.dry_run) and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm(f"Delete {vm} and its disks?", abort=True, err=True)

    def begin(client: Client) -> Awaitable[PendingOperation]:
        return client.vms.delete(vm, mode=_mode(not graceful), grace_s=grace_s)

    acting.act(context, begin, how, name=vm)


def _mode(force: bool) -> StopMode:
    return "forced" if force else "graceful"


async def _show_page(client: Client, vm: Vm, then: datetime | None) -> None:
    """The VM with what belongs to it; measurements only as of now, no past ones are kept with it."""
    import asyncio

    from vireo.cli.vm_view import vm_page

    reading, operation = await asyncio.gather(
        session.if_known(None if then else client.vms.telemetry(vm.id)),
        session.if_known(client.operations.get(vm.operation, at=then) if vm.operation else None),
    )
    now = then or datetime.now(UTC)
    show_page(vm_page(vm, reading=reading, operation=operation, now=now))
