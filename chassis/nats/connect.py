"""From settings to a bus, for the time of a context."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chassis.bus import StreamConfig, Unavailable
from chassis.nats.bus import NatsBus
from chassis.nats.link import Link
from chassis.nats.settings import NatsSettings


@asynccontextmanager
async def connect(
    settings: NatsSettings,
    *,
    name: str,
    streams: Sequence[StreamConfig] = (),
    wait: bool = True,
) -> AsyncIterator[NatsBus]:
    """A connected bus. `name` is what the server's monitoring shows.

    `streams` are those that this process publishes to without making them (`ensure_stream` takes note
    by itself); what it doesn't know is published without batching. Raises Unavailable if
    `first_connection_s` passes; later losses never end the bus. Without `wait` it begins as one that
    was lost: for those who have something to do before anybody hears them.
    """
    link = Link(settings, name=name)
    task = asyncio.create_task(link.run(), name="bus connection")
    bus = NatsBus(link)
    restoring = asyncio.create_task(bus.run(), name="streams in memory")
    for config in streams:
        bus.learn(config)
    try:
        if wait:
            await _first_connection(link, task, settings.first_connection_s)
        yield bus
    finally:
        await bus.close()
        for running in (restoring, task):
            running.cancel()
        await asyncio.wait([restoring, task])


async def _first_connection(link: Link, task: asyncio.Task[None], patience_s: float | None) -> None:
    connected = asyncio.create_task(link.up())
    try:
        await asyncio.wait(
            [connected, task], timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        connected.cancel()
    if task.done():
        task.result()
    if not link.connected:
        raise Unavailable(f"no connection to the bus within {patience_s} s")
