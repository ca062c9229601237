"""`vireo top`: hosts and VMs by how busy they are, live in the terminal or once into a pipe."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from vireo.cli import options, session
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, rich_page, show_data, show_page
from vireo.cli.quantities import seconds
from vireo.cli.top_view import TICKS, Look, Sort, View, scrolled, sorted_by_next, top_page

if TYPE_CHECKING:
    from vireo.client import Client

Looks = asyncio.Queue[Look | Exception]

LEAST_S = 0.5
EXAMPLES = examples(
    "vireo top",
    "vireo top --sort memory --host h1",
    "vireo top --once",
    "vireo top -o json | jq '.vms[] | select(.cpu_busy > 1) | .name'",
)

END_KEYS = ("q", "\x03", "\x04")
RESIZED = ""
"""No key: the terminal has another size now."""
KEYS_HELP = "q ends, ← → order, ↑ ↓ scroll"


def top(
    context: typer.Context,
    sort: Annotated[Sort, typer.Option(help="What the rows are sorted by.")] = Sort.CPU,
    host: options.OnlyHost = None,
    every: Annotated[
        str, typer.Option("--every", help="How often to look again: 2s, 1m.", metavar="DURATION")
    ] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Show one page and end.")] = False,
    output: options.Output = Output.TABLE,
) -> None:
    """Show hosts and VMs by how busy they are, again and again; q ends it, arrows sort and scroll.

    Where nobody looks, as in a pipe, it is one page. -o json is one look, for programs.
    """
    every_s = max(parsed("--every", seconds, every), LEAST_S)
    is_live = not once and not output.is_data and sys.stdout.isatty() and sys.stdin.isatty()

    async def body(client: Client) -> None:
        if is_live:
            await _live(client, View(sort=sort), host, every_s)
            return
        look = await _look(client, host)
        if output.is_data:
            show_data(look, output)
        else:
            width = get_terminal_size().columns if sys.stdout.isatty() else None
            show_page(top_page(look, View(sort=sort, width=width)))

    session.run(context, body)


async def _look(client: Client, host: str | None) -> Look:
    hosts = [each async for each in client.hosts.loads(recent=TICKS)]
    vms = [each async for each in client.vms.loads(host=host, recent=TICKS)]
    return Look(
        at=datetime.now(UTC),
        hosts=tuple(each for each in hosts if host in (None, each.host)),
        vms=tuple(vms),
    )


async def _live(client: Client, view: View, host: str | None, every_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    look, foot = await _look(client, host), KEYS_HELP
    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live, _keys() as keys:
        async with _looks(client, host, every_s) as looks:
            while True:
                fitting = replace(view, lines=console.height - 1, width=console.width)
                live.update(rich_page(top_page(look, fitting), foot=foot, cut=True), refresh=True)
                key, newest = await _next(keys, looks)
                if isinstance(newest, Look):
                    look, foot = newest, KEYS_HELP
                elif newest is not None:
                    foot = f"could not look: {newest}"
                if key in END_KEYS:
                    return
                view = _after(view, key, look)


def _after(view: View, key: str | None, look: Look) -> View:
    match key:
        case "\x1b[A" | "k":
            return scrolled(view, -1, look)
        case "\x1b[B" | "j":
            return scrolled(view, 1, look)
        case "\x1b[C":
            return sorted_by_next(view, 1)
        case "\x1b[D":
            return sorted_by_next(view, -1)
        case _:
            return view


async def _next(
    keys: asyncio.Queue[str], looks: Looks
) -> tuple[str | None, Look | Exception | None]:
    """A key or a look, whichever comes first."""
    key, look = asyncio.ensure_future(keys.get()), asyncio.ensure_future(looks.get())
    try:
        await asyncio.wait([key, look], return_when=asyncio.FIRST_COMPLETED)
        return key.result() if key.done() else None, look.result() if look.done() else None
    finally:
        for waiting in (key, look):
            waiting.cancel()


@asynccontextmanager
async def _looks(client: Client, host: str | None, every_s: float) -> AsyncIterator[Looks]:
    """Looks, one every so often, while a key is waited for; or why there was none."""
    from vireo.errors import VireoError

    looks: Looks = asyncio.Queue(maxsize=1)

    async def look_again() -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await looks.put(await _look(client, host))
            except VireoError as error:
                await looks.put(error)

    task = asyncio.create_task(look_again())
    try:
        yield looks
    finally:
        task.cancel()
        await asyncio.wait([task])


def keys_in(typed: str) -> list[str]:
    """Key by key: who types fast, or over a slow line, sends several at once."""
    return re.findall(r"\x1b\[[A-D]|.", typed, re.DOTALL)


@contextmanager
def _keys() -> Iterator[asyncio.Queue[str]]:
    """What is typed, key by key and unseen, and RESIZED; the terminal is afterwards as it was."""
    import os
    import signal
    import termios
    import tty

    keys: asyncio.Queue[str] = asyncio.Queue()
    stdin, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)

    def read() -> None:
        for key in keys_in(os.read(stdin, 32).decode("utf-8", "replace")):
            keys.put_nowait(key)

    loop.add_reader(stdin, read)
    loop.add_signal_handler(signal.SIGWINCH, keys.put_nowait, RESIZED)
    try:
        yield keys
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
