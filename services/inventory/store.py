"""The inventory's Postgres, writing side: a batch of events and what follows from it, in one transaction.

What belongs here: locking, the ledger and its gaps. What does not: loading and saving what follows
(`row_store`), how it changes (`decide`), answers (`reads`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import structs
from msgspec.structs import replace

from chassis.postgres import Connection, Postgres
from schemas.resources import OperationPhase
from services.inventory.coverage import Gap, GapState, Placed, placed, without
from services.inventory.decide import fact, project_all
from services.inventory.entries import EVENT_COLUMNS, KEY_COLUMNS, Entry, entries
from services.inventory.history import Turns, turns
from services.inventory.model import Arrival, Head, position_of
from services.inventory.row_store import RowStore

Queries = Mapping[str, str]
SETTLED: Mapping[GapState, GapState] = {"open": "missing", "filled": "unreadable"}
"""What the pieces of a gap are called that was cut where a message could not be read."""


class Store:
    """Records batches of one stream's events. Safe to run in several processes at once."""

    def __init__(self, postgres: Postgres, queries: Queries, stream: str) -> None:
        self._postgres = postgres
        self._queries = queries
        self._stream = stream

    async def record(self, arrivals: Sequence[Arrival]) -> dict[str, OperationPhase]:
        """Store what is new in the batch and project it. Returns the phase of each operation touched
        whose command is known.

        All or nothing: once it returns the batch is committed; when it raises nothing has happened.
        Raises Retry while Postgres is away, ValueError or asyncpg.DataError on a value it cannot hold.
        """
        async with self._postgres.transaction() as connection:
            batch = _Batch(connection, self._queries, self._stream)
            return await batch.record(sorted(arrivals, key=lambda each: each.sequence))

    async def settle(self, gap: Gap, unreadable: Sequence[int]) -> int:
        """What is still open of a gap is missing, but for what is `unreadable`; how much that is."""
        async with self._postgres.transaction() as connection:
            batch = _Batch(connection, self._queries, self._stream)
            return await batch.settle(gap, unreadable)


class _Batch:
    """One batch within its transaction."""

    def __init__(self, connection: Connection, queries: Queries, stream: str) -> None:
        self._connection = connection
        self._queries = queries
        self._stream = stream
        self._rows = RowStore(connection, queries)

    async def record(self, arrivals: Sequence[Arrival]) -> dict[str, OperationPhase]:
        head, now = await self._head()
        batch = await self._placed(head, arrivals)
        new = batch.new
        before, about = await self._rows.load([each.envelope for each in new.values()])
        rows, hash = entries(self._stream, head, new, about, received_at=now)
        facts = [fact(each.envelope, position) for position, each in new.items()]
        # Postgres takes the rows in while we project what follows from them.
        adding = asyncio.create_task(self._add(rows))
        await asyncio.sleep(0)
        try:
            after = project_all(before, facts)
        finally:
            await adding
        await self._account(head, batch)
        await self._rows.save(after)
        number = head.number + len(rows)
        await self._remember(turns(before, after), now, number)
        await self._connection.execute(
            self._queries["advance_ledger"],
            *(self._stream, batch.epoch, number, batch.position, hash, now),
        )
        return {id: row.phase for id, row in after.operations.items() if row.command}

    async def _remember(self, turned: Turns, since: datetime, number: int) -> None:
        """How the rows are from now on, beside how they were."""
        changes = structs.astuple(turned)
        if any(changes):
            await self._connection.execute(self._queries["remember"], since, number, *changes)

    async def settle(self, gap: Gap, unreadable: Sequence[int]) -> int:
        await self._head()
        left = [
            each
            for each in await self._gaps([gap.first, gap.last])
            if each.state == "open" and gap.first <= each.first and each.last <= gap.last
        ]
        pieces = [piece for each in left for piece in without(each, unreadable)]
        await self._connection.execute(
            self._queries["forget_gaps"], self._stream, [each.first for each in left]
        )
        await self._note([replace(each, state=SETTLED[each.state]) for each in pieces])
        return sum(each.last - each.first + 1 for each in left)

    async def _head(self) -> tuple[Head, datetime]:
        """The end of the ledger, which nobody else adds to from now on, and the time for what follows.

        Time in the ledger never goes back: its months and days are pieces of it."""
        record = await self._connection.fetchrow(self._queries["lock_ledger"], self._stream)
        if record is None:
            raise LookupError(f"no ledger of the stream {self._stream!r}")
        fields = dict(record)
        now = fields.pop("now")
        return Head(**fields), now

    async def _placed(self, head: Head, arrivals: Sequence[Arrival]) -> Placed:
        ids = [each.envelope.id for each in arrivals]
        known = await self._connection.fetch(self._queries["known_events"], ids)
        return placed(
            head,
            arrivals,
            known={record["id"] for record in known},
            gaps=await self._gaps([position_of(head.epoch, each.sequence) for each in arrivals]),
        )

    async def _gaps(self, places: Sequence[int]) -> list[Gap]:
        """Those not filled between the first and the last of these places."""
        records = await self._connection.fetch(
            self._queries["gaps_between"], self._stream, places[0], places[-1]
        )
        return [Gap(**record) for record in records]

    async def _add(self, rows: Sequence[Entry]) -> None:
        """To the ledger; nobody else does at the same time, and none of it is known."""
        keys = [(row[3], row[0], row[2]) for row in rows]
        await self._connection.copy_records_to_table(
            "event_keys", records=keys, columns=KEY_COLUMNS
        )
        await self._connection.copy_records_to_table("events", records=rows, columns=EVENT_COLUMNS)

    async def _account(self, head: Head, batch: Placed) -> None:
        """Remember what was passed by, and that of what was passed by before some is here now."""
        if batch.filled:
            gaps = await self._gaps(batch.filled)
            pieces = [piece for gap in gaps for piece in without(gap, batch.filled)]
            await self._connection.execute(
                self._queries["forget_gaps"], self._stream, [gap.first for gap in gaps]
            )
            await self._note(pieces)
        await self._note(batch.opened)

    async def _note(self, gaps: Sequence[Gap]) -> None:
        if gaps:
            await self._connection.execute(
                self._queries["note_gaps"],
                self._stream,
                [gap.first for gap in gaps],
                [gap.last for gap in gaps],
                [gap.state for gap in gaps],
            )
