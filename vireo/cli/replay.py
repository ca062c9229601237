"""`vireo replay`: recorded events, published again for programs to try themselves on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from vireo.cli import completion, session
from vireo.cli.acting import Waiting, act, waits
from vireo.cli.options import examples, moment_of

EXAMPLES = examples(
    "vireo replay --from 2026-03-01T09:00 --to 2026-03-01T10:00 --into friday --speed 100x",
    "vireo replay --from 2h --into rehearsal --speed 10x",
    "vireo replay --from 2026-03-01 --to 2026-03-02 --into crashes --type vm.crashed --speed max",
    "vireo replay --into friday --stop",
    "nats sub 'vireo.replay.friday.>'",
)


@waits
def replay(
    context: typer.Context,
    into: Annotated[
        str, typer.Option(help="They go to vireo.replay.NAME.…, and nowhere else.", metavar="NAME")
    ],
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="What was stored then or later: 2026-03-01T12:30 (UTC), or 2h ago as 2h.",
            metavar="TIME",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--to", help="What was stored before; now if left out.", metavar="TIME"),
    ] = None,
    speed: Annotated[
        str, typer.Option(help="How many times as fast as it was, or max.", metavar="1x|100x|max")
    ] = "1x",
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
    operation: Annotated[
        str | None,
        typer.Option(
            help="Only those of this operation.",
            autocompletion=completion.operations,
            metavar="OPERATION",
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only this one, like vm.started; repeatable.", metavar="TYPE"),
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what runs under the name.")] = False,
    *,
    how: Waiting,
) -> None:
    """Publish recorded events again, at their pace or another, under a subject of their own.

    The inventory publishes them; a message's header Vireo-Replay-Of names the event that it repeats.
    """
    if stop:
        act(context, lambda client: client.replays.stop(into), how, name=into)
        return
    begin, end = moment_of("--from", since), moment_of("--to", until)
    if begin is None:
        session.refuse("a replay needs --from")
    factor = _factor(speed)
    act(
        context,
        lambda client: client.replays.start(
            into,
            since=begin,
            until=end or datetime.now(UTC),
            speed=factor,
            vm=vm,
            host=host,
            operation=operation,
            types=types or (),
        ),
        how,
        name=into,
    )


def _factor(speed: str) -> float:
    if speed == "max":
        return 0.0
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 1_000_000:
        session.refuse("--speed: expected 1x, 100x, 0.5x or max")
    return factor
