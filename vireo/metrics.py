"""Metrics over time by the SDK: a graph's worth of the past, or samples as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime

import msgspec

from schemas.metrics import GONE, LiveSample, Metrics
from vireo.errors import Unavailable, unreadable
from vireo.paths import query_of, time_text
from vireo.sse import Message, Reader, TooLong
from vireo.transport import Query, Transport

_sample = msgspec.json.Decoder(LiveSample)


async def history(
    transport: Transport,
    path: str,
    *,
    since: datetime | None,
    until: datetime | None,
    step_s: float | None,
    series: Sequence[str],
) -> Metrics:
    query = query_of(to=time_text(until), step=None if step_s is None else f"{step_s:.6f}s")
    if since is not None:
        query += [("from", time_text(since) or "")]
    query += [("series", name) for name in series]
    return await transport.read(path, Metrics, query=query)


async def watch(
    transport: Transport, path: str, *, series: Sequence[str]
) -> AsyncGenerator[LiveSample]:
    """Samples as they are told, until the VM is deleted. Goes on after the last one when the connection
    breaks; raises NotFound if there is none, and Unavailable once the server has been away for longer than
    the patience of the settings."""
    query: Query = [("series", name) for name in series]
    last, attempt = "", 0
    now = asyncio.get_running_loop().time
    heard = now()
    while True:
        reader = Reader(limit=transport.settings.event_bytes)
        try:
            async for message in _messages(transport, path, query, last, reader):
                attempt, heard = 0, now()
                if message.event == GONE:
                    return
                yield _read(transport, message)
        except Unavailable:
            if now() - heard > transport.settings.patience_s:
                raise
        last = reader.last_id or last
        attempt += 1
        await transport.pause(attempt)


async def _messages(
    transport: Transport, path: str, query: Query, last: str, reader: Reader
) -> AsyncIterator[Message]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last:
        headers["Last-Event-ID"] = last
    async with transport.stream(path, query=query, headers=headers) as pieces:
        async for piece in pieces:
            try:
                for message in reader.feed(piece):
                    yield message
            except TooLong as error:
                raise unreadable(transport.url, str(error)) from error


def _read(transport: Transport, message: Message) -> LiveSample:
    try:
        return _sample.decode(message.data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise unreadable(transport.url, f"a sample: {error}") from error
