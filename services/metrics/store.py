"""The past in Postgres: entries into chunks, and chunks out again.

What belongs here: the table. What is written when is the recorder's, what an entry is stands in `entries`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import groupby, islice

import numpy as np
import structlog

from chassis.postgres import Connection, Postgres
from services.metrics.entries import Entries, joined, none_of, read_entries
from services.metrics.levels import LEVELS, Level, floored
from services.metrics.series import SERIES, Kind

log = structlog.get_logger()

Queries = Mapping[str, str]

PREFETCH = 500
"""Chunks under way at a time while a level is summed up."""


def entity(kind: Kind, name: str) -> str:
    """What a VM or a host is called in the table."""
    return f"{kind}/{name}"


def width_of(entity: str) -> int:
    """How many series there are of it by now."""
    return len(SERIES["vm" if entity.startswith("vm/") else "host"])


class Store:
    """Every method raises Retry while Postgres is away."""

    def __init__(
        self,
        postgres: Postgres,
        queries: Queries,
        *,
        batch: int,
        levels: tuple[Level, ...] = LEVELS,
    ) -> None:
        self.levels = levels
        self._postgres = postgres
        self._queries = queries
        self._batch = batch
        self._parts: set[tuple[int, int]] = set()

    async def append(self, level: Level, at_s: int, entries: Mapping[str, bytes]) -> None:
        """One entry of each entity, which begins at `at_s`; what is known of that time already stays."""
        for width, given in _by_width(entries):
            rows = iter(given)
            while batch := list(islice(rows, self._batch)):
                async with self._postgres.transaction() as connection:
                    await self._ensure_part(connection, level, at_s)
                    await connection.execute(
                        self._queries["append_chunks"],
                        level.number,
                        floored(at_s, level.chunk_s),
                        width,
                        at_s + level.step_s,
                        [name for name, _ in batch],
                        [entry for _, entry in batch],
                    )

    async def read(self, level: Level, entity: str, from_s: float, to_s: float) -> Entries:
        """The entries of one entity that begin within this time, oldest first."""
        wanted = width_of(entity)
        first = floored(from_s, level.chunk_s)
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                self._queries["read_chunks"], level.number, entity, first, int(to_s) + 1
            )
        if not rows:
            return none_of(wanted)
        chunks = [read_entries(row["entries"], row["width"], wanted=wanted) for row in rows]
        return _within(chunks, from_s, to_s)

    async def sum_up(self, level: Level, at_s: int) -> int:
        """Make the entries of one step of a level from those of the finer one; says how many."""
        made = 0
        batch: dict[str, bytes] = {}
        async for name, chunks in self._all(
            self.levels[level.number - 1], at_s, at_s + level.step_s
        ):
            found = _within(chunks, at_s, at_s + level.step_s)
            if len(found):
                batch[name] = joined([found], at_s=at_s).tobytes()
                made += 1
            if len(batch) >= self._batch:
                await self.append(level, at_s, batch)
                batch = {}
        await self.append(level, at_s, batch)
        return made

    async def _all(
        self, level: Level, from_s: int, to_s: int
    ) -> AsyncIterator[tuple[str, list[Entries]]]:
        """Each entity with its chunks of this time."""
        first = floored(from_s, level.chunk_s)
        name, chunks = "", list[Entries]()
        async with self._postgres.transaction(readonly=True) as connection:
            rows = connection.cursor(
                self._queries["chunks_of_all"], level.number, first, to_s, prefetch=PREFETCH
            )
            async for row in rows:
                if row["entity"] != name and chunks:
                    yield name, chunks
                    chunks = []
                name = row["entity"]
                chunks.append(read_entries(row["entries"], row["width"], wanted=width_of(name)))
        if chunks:
            yield name, chunks

    async def progress(self) -> dict[int, int]:
        """Up to when each level is summed up, by the level's number."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(self._queries["summed_up"])
        return {row["level"]: row["until"] for row in rows}

    async def advance(self, level: Level, until_s: int) -> None:
        async with self._postgres.connection() as connection:
            await connection.execute(self._queries["advance"], level.number, until_s)

    async def forget(self, *, now_s: float) -> None:
        """Drop what is older than its level keeps, a partition at a time."""
        for level in self.levels:
            before = floored(now_s - level.keep_s, level.part_s)
            async with self._postgres.transaction() as connection:
                dropped = await connection.fetchval(self._queries["drop_parts"], level.name, before)
            self._parts = {
                part for part in self._parts if part[1] >= before or part[0] != level.number
            }
            if dropped:
                log.info("history_dropped", level=level.name, parts=dropped)

    async def _ensure_part(self, connection: Connection, level: Level, at_s: int) -> None:
        first = floored(at_s, level.part_s)
        if (level.number, first) not in self._parts:
            await connection.execute(
                self._queries["ensure_part"], level.name, first, first + level.part_s
            )
            self._parts.add((level.number, first))


def _by_width(entries: Mapping[str, bytes]) -> Iterator[tuple[int, Sequence[tuple[str, bytes]]]]:
    ordered = sorted(entries.items())
    for width, given in groupby(ordered, key=lambda item: width_of(item[0])):
        yield width, list(given)


def _within(chunks: Sequence[Entries], from_s: float, to_s: float) -> Entries:
    entries: Entries = np.concatenate(chunks)
    return entries[(entries["at"] >= from_s) & (entries["at"] < to_s)]
