"""`vireo event subscribe`: a program run for each event, at least once, by as many as share a name."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vireo.cli import completion, options, session
from vireo.cli.exits import Exit
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, note, show_data, show_lines, show_table
from vireo.cli.quantities import seconds

if TYPE_CHECKING:
    from vireo.client import Client
    from vireo.subscriptions import SubscribedEvent

LONGEST_PAUSE_S = 300.0
GIVE_BACK_S = 2.0
"""Patience of who presses Ctrl-C."""

SUBSCRIBE = examples(
    "vireo event subscribe pager --type vm.crashed --exec 'page-somebody --urgent'",
    "vireo event subscribe mirror --begin start --exec ./into-our-database",
    "vireo event subscribe web1 --vm web1 --exec 'tee -a web1.jsonl' --attempts 3",
)

Name = Annotated[str, typer.Argument(help="Programs of one name share its events.", metavar="NAME")]


class Begin(StrEnum):
    NOW = "now"
    START = "start"


def subscribe(
    context: typer.Context,
    name: Name,
    command: Annotated[
        str,
        typer.Option(
            "--exec",
            help="Run this for each event, which it gets as JSON on standard input. No shell.",
            metavar="COMMAND",
        ),
    ],
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only this one, like vm.started; repeatable.", metavar="TYPE"),
    ] = None,
    vm: Annotated[
        str | None,
        typer.Option(help="Only those of this VM.", autocompletion=completion.vms, metavar="VM"),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Only what this host's agent says.",
            autocompletion=completion.hosts,
            metavar="HOST",
        ),
    ] = None,
    begin: Annotated[
        Begin, typer.Option(help="Where a new name begins: with what comes, or with what is there.")
    ] = Begin.NOW,
    attempts: Annotated[
        int, typer.Option(min=1, help="After so many the event is a dead letter.", metavar="N")
    ] = 10,
    lease: Annotated[
        str, typer.Option(help="After so long without a sign others get the event.", metavar="TIME")
    ] = "30s",
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many were handled.", metavar="N")
    ] = None,
) -> None:
    """Run a program for each event, until Ctrl-C; where it stands is kept under NAME.

    An event is done when the program ends with 0. Otherwise it comes again, after ever longer pauses.
    Several processes, on several machines, may share one NAME.
    """
    arguments = _arguments(command)
    lease_s = parsed("--lease", seconds, lease)

    async def body(client: Client) -> None:
        from contextlib import aclosing

        about = (await client.vms.get(vm)).id if vm else None
        await client.subscriptions.begin(
            name, types=types or (), vm=about, host=host, begin=begin.value, lease_s=lease_s
        )
        left = count
        events = client.subscriptions.events(name)
        async with aclosing(events):
            async for event in events:
                if await handled(event, arguments, attempts=attempts, lease_s=lease_s):
                    left = None if left is None else left - 1
                if left == 0:
                    return

    session.run(context, body)


def unsubscribe(context: typer.Context, name: Name) -> None:
    """Forget a subscription and where it stood."""

    async def body(client: Client) -> None:
        state = await client.subscriptions.end(name)
        show_lines([f"{state.name}: forgotten, with {state.waiting} events that waited"])

    session.run(context, body)


def subscriptions(context: typer.Context, output: options.Output = Output.TABLE) -> None:
    """List subscriptions, with how many events wait under each."""

    async def body(client: Client) -> None:
        from vireo.cli.layout import Table

        found = [each async for each in client.subscriptions.list()]
        if output.is_data:
            show_data(found, output)
            return
        rows = tuple((each.name, str(each.waiting)) for each in found)
        show_table(Table(columns=("NAME", "WAITING"), rows=rows), empty="no subscriptions")

    session.run(context, body)


async def handled(
    event: SubscribedEvent, arguments: list[str], *, attempts: int, lease_s: float
) -> bool:
    """Run the program; say what became of the event. Whether that was its end."""
    try:
        code = await _run(event, arguments, lease_s=lease_s)
    except asyncio.CancelledError:
        await _give_back(event)
        raise
    if code == 0:
        await event.done()
        return True
    said = f"event {event.sequence} ({event.header.type}): {arguments[0]} ended with {code}"
    if event.delivered >= attempts:
        note(f"{said}; after {event.delivered} attempts it is a dead letter")
        await event.dead(f"{arguments[0]} ended with {code}")
        return True
    pause_s = min(2.0 ** min(event.delivered - 1, 32), LONGEST_PAUSE_S)
    note(f"{said}; again in {pause_s:g} s")
    await event.again(pause_s)
    return False


async def _give_back(event: SubscribedEvent) -> None:
    """At once if that can be; else others get it when the lease is over."""
    from vireo.errors import VireoError

    with suppress(VireoError, TimeoutError):
        async with asyncio.timeout(GIVE_BACK_S):
            await event.again()


async def _run(event: SubscribedEvent, arguments: list[str], *, lease_s: float) -> int:
    process = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE)
    keeping = asyncio.create_task(_keep(event, lease_s / 3))
    try:
        await process.communicate(event.raw + b"\n")
    except BaseException:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        raise
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
    return process.returncode or 0


async def _keep(event: SubscribedEvent, every_s: float) -> None:
    """The lease, while the program runs. What cannot be said now is said the next time."""
    from vireo.errors import VireoError

    while True:
        await asyncio.sleep(every_s)
        try:
            await event.working()
        except VireoError as error:
            note(f"event {event.sequence}: {error}")


def _arguments(command: str) -> list[str]:
    from shutil import which

    try:
        arguments = shlex.split(command)
    except ValueError as error:
        session.refuse(f"--exec: {error}")
    if not arguments:
        session.refuse("--exec names no program")
    if which(arguments[0]) is None:
        session.refuse(f"there is no program {arguments[0]!r}", code=Exit.USAGE)
    return arguments
