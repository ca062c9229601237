"""Audits by the SDK: the state of the record, checks of it, and events with proofs that hold offline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from schemas.audit import MOST_PROVEN, LedgerCheck, LedgerGap, LedgerProof, LedgerState
from schemas.changes import Changed
from schemas.ledger import day_of
from schemas.proofs import FORMAT, Group, ProvenEvent, Title
from schemas.seals import SignedSeal
from vireo.pages import PageOf, walk
from vireo.paths import query_of, time_text
from vireo.transport import Transport


class Audit:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def state(self) -> LedgerState:
        """How far the record has come, the key of its seals, and what somebody should look at."""
        return await self._transport.read("/v1/ledger", LedgerState)

    def gaps(self, *, filled: bool = False, limit: int | None = None) -> AsyncIterator[LedgerGap]:
        """What was passed by and not stored; with `filled`, also what was stored later."""
        query = query_of(filled="true" if filled else None)
        return walk(self._transport, "/v1/ledger/gaps", PageOf[LedgerGap], query, limit=limit)

    def seals(self, *, limit: int | None = None) -> AsyncIterator[SignedSeal]:
        """The signed days, oldest first."""
        return walk(self._transport, "/v1/ledger/seals", PageOf[SignedSeal], [], limit=limit)

    def rows(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[ProvenEvent]:
        """Events with what is hashed with them, in the order of storing."""
        query = query_of(since=time_text(since), until=time_text(until))
        return walk(self._transport, "/v1/ledger/rows", PageOf[ProvenEvent], query, limit=limit)

    def changes(
        self, *, since: datetime, until: datetime | None = None, limit: int | None = None
    ) -> AsyncIterator[Changed]:
        """What is not as it was at `since`, now or at `until`, and whose operations had to do with it."""
        query = query_of(since=time_text(since), until=time_text(until))
        return walk(self._transport, "/v1/diff", PageOf[Changed], query, limit=limit)

    async def check(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[LedgerCheck]:
        """Check the rows against each other, piece by piece to the end."""
        after = 0
        while True:
            query = query_of(since=time_text(since), until=time_text(until), after=str(after))
            piece = await self._transport.read("/v1/ledger/check", LedgerCheck, query=query)
            yield piece
            if piece.ended:
                return
            after = piece.through

    async def check_seal(self, day: str) -> LedgerCheck:
        """Check the rows of a day against its seal."""
        return await self._transport.read(f"/v1/ledger/seals/{day}/check", LedgerCheck)

    async def export(
        self,
        *,
        operation: str | None = None,
        vm: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[bytes]:
        """The lines of a file (without line breaks) that `schemas.proofs.check_file` checks."""
        selection = {
            "operation": operation,
            "vm": vm,
            "since": time_text(since),
            "until": time_text(until),
        }
        given = {name: value for name, value in selection.items() if value is not None}
        state = await self.state()
        yield msgspec.json.encode(
            Title(
                ledger=FORMAT,
                stream=state.stream,
                exported_at=datetime.now(UTC),
                selection=given,
            )
        )
        rows = walk(
            self._transport, "/v1/ledger/rows", PageOf[ProvenEvent], list(given.items()), limit=None
        )
        async for group in _groups(rows):
            numbers = [event.row.number for event in group]
            query = query_of(rows=",".join(map(str, numbers)))
            proof = await self._transport.read("/v1/ledger/proof", LedgerProof, query=query)
            yield msgspec.json.encode(
                Group(seal=proof.seal, rows=tuple(numbers), proof=proof.proof)
            )
            for event in group:
                yield msgspec.json.encode(event)


async def _groups(rows: AsyncIterator[ProvenEvent]) -> AsyncIterator[list[ProvenEvent]]:
    """Events that one proof is asked for: of one day, and not too many."""
    group: list[ProvenEvent] = []
    async for event in rows:
        other = group and day_of(group[0].row.received_at) != day_of(event.row.received_at)
        if other or len(group) == MOST_PROVEN:
            yield group
            group = []
        group.append(event)
    if group:
        yield group
