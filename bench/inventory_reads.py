"""Reads of a large record: pages at depth, and the fleet as it was beside the fleet as it is."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import asyncpg
import msgspec
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
LARGE = 1_000_000
DEPTH = Target("at most", 1.5)
PAST = Target("at most", 20)


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
