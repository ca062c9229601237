"""Making the tables anew that follow from the events: beside those that are read, with what projects
events when they come, and in their place at the end.

Each batch is a transaction that also says how far it has come: whoever is killed goes on there when the
command comes again, and two at once wait for each other. The last of it happens under the lock of the
ledger, so that nothing is recorded between the comparison and the change of places.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec

from chassis.postgres import Connection, Postgres
from schemas.problems import conflict
from schemas.wire import unwrap
from services.inventory.columns import json_of
from services.inventory.event_source import EventSource, EventSources, Unreadable
from services.inventory.rebuild_comparison import Comparison, Early
from services.inventory.rebuild_messages import Outcome
from services.inventory.recorded import Recorded
from services.inventory.row_store import RowStore
from services.inventory.versions import COLUMNS, Past, past, stored_event

Queries = Mapping[str, str]
Told = Callable[[int, int], Awaitable[None]]
"""How many of how many events are done."""
TABLES = ("vms", "operations", "hosts", *COLUMNS)

_outcome = msgspec.json.Decoder(Outcome)


class Finished(Exception):
    """Somebody else has finished it."""


class Rebuild:
    """One making of the tables. Raises Retry while Postgres is away: go on later; Unreadable where not all
    rows of the record can be had, once each: what follows from them cannot be made anew."""

    def __init__(
        self,
        postgres: Postgres,
        queries: Queries,
        own: Queries,
        sources: EventSources,
        *,
        stream: str,
        batch: int,
        patience_s: float,
    ) -> None:
        """`queries` are those by which events are projected, `own` those of `rebuild.sql`."""
        self._postgres = postgres
        self._queries = queries
        self._own = own
        self._sources = sources
        self._stream = stream
        self._batch = batch
        self._patience_s = patience_s

    async def run(self, operation: str, *, take: bool, told: Told, at: datetime) -> Outcome:
        """Make them, compare them and, with `take`, let them take the others' place."""
        try:
            if known := await self._begin(operation):
                return known
            async with self._sources.open() as source:
                await self._require(source, operation)
                await self._follow(source, operation, told)
                await self._index(operation)
                await self._follow(source, operation, told)
                early = await self._compare_early(operation)
                return await self._finish(source, operation, early, take=take, at=at)
        except Finished:
            return await self.run(operation, take=take, told=told, at=at)

    async def _begin(self, operation: str) -> Outcome | None:
        """What came of it before; else it is begun, unless it was begun before."""
        async with self._postgres.transaction() as connection:
            await connection.execute(self._own["lock_rebuilds"])
            known = await connection.fetchrow(self._own["outcome"], operation)
            if known is None:
                await connection.execute(self._own["begin"])
                await connection.execute(self._own["make_second_set"])
                await connection.execute(self._own["enter"], operation)
            elif known["outcome"] is not None:
                return _outcome.decode(known["outcome"])
        return None

    async def give_up(self) -> None:
        """Forget what was begun."""
        async with self._postgres.transaction() as connection:
            await connection.execute(self._own["lock_rebuilds"])
            await connection.execute(self._own["begin"])
            await connection.execute(self._own["drop_second_set"])

    async def _require(self, source: EventSource, operation: str) -> None:
        """Before anything is made: the files are all there."""
        async with self._postgres.transaction() as connection:
            number = await self._progress(connection, operation)
            await source.require(connection.fetch, after=number)

    async def _follow(self, source: EventSource, operation: str, told: Told) -> None:
        """Batch after batch, until less than one is left."""
        while True:
            async with self._postgres.transaction() as connection:
                before = await self._progress(connection, operation)
                number = await self._project_next(source, connection, before)
                await connection.execute(self._own["advance"], operation, number)
                last = await connection.fetchval(self._own["rows"], self._stream)
            await told(number, last)
            if max(last - number, number - before) < self._batch:
                return

    async def _progress(self, connection: Connection, operation: str) -> int:
        number: int | None = await connection.fetchval(self._own["progress"], operation)
        if number is None:
            raise Finished
        return number

    async def _project_next(self, source: EventSource, connection: Connection, number: int) -> int:
        """A batch of events into the second set; the number of the last one of them."""
        events = await self._next(source, connection, number)
        if not events:
            return number
        _require_each_once(number, [each.number for each in events])
        stored = [
            stored_event(each.number, each.position, each.received_at, unwrap(each.envelope))
            for each in events
        ]
        await connection.execute(self._own["second_set_first"])
        rows = RowStore(connection, self._queries)
        before, _ = await rows.load([each.fact.envelope for each in stored])
        made = past(before, stored)
        await rows.save(made.changed)
        await self._remember(connection, made)
        await connection.execute(self._own["live_set_only"])
        return stored[-1].number

    async def _next(
        self, source: EventSource, connection: Connection, number: int
    ) -> Sequence[Recorded]:
        """About as many events as are a batch, but whole transactions: each makes one version."""
        limit = self._batch
        while True:
            stretch = await source.next(connection.fetch, after=number, limit=limit)
            if not stretch.more:
                return stretch.events
            cut = stretch.events[-1].received_at
            if whole := [each for each in stretch.events if each.received_at != cut]:
                return whole
            limit *= 2

    async def _remember(self, connection: Connection, made: Past) -> None:
        for table, rows in made.versions.items():
            await connection.copy_records_to_table(
                table, schema_name="rebuild", records=rows, columns=COLUMNS[table]
            )
        if made.deaths:
            await connection.execute(self._own["deaths"], [*made.deaths], [*made.deaths.values()])

    async def _index(self, operation: str) -> None:
        async with self._patient() as connection:
            await self._progress(connection, operation)
            await connection.execute(self._own["index_second_set"], timeout=self._patience_s)
            await connection.execute(self._own["analyze_second_set"], timeout=self._patience_s)

    async def _compare_early(self, operation: str) -> Early:
        """As much as can be, while events go on being recorded."""
        async with self._patient() as connection:
            number = await self._progress(connection, operation)
            return await Comparison(connection, self._own, self._patience_s).early(number)

    async def _finish(
        self, source: EventSource, operation: str, early: Early, *, take: bool, at: datetime
    ) -> Outcome:
        """Under the lock of the ledger: what has come meanwhile, the comparison, the change of places."""
        async with self._patient() as connection:
            patience_s = self._patience_s
            await connection.execute(self._queries["lock_ledger"], self._stream, timeout=patience_s)
            number = await self._progress(connection, operation)
            while (reached := await self._project_next(source, connection, number)) != number:
                number = reached
            comparison = Comparison(connection, self._own, patience_s)
            tables = [await comparison.of(table, early) for table in TABLES]
            outcome = Outcome(rows=number, tables=tuple(tables), taken=take, at=at)
            last = self._own["take_second_set" if take else "drop_second_set"]
            await connection.execute(last, timeout=patience_s)
            if take:
                await connection.execute(self._own["history_is_whole"])
            await connection.execute(self._own["keep_outcome"], operation, json_of(outcome))
        return outcome

    @asynccontextmanager
    async def _patient(self) -> AsyncIterator[Connection]:
        """A transaction whose statements may take longer than others."""
        async with self._postgres.transaction() as connection:
            patience = str(int(self._patience_s * 1000))
            await connection.execute(self._own["patience"], patience)
            yield connection


def _require_each_once(after: int, numbers: Sequence[int]) -> None:
    """Raises Unreadable."""
    for expected, number in enumerate(numbers, start=after + 1):
        if number > expected:
            raise _broken(f"rows {expected} to {number - 1} are not in the database")
        if number < expected:
            raise _broken(f"row {number} is in the database twice")


def _broken(what: str) -> Unreadable:
    return Unreadable(conflict(f"{what}: vireo audit verify"))
