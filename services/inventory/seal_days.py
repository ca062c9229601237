"""Sealing: each day that is over is signed, stored and told.

A seal is stored before it is told, and told until the record itself has it. What outsiders hold then the
inventory can no longer take back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256

import structlog
from msgspec import Struct

from chassis.bus import BusError, Outgoing
from chassis.postgres import Postgres
from chassis.service import Rig
from chassis.signing import Signer
from schemas import events, subjects
from schemas.ids import uuid7
from schemas.merkle import BLOCK, root_of, strangers
from schemas.seals import Seal, SignedSeal
from schemas.wire import encode, wrap
from services.inventory.ledger_model import SealRow
from services.inventory.store import Queries

log = structlog.get_logger()

DAY = timedelta(days=1)
READ_TOGETHER = 64 * BLOCK
"""Hashes in hand at once while a day's tree is made."""
HASH_BYTES = 32


class Broken(Exception):
    """Rows of the day are not there: it is not signed. The text says which."""


class Span(Struct, frozen=True, kw_only=True):
    """A day's rows, all of them or those so far."""

    day: date
    first: int
    last: int
    final: bool


class Seals(Struct, frozen=True, kw_only=True):
    """Makes seals from the rows of one stream's ledger. Every method may raise Retry."""

    postgres: Postgres
    queries: Queries
    stream: str
    signer: Signer

    async def next_day(self) -> Span | None:
        """The first day that is over and not sealed, if rows were stored on it."""
        async with self.postgres.transaction() as connection:
            # Whoever stores now does so at a time that is not before ours: the day gets no more rows.
            head = await connection.fetchrow(self.queries["lock_ledger"], self.stream)
            last = await connection.fetchrow(self.queries["last_seal"], self.stream)
            first = (last["last"] if last else 0) + 1
            if first > head["number"]:
                return None
            at = await connection.fetchval(self.queries["day_of_row"], self.stream, first)
        if at is None:
            raise Broken(f"row {first} is missing: the days from it on are not sealed")
        day = at.astimezone(UTC).date()
        return (
            await self.span(day, final=True) if day < head["now"].astimezone(UTC).date() else None
        )

    async def span(self, day: date, *, final: bool) -> Span:
        """The rows of a day. Raises Broken."""
        begin = datetime.combine(day, time(), UTC)
        async with self.postgres.connection() as connection:
            record = await connection.fetchrow(
                self.queries["rows_of_day"], self.stream, begin, begin + DAY
            )
        if record["rows"] == 0:
            raise Broken(f"no rows of {day} are there")
        span = Span(day=day, first=record["first"], last=record["last"], final=final)
        if record["rows"] != span.last - span.first + 1:
            raise Broken(f"rows of {day} are missing or were put in: it is not sealed")
        return span

    async def make(self, span: Span, *, now: datetime) -> SealRow:
        """The signed seal over a span. Raises Broken."""
        blocks: list[bytes] = []
        tip = b""
        for low in range(span.first, span.last + 1, READ_TOGETHER):
            hashes = await self.hashes(low, min(low + READ_TOGETHER - 1, span.last))
            blocks += blocks_of(hashes)
            tip = hashes[-1]
        seal = Seal(
            stream=self.stream,
            day=span.day.isoformat(),
            first=span.first,
            last=span.last,
            root=root_of(blocks).hex(),
            hash=tip.hex(),
            final=span.final,
            sealed_at=now,
        )
        signed = self.signer.seal(seal)
        return SealRow(
            day=span.day,
            first=span.first,
            last=span.last,
            statement=signed.statement.encode(),
            signature=bytes.fromhex(signed.signature),
            key=bytes.fromhex(signed.key),
            blocks=b"".join(blocks),
        )

    async def hashes(self, first: int, last: int) -> list[bytes]:
        """The hashes of these rows as they are stored. Raises Broken if not all are there once."""
        async with self.postgres.connection() as connection:
            records = await connection.fetch(self.queries["hashes"], self.stream, first, last)
        if [record["number"] for record in records] != list(range(first, last + 1)):
            raise Broken(f"not all rows from {first} to {last} are there once")
        return [record["hash"] for record in records]

    async def proof(self, seal: SealRow, indices: Sequence[int]) -> list[bytes]:
        """The subtrees of a seal that hold none of the rows with these indices: of whole blocks by
        their roots, else from rows. Raises Broken."""
        size = seal.last - seal.first + 1
        proof: list[bytes] = []
        block: tuple[int, list[bytes]] = (-1, [])
        for low, high in strangers(size, indices):
            if low % BLOCK == 0 and (high % BLOCK == 0 or high == size):
                blocks = seal.blocks[low // BLOCK * HASH_BYTES : -(-high // BLOCK) * HASH_BYTES]
                proof.append(root_of(_cut(blocks)))
                continue
            if block[0] != low // BLOCK:
                first = seal.first + low // BLOCK * BLOCK
                last = min(first + BLOCK - 1, seal.last)
                block = (low // BLOCK, await self.hashes(first, last))
            start = block[0] * BLOCK
            proof.append(root_of(block[1][low - start : high - start]))
        return proof

    async def save(self, row: SealRow) -> None:
        async with self.postgres.transaction() as connection:
            await connection.execute(
                self.queries["save_seal"],
                *(self.stream, row.day, row.first, row.last),
                *(row.statement, row.signature, row.key, row.blocks),
            )

    async def of_day(self, day: date) -> SealRow | None:
        return await self._one("seal_of_day", self.stream, day)

    async def newest(self) -> SealRow | None:
        return await self._one("last_seal", self.stream)

    async def is_recorded(self, id: str) -> bool:
        async with self.postgres.connection() as connection:
            return bool(await connection.fetch(self.queries["known_events"], [id]))

    async def _one(self, query: str, *values: object) -> SealRow | None:
        async with self.postgres.connection() as connection:
            record = await connection.fetchrow(self.queries[query], *values)
        return SealRow(**record) if record else None


def blocks_of(hashes: list[bytes]) -> list[bytes]:
    return [root_of(hashes[low : low + BLOCK]) for low in range(0, len(hashes), BLOCK)]


def _cut(blocks: bytes) -> list[bytes]:
    return [blocks[at : at + HASH_BYTES] for at in range(0, len(blocks), HASH_BYTES)]


def signed(row: SealRow) -> SignedSeal:
    return SignedSeal(
        statement=row.statement.decode(), signature=row.signature.hex(), key=row.key.hex()
    )


class Sealing:
    """Seals each day once it is over, and tells of it."""

    def __init__(self, seals: Seals, rig: Rig) -> None:
        self._seals = seals
        self._rig = rig
        self.fault = ""
        """Why there was nothing to be sealed that should have been."""

    async def turn(self) -> None:
        """Tell of the newest seal if the record doesn't have it yet; seal what is over.

        Raises Retry, BusError."""
        newest = await self._seals.newest()
        if newest is not None:
            await self._tell(newest)
        try:
            while (span := await self._seals.next_day()) is not None:
                row = await self._seals.make(span, now=self._rig.clock.now())
                await self._seals.save(row)
                log.info("day_sealed", day=str(span.day), first=span.first, last=span.last)
                await self._tell(row)
        except Broken as broken:
            if self.fault != str(broken):
                log.error("day_not_sealed", reason=str(broken))
            self.fault = str(broken)
        else:
            self.fault = ""

    async def _tell(self, row: SealRow) -> None:
        id = uuid7(
            int(datetime.combine(row.day + DAY, time(), UTC).timestamp() * 1000),
            sha256(row.statement).digest()[:10],
        )
        if await self._seals.is_recorded(id):
            return
        envelope = wrap(
            events.LedgerSealed(seal=signed(row)),
            id=id,
            site=self._rig.site,
            sender="inventory",
            at=self._rig.clock.now(),
            about=f"ledger/{row.day.isoformat()}",
        )
        subject = subjects.event(
            events.LedgerSealed,
            site=self._rig.site,
            source="inventory",
            id=f"day-{row.day.isoformat()}",
        )
        try:
            await self._rig.bus.publish(
                Outgoing(subject=subject, data=encode(envelope), message_id=id)
            )
        except BusError as error:
            log.info("seal_not_told", day=str(row.day), error=str(error))
