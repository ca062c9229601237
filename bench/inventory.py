"""The record: how fast events go from the bus into Postgres, held against a plain COPY of the same rows.

Everything runs as `vireo up` starts it. The inventory is stopped while a backlog is published, so that
what is measured is the inventory's work and not that of whoever speaks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import asyncpg
from msgspec import Struct

from bench.creates import test_plane
from bench.history import made
from bench.inventory_reads import read_rows
from bench.lists import list_rows
from bench.rebuild import EVENTS, rebuild_rows, rebuilt_s
from bench.report import Row, Target, row
from bench.servers import bus_of, postgres_of
from chassis.bus import Bus, Outgoing
from deploy.control_plane import ControlPlane
from schemas.wire import encode
from services.inventory.entries import EVENT_COLUMNS

ROUNDS = 5
VMS = 5_000
"""Each of eight events."""
TOGETHER = 500
"""Events in one atomic batch on their way into the stream."""
COPIED_TOGETHER = 1_000
POLL_S = 0.02
PATIENCE_S = 300

INTO_POSTGRES = Target("at least", 0.3)


class Round(Struct, frozen=True, kw_only=True):
    """Events per second: the inventory's, and a plain COPY's of the same rows."""

    stored: float
    copied: float


def run(directory: Path, *, events: int = EVENTS) -> Iterator[Row]:
    """`events`: how many are in the record when the tables are made anew."""
    with test_plane(directory) as plane:
        rounds = asyncio.run(storing(plane))
        yield row(
            "events into Postgres",
            [each.stored for each in rounds],
            "/s",
            baselines=[each.copied for each in rounds],
            target=INTO_POSTGRES,
            note=f"from the bus, with projections and hashes, against COPY of {COPIED_TOGETHER}",
        )
        there = asyncio.run(filled(plane, events))
        yield from read_rows(plane, there)
        yield from list_rows(plane)
        yield from rebuild_rows(asyncio.run(rebuilt_s(plane)), there)


async def storing(plane: ControlPlane) -> list[Round]:
    async with bus_of(plane) as bus, postgres_of(plane) as postgres:
        numbers = count(0, VMS)
        await stored_per_s(plane, bus, postgres, first=next(numbers))
        return [
            Round(
                stored=await stored_per_s(plane, bus, postgres, first=next(numbers)),
                copied=await copied_per_s(postgres),
            )
            for _ in range(ROUNDS)
        ]


async def filled(plane: ControlPlane, events: int) -> int:
    """So many events in the record, or a few more."""
    async with bus_of(plane) as bus, postgres_of(plane) as postgres:
        numbers = count((ROUNDS + 1) * VMS, VMS)
        while (there := await stored(postgres)) < events:
            await stored_per_s(plane, bus, postgres, first=next(numbers))
        return there


async def stored_per_s(
    plane: ControlPlane, bus: Bus, postgres: asyncpg.Connection, *, first: int
) -> float:
    """From the first of a backlog's events that are in Postgres to the last."""
    before = await stored(postgres)
    with stopped(plane.children()["inventory"]):
        published = await publish(bus, first=first)
    began, at_first = time.perf_counter(), before
    deadline = began + PATIENCE_S
    while (now := await stored(postgres)) < before + published:
        if at_first == before:
            began, at_first = time.perf_counter(), now
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{now - before} of {published} events are stored")
        await asyncio.sleep(POLL_S)
    return (now - at_first) / (time.perf_counter() - began)


async def stored(postgres: asyncpg.Connection) -> int:
    number: int = await postgres.fetchval("select number from ledgers where stream = 'EVENTS'")
    return number


async def copied_per_s(postgres: asyncpg.Connection) -> float:
    """The newest of the stored rows, into a table without index."""
    columns = ", ".join(EVENT_COLUMNS)
    records = await postgres.fetch(
        f"select {columns} from events order by number desc limit $1", VMS * 8
    )
    rows = [tuple(record) for record in records]
    await postgres.execute("create table if not exists plain (like events)")
    await postgres.execute("truncate plain")
    began = time.perf_counter()
    for start in range(0, len(rows), COPIED_TOGETHER):
        await postgres.copy_records_to_table(
            "plain", records=rows[start : start + COPIED_TOGETHER], columns=EVENT_COLUMNS
        )
    return len(rows) / (time.perf_counter() - began)


async def publish(bus: Bus, *, first: int) -> int:
    """A backlog of events; how many there are."""
    messages = [
        Outgoing(subject=subject, data=encode(envelope), message_id=envelope.id)
        for subject, envelope in made(VMS, first=first)
    ]
    for part in _parts(messages):
        await bus.publish_together(part)
    return len(messages)


def _parts(messages: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    for start in range(0, len(messages), TOGETHER):
        yield messages[start : start + TOGETHER]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
