"""Reads of a large record: pages at depth, the fleet as it was beside the fleet as it is, and lists over
HTTP beside the same bytes sent by an application that does nothing else.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
import uvicorn
from msgspec import Struct

from bench.floor import socket_dir
from bench.report import Row, Target, row
from chassis.postgres import Postgres, PostgresSettings, connect
from chassis.service import Tagged
from deploy.control_plane import ControlPlane
from schemas.problems import Problem
from schemas.queries import ListEvents, ListVms
from schemas.resources import Page
from services.inventory.cursors import cursor
from services.inventory.reads import Reads
from services.inventory.statements import statements

ROUNDS = 21
FLEET = 1_000
"""VMs of a list."""
CHANGE = "update vms set updated_at = updated_at where id = (select id from vms limit 1)"
"""To the inventory it is a VM that changed: it does not compare."""
PAGE = 1_000
"""As many as the gateway gives at once, unless it is told otherwise."""
LARGE = 1_000_000
DEPTH = Target("at most", 1.5)
PAST = Target("at most", 20)
OVER_HTTP = Target("at least", 0.5)


Read = Callable[[], Awaitable[bytes | Tagged | Problem]]


class Beside(Struct, frozen=True, kw_only=True):
    """Milliseconds of one thing beside another, run by run."""

    values: list[float]
    baselines: list[float]


def read_rows(plane: ControlPlane, events: int) -> Iterator[Row]:
    """`events`: how many are in the record."""
    depth, past = asyncio.run(_reads(plane, events))
    large = events >= LARGE
    yield row(
        f"page of 50 at depth {events}",
        depth.values,
        "ms",
        baselines=depth.baselines,
        target=DEPTH if large else None,
        note="against the first page",
    )
    yield row(
        "the fleet as of then",
        past.values,
        "ms",
        baselines=past.baselines,
        target=PAST if large else None,
        note=f"{FLEET} VMs, {events} events behind, against the fleet now",
    )
    kept, changed = asyncio.run(_over_http(plane))
    yield _list_row(
        f"list of {FLEET} VMs",
        kept,
        "over HTTP, one after another, nothing changed between, against raw ASGI that sends the same bytes",
        target=OVER_HTTP,
    )
    yield _list_row(
        f"list of {FLEET} VMs, a VM changed", changed, "the same, a VM changed before each"
    )


def _list_row(name: str, listed: Beside, note: str, *, target: Target | None = None) -> Row:
    return row(
        name,
        [1000 / each for each in listed.values],
        "/s",
        baselines=[1000 / each for each in listed.baselines],
        target=target,
        note=note,
    )


def _postgres(plane: ControlPlane) -> AbstractAsyncContextManager[Postgres]:
    settings = PostgresSettings(
        host=str(socket_dir(plane.state_dir)),
        user="inventory",
        database="vireo",
        password_file=plane.state_dir / "credentials" / "inventory.password",
    )
    return connect(settings, name="bench")


async def _reads(plane: ControlPlane, events: int) -> tuple[Beside, Beside]:
    async with _postgres(plane) as postgres:
        reads = Reads(postgres, statements(), trail_limit=100, page_bytes=16 << 20)
        async with postgres.connection() as connection:
            then = await _middle(connection, events)
        return await _depth(reads, events), await _past(reads, then)


async def _middle(connection: asyncpg.Connection, events: int) -> datetime:
    """When half of it was stored."""
    at: datetime = await connection.fetchval(
        "select received_at from events where number = $1", events // 2
    )
    return at


async def _depth(reads: Reads, events: int) -> Beside:
    deep = cursor("event", events - 100)
    return await _beside(
        lambda: reads.events(ListEvents(after=deep)), lambda: reads.events(ListEvents())
    )


async def _past(reads: Reads, then: datetime) -> Beside:
    found = msgspec.json.decode(
        _answered(await reads.vms(ListVms(limit=FLEET, at=then))), type=Page
    )
    if len(found.items) != FLEET:
        raise RuntimeError(f"{len(found.items)} VMs were there then")
    return await _beside(
        lambda: reads.vms(ListVms(limit=FLEET, at=then)), lambda: reads.vms(ListVms(limit=FLEET))
    )


async def _beside(
    one: Callable[[], Awaitable[bytes | Tagged | Problem]],
    other: Callable[[], Awaitable[bytes | Tagged | Problem]],
) -> Beside:
    pairs = [(await _ms(one), await _ms(other)) for _ in range(ROUNDS)]
    return Beside(values=[pair[0] for pair in pairs], baselines=[pair[1] for pair in pairs])


async def _ms(ask: Read) -> float:
    """The middle of three: what is measured is the read, not who else was at work."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        _answered(await ask())
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def _answered(answer: bytes | Tagged | Problem) -> bytes:
    if isinstance(answer, Problem):
        raise RuntimeError(answer.title)
    return (answer.body or b"") if isinstance(answer, Tagged) else answer


async def _over_http(plane: ControlPlane) -> tuple[Beside, Beside]:
    """The list as it was before, and with a VM changed since: the gateway keeps what is still true."""
    headers = {"Authorization": f"Bearer {plane.token}", "Accept": "application/json"}
    bodies = _pages(plane.url, headers)
    paths = [path for path, _ in bodies]
    rounds: list[tuple[float, float, float]] = []
    with _raw([body for _, body in bodies]) as raw:
        async with _postgres(plane) as postgres, postgres.connection() as connection:
            for _ in range(ROUNDS):
                walked = _walk_ms(plane.url, paths, headers)
                sent = _walk_ms(raw, [f"/{number}" for number in range(len(bodies))], headers)
                await connection.execute(CHANGE)
                rounds.append((walked, sent, _walk_ms(plane.url, paths, headers, first=False)))
    kept, baselines, changed = (list(each) for each in zip(*rounds, strict=True))
    return Beside(values=kept, baselines=baselines), Beside(values=changed, baselines=baselines)


def _pages(url: str, headers: dict[str, str]) -> list[tuple[str, bytes]]:
    """The list as it is walked: as many pages as it takes, since a page has a largest size."""
    found: list[tuple[str, bytes]] = []
    left, after = FLEET, ""
    while left > 0:
        path = f"/v1/vms?limit={min(left, PAGE)}{after}"
        body = _get(_connected(url), path, headers)
        page = msgspec.json.decode(body, type=Page)
        found.append((path, body))
        left -= len(page.items)
        after = f"&after={page.next}"
    return found


def _walk_ms(url: str, paths: list[str], headers: dict[str, str], *, first: bool = True) -> float:
    """`first`: once before, for whoever keeps what he sends."""
    connection = _connected(url)
    _get(connection, paths[0] if first else "/health/live", headers)
    began = time.perf_counter()
    for path in paths:
        _get(connection, path, headers)
    took = (time.perf_counter() - began) * 1000
    connection.close()
    return took


def _connected(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)


def _get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> bytes:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{answer.status} {path}: {body[:200]!r}")
    return body


@contextmanager
def _raw(bodies: list[bytes]) -> Iterator[str]:
    """A process that only sends; it listens at the address that is given."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_send_raw, args=(there, bodies), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def _send_raw(told: Connection, bodies: list[bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = bodies[int(scope["path"][1:])]
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})

    listening = socket.create_server(("127.0.0.1", 0))
    told.send(listening.getsockname()[1])
    config = uvicorn.Config(app, http="h11", lifespan="off", ws="none", log_config=None)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))
