"""Gaps: what the consumer was never handed, read from the stream by its place, or known to be missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256

import structlog
from msgspec import Struct

from chassis.bus import Incoming, Outgoing
from chassis.postgres import Postgres
from chassis.service import Rig
from schemas import events, subjects
from schemas.ids import uuid7
from schemas.ledger import SEQUENCE_BITS
from schemas.wire import Undecodable, encode, unwrap, wrap
from services.inventory.coverage import Gap
from services.inventory.model import Arrival, position_of
from services.inventory.store import Queries, Store

log = structlog.get_logger()

TOLD = events.LedgerGapFound | events.LedgerGapSettled


class Counts(Struct, frozen=True, kw_only=True):
    """What became of the places of a gap."""

    filled: int
    unreadable: int
    missing: int


class GapWatch:
    """Looks for what was passed by and did not come by itself."""

    def __init__(
        self,
        rig: Rig,
        postgres: Postgres,
        queries: Queries,
        store: Store,
        *,
        stream: str,
        patience_s: float,
        batch: int,
    ) -> None:
        self._rig = rig
        self._postgres = postgres
        self._queries = queries
        self._store = store
        self._stream = stream
        self._patience_s = patience_s
        self._batch = batch

    async def turn(self) -> None:
        """Settle the gaps that are there. Raises Retry, BusError: then the rest is looked for later."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                self._queries["open_gaps"], self._stream, self._patience_s
            )
            epoch = await connection.fetchval(self._queries["epoch"], self._stream)
        for record in records:
            gap = Gap(first=record["first"], last=record["last"])
            await self._settle(gap, found_at=record["found_at"], epoch=epoch)

    async def _settle(self, gap: Gap, *, found_at: datetime, epoch: int) -> None:
        of = gap.first >> SEQUENCE_BITS
        first, last = (place & ((1 << SEQUENCE_BITS) - 1) for place in (gap.first, gap.last))
        log.error("gap_found", epoch=of, first=first, last=last)
        await self._tell(events.LedgerGapFound(epoch=of, first=first, last=last), found_at)
        # A stream that was lost took with it what was not stored of it.
        counts = await self._fill(gap, first, last) if of == epoch else await self._close(gap, [])
        log.warning(
            "gap_settled",
            epoch=of,
            first=first,
            last=last,
            filled=counts.filled,
            unreadable=counts.unreadable,
            missing=counts.missing,
        )
        await self._tell(
            events.LedgerGapSettled(
                epoch=of,
                first=first,
                last=last,
                filled=counts.filled,
                unreadable=counts.unreadable,
                missing=counts.missing,
            ),
            found_at,
        )

    async def _fill(self, gap: Gap, first: int, last: int) -> Counts:
        """Store what the stream still has of a gap."""
        found: list[Arrival] = []
        unreadable: list[int] = []
        async for message in self._messages(first, last):
            try:
                envelope = unwrap(message.data)
            except Undecodable:
                unreadable.append(position_of(gap.first >> SEQUENCE_BITS, message.sequence))
                continue
            found.append(Arrival(envelope=envelope, raw=message.data, sequence=message.sequence))
            if len(found) == self._batch:
                await self._store.record(found)
                found = []
        if found:
            await self._store.record(found)
        return await self._close(gap, unreadable)

    async def _messages(self, first: int, last: int) -> AsyncIterator[Incoming]:
        """What the stream has from one sequence to another."""
        while first <= last:
            message = await self._rig.bus.first_from(self._stream, first)
            if message is None or message.sequence > last:
                return
            yield message
            first = message.sequence + 1

    async def _close(self, gap: Gap, unreadable: list[int]) -> Counts:
        left = await self._store.settle(gap, unreadable)
        return Counts(
            filled=gap.last - gap.first + 1 - left,
            unreadable=len(unreadable),
            missing=left - len(unreadable),
        )

    async def _tell(self, told: TOLD, found_at: datetime) -> None:
        """Under an id from the gap itself: said again it is the same event."""
        id = uuid7(int(found_at.timestamp() * 1000), sha256(encode(told)).digest()[:10])
        envelope = wrap(
            told,
            id=id,
            site=self._rig.site,
            sender="inventory",
            at=self._rig.clock.now(),
            about=f"ledger/{self._stream}",
        )
        subject = subjects.event(
            type(told), site=self._rig.site, source="inventory", id=self._stream.lower()
        )
        await self._rig.bus.publish(Outgoing(subject=subject, data=encode(envelope), message_id=id))
