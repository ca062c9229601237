"""What auditors are told: the state of the ledger, its gaps and seals, rows with proofs, and checks of it.

Every method raises Retry while Postgres is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec

from chassis.postgres import Postgres
from chassis.service import Clock
from chassis.signing import is_signed
from schemas.audit import (
    MOST_PROVEN,
    CheckLedger,
    CheckSeal,
    LedgerCheck,
    LedgerGap,
    LedgerProof,
    LedgerState,
    ListGaps,
    ListRows,
    ListSeals,
    ProveRows,
    ShowLedger,
)
from schemas.ledger import (
    SEQUENCE_BITS,
    Fault,
    LedgerRow,
    Reached,
    after,
    end_faults,
    faults_of,
)
from schemas.problems import FieldError, Problem, invalid_request, not_found
from schemas.proofs import proven_event
from schemas.seals import Seal, seal_in
from services.inventory import answers
from services.inventory.archives import Archive, archives, gone, those_since, with_row
from services.inventory.cursors import key_in
from services.inventory.ledger_model import SealRow, place_of
from services.inventory.seal_days import Broken, Seals, Span, signed
from services.inventory.store import Queries
from services.inventory.upkeep import Upkeep

Answer = bytes | Problem
SEQUENCE = (1 << SEQUENCE_BITS) - 1


class Audits:
    def __init__(
        self,
        postgres: Postgres,
        queries: Queries,
        *,
        stream: str,
        seals: Seals | None,
        upkeep: Upkeep,
        clock: Clock,
        page_bytes: int,
        rows_checked: int,
    ) -> None:
        self._postgres = postgres
        self._queries = queries
        self._stream = stream
        self._seals = seals
        self._upkeep = upkeep
        self._clock = clock
        self._page_bytes = page_bytes
        self._rows_checked = rows_checked
        self._today: SealRow | None = None

    async def state(self, _query: ShowLedger) -> LedgerState:
        head = await self._head()
        newest = await self._seals.newest() if self._seals is not None else None
        known = await self._archives()
        return LedgerState(
            stream=self._stream,
            rows=head["number"],
            hash=head["hash"].hex(),
            received_at=head["received_at"],
            key=self._seals.signer.public if self._seals is not None else None,
            sealed_through=newest.day.isoformat() if newest is not None else None,
            alarms=self._upkeep.alarms(),
            archives=tuple(each.signed for each in known),
        )

    async def gaps(self, query: ListGaps) -> Answer:
        place = key_in(query.after, "gap", int) if query.after else None
        if isinstance(place, Problem):
            return place
        records = await self._all("list_gaps", self._stream, place, query.filled, query.limit + 1)
        items = [
            LedgerGap(
                epoch=record["first"] >> SEQUENCE_BITS,
                first=record["first"] & SEQUENCE,
                last=record["last"] & SEQUENCE,
                state=record["state"],
                found_at=record["found_at"],
                settled_at=record["settled_at"],
            )
            for record in records
        ]
        return self._page(items, [each["first"] for each in records], query.limit, "gap")

    async def seals(self, query: ListSeals) -> Answer:
        last = key_in(query.after, "seal", int) if query.after else None
        if isinstance(last, Problem):
            return last
        records = await self._all("list_seals", self._stream, last, query.limit + 1)
        items = [signed(SealRow(**{**record, "first": 0, "blocks": b""})) for record in records]
        return self._page(items, [each["last"] for each in records], query.limit, "seal")

    async def rows(self, query: ListRows) -> Answer:
        number = key_in(query.after, "row", int) if query.after else None
        if isinstance(number, Problem):
            return number
        if query.since is not None and (away := those_since(await self._archives(), query.since)):
            return gone(away)
        async with self._postgres.transaction(readonly=True) as connection:
            await connection.execute(self._queries["plan_for_values"])
            records = await connection.fetch(
                self._queries["export_rows"],
                *(self._stream, number, query.operation, query.vm, query.since, query.until),
                query.limit + 1,
            )
        items = [proven_event(each["envelope"], place_of(each)) for each in records]
        return self._page(items, [each["number"] for each in records], query.limit, "row")

    async def prove(self, query: ProveRows) -> LedgerProof | Problem:
        """The seal of the day on which all of these rows were stored, or of the day so far."""
        numbers = sorted({int(each) for each in query.rows.split(",")})
        if len(numbers) > MOST_PROVEN:
            return invalid_request(
                FieldError(field="query/rows", detail=f"at most {MOST_PROVEN} at a time")
            )
        if self._seals is None:
            return not_found("signing key", "of the ledger")
        found = await self._seal_of(self._seals, numbers)
        if isinstance(found, Problem):
            return found
        try:
            proof = await self._seals.proof(found, [each - found.first for each in numbers])
        except Broken as broken:
            return not_found("proof", str(broken))
        return LedgerProof(seal=signed(found), proof=tuple(each.hex() for each in proof))

    async def _seal_of(self, seals: Seals, numbers: Sequence[int]) -> SealRow | Problem:
        async with self._postgres.connection() as connection:
            at = await connection.fetchval(self._queries["day_of_row"], self._stream, numbers[0])
        if at is None:
            away = with_row(await self._archives(), numbers[0])
            return gone([away]) if away else not_found("row", str(numbers[0]))
        day = at.astimezone(UTC).date()
        try:
            seal = await seals.of_day(day) or await self._so_far(seals, day, numbers[-1])
        except Broken as broken:
            return not_found("proof", str(broken))
        if not seal.first <= numbers[0] <= numbers[-1] <= seal.last:
            return invalid_request(
                FieldError(field="query/rows", detail="not all of them were stored on one day")
            )
        return seal

    async def _so_far(self, seals: Seals, day: date, number: int) -> SealRow:
        """The seal of a day that is not over, the last one made if it will do."""
        made = self._today
        if made is None or made.day != day or made.last < number:
            span = await seals.span(day, final=False)
            made = self._today = await seals.make(span, now=self._clock.now())
        return made

    async def check(self, query: CheckLedger) -> LedgerCheck:
        """The next rows against each other, up to the setting's number of them."""
        head = await self._head()
        anchored = await self._anchored()
        first = max(query.after, anchored.number)
        if query.since is not None:
            first = max(first, await self._last_before(query.since))
        last = head["number"] if query.until is None else await self._last_before(query.until)
        reached = anchored if first == anchored.number else await self._reached(first)
        limit = self._rows_checked
        rows = [
            LedgerRow(**record)
            for record in await self._all("ledger_rows", self._stream, first, limit)
        ]
        ended = len(rows) < limit or rows[-1].number >= last
        faults = await self._put_in(anchored) if query.after < anchored.number else []
        for row in rows:
            if query.until is not None and row.number > last:
                break
            faults += faults_of(reached, row)
            reached = after(reached, row)
        if ended and query.until is None:
            faults += end_faults(reached, number=head["number"], hash=head["hash"])
        through = max(first, reached.number)
        return LedgerCheck(
            through=through, last=last, rows=len(rows), faults=tuple(faults), ended=ended
        )

    async def check_seal(self, query: CheckSeal) -> LedgerCheck | Problem:
        """A day's rows, by the hashes that they have, against what was signed of it."""
        row = await self._sealed(query.day)
        if row is None:
            return not_found("seal", query.day)
        if away := with_row(await self._archives(), row.first):
            return LedgerCheck(
                through=row.last,
                last=row.last,
                rows=0,
                faults=(),
                ended=True,
                away=away.anchor.file,
            )
        seal, fault = seal_in(signed(row)), ""
        if self._seals is None or not is_signed(signed(row)):
            fault = f"the signature of the seal of {seal.day} is wrong"
        elif seal.size != row.last - row.first + 1 or seal.first != row.first:
            fault = f"the seal of {seal.day} is of other rows"
        else:
            fault = await self._root_fault(self._seals, seal)
        faults = (Fault(what="unsealed", number=row.first, last=row.last, detail=fault),)
        return LedgerCheck(
            through=row.last,
            last=row.last,
            rows=seal.size,
            faults=faults if fault else (),
            ended=True,
        )

    async def _root_fault(self, seals: Seals, seal: Seal) -> str:
        span = Span(day=date.fromisoformat(seal.day), first=seal.first, last=seal.last, final=True)
        try:
            made = seal_in(signed(await seals.make(span, now=self._clock.now())))
        except Broken as broken:
            return str(broken)
        if (made.root, made.hash) != (seal.root, seal.hash):
            return f"the rows of {seal.day} are not those that were signed"
        return ""

    async def _sealed(self, day: str) -> SealRow | None:
        try:
            return await self._seals.of_day(date.fromisoformat(day)) if self._seals else None
        except ValueError:
            return None

    async def _archives(self) -> list[Archive]:
        async with self._postgres.connection() as connection:
            return await archives(connection, self._queries, self._stream)

    async def _anchored(self) -> Reached:
        """Where what is left of the record begins."""
        known = await self._archives()
        if not known:
            return Reached()
        anchor = known[-1].anchor
        return Reached(number=anchor.last, hash=bytes.fromhex(anchor.hash))

    async def _put_in(self, anchored: Reached) -> list[Fault]:
        """Rows that stand before the anchor, where none are any more."""
        records = await self._all("rows_through", self._stream, anchored.number, self._rows_checked)
        return [
            Fault(what="inserted", **record, detail="the rows before the anchor are in files")
            for record in records
        ]

    async def _reached(self, number: int) -> Reached:
        """The row that a check begins after; where it is gone, its successor says what it was."""
        if number == 0:
            return Reached()
        records = await self._all("ledger_rows", self._stream, number - 1, 1)
        row = LedgerRow(**records[0]) if records else None
        if row is None:
            return Reached(number=number)
        if row.number == number:
            return after(Reached(), row)
        return Reached(number=number, hash=row.previous if row.number == number + 1 else b"")

    async def _last_before(self, at: datetime) -> int:
        async with self._postgres.connection() as connection:
            number: int = await connection.fetchval(self._queries["last_before"], self._stream, at)
            return number

    async def _head(self) -> Any:
        async with self._postgres.connection() as connection:
            return await connection.fetchrow(self._queries["ledger_head"], self._stream)

    async def _all(self, query: str, *values: Any) -> list[Any]:
        async with self._postgres.connection() as connection:
            records: list[Any] = await connection.fetch(self._queries[query], *values)
            return records

    def _page(
        self, items: Sequence[msgspec.Struct], keys: Sequence[int], limit: int, name: str
    ) -> bytes:
        return answers.page(items, keys, limit=limit, budget_bytes=self._page_bytes, list_name=name)
