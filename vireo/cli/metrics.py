"""`vireo vm metrics` and `vireo host metrics`: how one was over some time, or is from now on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from schemas.wire import encode
from vireo.cli import options, session
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, note, show_data, show_lines, show_table
from vireo.cli.quantities import seconds

if TYPE_CHECKING:
    from schemas.metrics import LiveSample, Metrics
    from vireo.client import Client

    Read = Callable[[Client], Awaitable[Metrics]]
    Watch = Callable[[Client], AsyncIterator[LiveSample]]

Since = Annotated[
    str, typer.Option(help="From when on: 30m, 24h, 7d, 2026-03-01T12:00.", metavar="TIME")
]
Until = Annotated[
    str | None, typer.Option(help="Up to when, like --since; left out, now.", metavar="TIME")
]
Step = Annotated[
    str | None,
    typer.Option(help="How much time a point stands for: 30s, 5m, 1h.", metavar="DURATION"),
]
Series = Annotated[
    list[str] | None,
    typer.Option("--series", help="Only this one; may be given several times.", metavar="NAME"),
]
Live = Annotated[
    bool, typer.Option("--watch", "-w", help="Instead of the past, each sample as it comes.")
]


class Asked(Struct, frozen=True, kw_only=True):
    """The options, read."""

    since: datetime | None
    until: datetime | None
    step_s: float | None
    series: Sequence[str]


VM_EXAMPLES = examples(
    "vireo vm metrics web1",
    "vireo vm metrics web1 --since 7d --series cpu_busy",
    "vireo vm metrics web1 --since 24h --step 5m -o json",
    "vireo vm metrics web1 --watch",
)
HOST_EXAMPLES = examples(
    "vireo host metrics h1", "vireo host metrics h1 --since 30d -o wide", "vireo host metrics h1 -w"
)


def vm(
    context: typer.Context,
    vm: options.Vm,
    since: Since = "1h",
    until: Until = None,
    step: Step = None,
    series: Series = None,
    watch: Live = False,
    output: options.Output = Output.TABLE,
) -> None:
    """Show how a VM was over some time: CPU, memory, disks, network, and what its guest says."""
    asked = _asked(since, until, step, series)
    if watch:
        _watch(context, lambda client: client.vms.watch(vm, series=asked.series), output)
    else:
        _show(context, lambda client: _past(client.vms.metrics, vm, asked), output)


def host(
    context: typer.Context,
    host: options.Host,
    since: Since = "1h",
    until: Until = None,
    step: Step = None,
    series: Series = None,
    watch: Live = False,
    output: options.Output = Output.TABLE,
) -> None:
    """Show how a host was over some time: CPU, memory, pressure, disks, power."""
    asked = _asked(since, until, step, series)
    if watch:
        _watch(context, lambda client: client.hosts.watch(host, series=asked.series), output)
    else:
        _show(context, lambda client: _past(client.hosts.metrics, host, asked), output)


def _asked(since: str, until: str | None, step: str | None, series: Sequence[str] | None) -> Asked:
    return Asked(
        since=options.moment_of("--since", since),
        until=options.moment_of("--until", until),
        step_s=None if step is None else parsed("--step", seconds, step),
        series=tuple(series or ()),
    )


def _past(read: Callable[..., Awaitable[Metrics]], name: str, asked: Asked) -> Awaitable[Metrics]:
    return read(
        name, since=asked.since, until=asked.until, step_s=asked.step_s, series=asked.series
    )


def _show(context: typer.Context, read: Read, output: Output) -> None:
    async def body(client: Client) -> None:
        from vireo.cli.metrics_view import metrics_table, span_text

        found = await read(client)
        if output.is_data:
            show_data(found, output)
            return
        table = metrics_table(found, wide=output is Output.WIDE)
        show_table(table, empty="nothing was told of it in this time")
        if table.rows:
            note(span_text(found))

    session.run(context, body)


def _watch(context: typer.Context, watch: Watch, output: Output) -> None:
    """Until the user has seen enough, or it is gone."""

    async def body(client: Client) -> None:
        from vireo.cli.metrics_view import sample_line

        async for sample in watch(client):
            if output is Output.YAML:
                show_data([sample], output)
            else:
                # A line each, so that a program can read them as they come.
                as_json = output is Output.JSON
                show_lines([encode(sample).decode() if as_json else sample_line(sample)])
        note("it was deleted: nothing more comes")

    session.run(context, body)
