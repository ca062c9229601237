"""Making the tables anew that follow from the events: beside those that are read, with what projects
events when they come, and in their place at the end.

Each batch is a transaction that also says how far it has come: whoever is killed goes on there when the
command comes again, and two at once wait for each other. The last of it happens under the lock of the
ledger, so that nothing is recorded between the comparison and the change of places.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec

from chassis.postgres import Connection, Postgres
from schemas.rebuilds import SHOWN_KEYS, TableComparison
from schemas.wire import unwrap
from services.inventory.archives import Archive, archives
from services.inventory.columns import json_of
from services.inventory.decide import fact, project_all
from services.inventory.rebuild_messages import Outcome
from services.inventory.row_store import RowStore

Queries = Mapping[str, str]
Told = Callable[[int, int], Awaitable[None]]
"""How many of how many events are done."""
TABLES = ("vms", "operations", "hosts")

_outcome = msgspec.json.Decoder(Outcome)


class RowsMissing(Exception):
    """Rows of the record are not in the database: what follows from them cannot be made anew."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"rows {first} to {last} are not in the database")
        self.last = last


class Finished(Exception):
    """Somebody else has finished it."""


class Rebuild:
    """One making of the tables. Raises Retry while Postgres is away: go on later; RowsMissing."""

    def __init__(
        self,
        postgres: Postgres,
        queries: Queries,
        own: Queries,
        *,
        stream: str,
        batch: int,
        patience_s: float,
    ) -> None:
        """`queries` are those by which events are projected, `own` those of `rebuild.sql`."""
        self._postgres = postgres
        self._queries = queries
        self._own = own
        self._stream = stream
        self._batch = batch
        self._patience_s = patience_s

    async def run(self, operation: str, *, take: bool, told: Told, at: datetime) -> Outcome:
        """Make them, compare them and, with `take`, let them take the others' place."""
        try:
            if known := await self._begin(operation):
                return known
            await self._follow(operation, told)
            await self._index(operation)
            await self._follow(operation, told)
            return await self._finish(operation, take=take, at=at)
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

    async def give_up(self) -> list[Archive]:
        """Forget what was begun. Returns the months that are in files."""
        async with self._postgres.transaction() as connection:
            await connection.execute(self._own["lock_rebuilds"])
            await connection.execute(self._own["begin"])
            await connection.execute(self._own["drop_second_set"])
            return await archives(connection, self._queries, self._stream)

    async def _follow(self, operation: str, told: Told) -> None:
        """Batch after batch, until less than one is left."""
        while True:
            async with self._postgres.transaction() as connection:
                before = await self._progress(connection, operation)
                number = await self._project_next(connection, before)
                await connection.execute(self._own["advance"], operation, number)
                last = await connection.fetchval(self._own["rows"], self._stream)
            await told(number, last)
            if number - before < self._batch:
                return

    async def _progress(self, connection: Connection, operation: str) -> int:
        number: int | None = await connection.fetchval(self._own["progress"], operation)
        if number is None:
            raise Finished
        return number

    async def _project_next(self, connection: Connection, number: int) -> int:
        """A batch of events into the second set; the number of the last one of them."""
        records = await connection.fetch(
            self._own["next_events"], self._stream, number, self._batch
        )
        if not records:
            return number
        if records[0]["number"] > number + 1:
            raise RowsMissing(number + 1, records[0]["number"] - 1)
        envelopes = [unwrap(record["envelope"]) for record in records]
        await connection.execute(self._own["second_set_first"])
        rows = RowStore(connection, self._queries)
        before, _ = await rows.load(envelopes)
        facts = [
            fact(envelope, record["position"])
            for envelope, record in zip(envelopes, records, strict=True)
        ]
        await rows.save(project_all(before, facts))
        await connection.execute(self._own["live_set_only"])
        last: int = records[-1]["number"]
        return last

    async def _index(self, operation: str) -> None:
        async with self._patient() as connection:
            await self._progress(connection, operation)
            await connection.execute(self._own["index_second_set"], timeout=self._patience_s)
            for table in TABLES:
                await connection.execute(self._own[f"analyze_{table}"], timeout=self._patience_s)

    async def _finish(self, operation: str, *, take: bool, at: datetime) -> Outcome:
        """Under the lock of the ledger: what has come meanwhile, the comparison, the change of places."""
        async with self._patient() as connection:
            patience_s = self._patience_s
            await connection.execute(self._queries["lock_ledger"], self._stream, timeout=patience_s)
            number = await self._progress(connection, operation)
            while (reached := await self._project_next(connection, number)) != number:
                number = reached
            tables = [await self._comparison(connection, table) for table in TABLES]
            outcome = Outcome(rows=number, tables=tuple(tables), taken=take, at=at)
            last = self._own["take_second_set" if take else "drop_second_set"]
            await connection.execute(last, timeout=patience_s)
            await connection.execute(self._own["keep_outcome"], operation, json_of(outcome))
        return outcome

    @asynccontextmanager
    async def _patient(self) -> AsyncIterator[Connection]:
        """A transaction whose statements may take longer than others."""
        async with self._postgres.transaction() as connection:
            patience = str(int(self._patience_s * 1000))
            await connection.execute(self._own["patience"], patience)
            yield connection

    async def _comparison(self, connection: Connection, table: str) -> TableComparison:
        hashed, patience_s = self._own[f"hash_{table}"], self._patience_s
        live = await connection.fetchrow(hashed, timeout=patience_s)
        await connection.execute(self._own["second_set_first"])
        made = await connection.fetchrow(hashed, timeout=patience_s)
        await connection.execute(self._own["live_set_only"])
        differing = []
        if live["hash"] != made["hash"]:
            query = self._own[f"differing_{table}"]
            differing = await connection.fetch(query, SHOWN_KEYS, timeout=patience_s)
        return TableComparison(
            table=table,
            rows=made["rows"],
            live=live["hash"].hex(),
            rebuilt=made["hash"].hex(),
            differing=differing[0]["count"] if differing else 0,
            keys=tuple(record["key"] for record in differing),
        )
