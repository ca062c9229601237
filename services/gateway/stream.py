"""Server-sent events: one follower of EVENTS per open stream, resumed by `Last-Event-ID`.

What belongs here: the life of a stream. Which events it sends and how they look is `filtering`'s. A slow
client holds up its own follower only, and is cut off by the edge when it takes too long.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog
from litestar.types import ASGIApp, Receive, Scope, Send

from chassis.bus import BusError, Incoming, Start
from schemas import subjects
from schemas.problems import FieldError, invalid_request
from services.gateway import filtering
from services.gateway.answers import Answer, Refused, refuse
from services.gateway.asked import Asked
from services.gateway.desk import Desk
from services.gateway.earlier import earlier, require_recorded
from services.gateway.handlers import id_of, list_events
from services.gateway.model import EventFilter, EventQuery, Nothing

log = structlog.get_logger()

QUEUE = 64
"""Events read ahead for a client that is slower than they come."""

SEQUENCE = re.compile(r"\d{1,18}", re.ASCII)
_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def events(desk: Desk, asked: Asked[EventQuery, Nothing]) -> Answer | ASGIApp:
    """The stream, or a page for those who accept JSON alone."""
    accept = asked.headers.get("accept", "")
    if "application/json" in accept and "text/event-stream" not in accept:
        return await list_events(desk, asked)
    query = asked.query
    after = _after(asked)
    desk.require_bus()
    wanted = EventFilter(
        operation=query.operation,
        vm=await id_of(desk, query.vm) if query.vm else None,
        host=query.host,
        site=query.site,
        actor=query.actor,
        types=query.type,
    )
    try:
        newest = await desk.rig.bus.last_sequence(subjects.EVENTS)
        start = filtering.start_after(after, newest)
        await require_recorded(desk, start)
    except BusError as error:
        raise desk.away("The bus does not answer.") from error
    return _stream(desk, wanted, start, asked.extend)


def _after(asked: Asked[EventQuery, Nothing]) -> int | None:
    """The sequence to go on after. Raises Refused."""
    query = asked.query
    only_lists = {
        "limit": query.limit,
        "since": query.since,
        "until": query.until,
        "newest": query.newest or None,
    }
    errors = [
        FieldError(
            field=f"query/{name}", detail="only lists know it: ask with Accept: application/json"
        )
        for name, value in only_lists.items()
        if value is not None
    ]
    header = asked.headers.get("last-event-id") or None
    field, text = ("query/after", asked.query.after)
    if header is not None:
        field, text = ("header/Last-Event-ID", header)
    if text is not None and not SEQUENCE.fullmatch(text):
        errors.append(FieldError(field=field, detail="expected the id of an event: a number"))
    if errors:
        raise refuse(invalid_request(*errors))
    return None if text is None else int(text)


def _stream(
    desk: Desk, wanted: EventFilter, start: Start, extend: Callable[[float | None], None]
) -> ASGIApp:
    async def send_events(_scope: Scope, receive: Receive, send: Send) -> None:
        crowded = desk.crowded("Too many event streams are open.")
        with desk.streams.one(crowded):
            extend(None)
            read = partial(_read, desk, wanted, start)
            await relay(desk, filtering.hello(start), read, receive, send)

    return send_events


async def relay(
    desk: Desk,
    hello: bytes,
    read: Callable[[asyncio.Queue[bytes]], Coroutine[Any, Any, None]],
    receive: Receive,
    send: Send,
) -> None:
    """Send what `read` puts into its queue until the client is gone, the gateway stops or `read` has
    ended and all of it is sent; then end it all."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await _chunk(send, hello)
    queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE)
    reading = asyncio.create_task(read(queue))
    sending = asyncio.create_task(_send(queue, send, desk.settings.keepalive_s))
    gone = asyncio.create_task(_disconnected(receive))
    stopping = asyncio.create_task(desk.stopping.wait())
    tasks: tuple[asyncio.Task[Any], ...] = (reading, sending, gone, stopping)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if gone not in done and sending not in done:
        while reading in done and not queue.empty():
            await _chunk(send, queue.get_nowait())
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    for task in done:
        task.result()


async def _read(desk: Desk, wanted: EventFilter, start: Start, queue: asyncio.Queue[bytes]) -> None:
    """What the stream has not any more, then the stream."""
    try:
        async for message in earlier(desk, start):
            start = Start(at="sequence", sequence=message.sequence + 1)
            await _put(queue, filtering.frame_of_any(message, wanted))
        follow = desk.rig.bus.follow(subjects.EVENTS, filtering.patterns(wanted), start=start)
        async with follow as messages:
            async for one in messages:
                if isinstance(one, Incoming):
                    await _put(queue, filtering.frame(one, wanted))
    except BusError as error:
        log.warning("event_stream_ended", error=type(error).__name__)
    except Refused as refused:
        log.warning("event_stream_ended", error=refused.refusal.problem.title)


async def _put(queue: asyncio.Queue[bytes], found: bytes | None) -> None:
    if found is not None:
        await queue.put(found)


async def _send(queue: asyncio.Queue[bytes], send: Send, keepalive_s: float) -> None:
    while True:
        try:
            async with asyncio.timeout(keepalive_s):
                found = await queue.get()
        except TimeoutError:
            found = filtering.KEEPALIVE
        await _chunk(send, found)


async def _chunk(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
