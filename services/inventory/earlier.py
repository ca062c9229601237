"""Stored events by their place in the stream. Raises Retry while Postgres is away."""

from __future__ import annotations

from msgspec import Raw

from chassis.postgres import Postgres
from chassis.service import Endpoint
from schemas.earlier import EarlierEvent, EarlierEvents, ReadEarlier
from schemas.ledger import SEQUENCE_BITS
from schemas.problems import Problem
from services.inventory.archives import archives, gone
from services.inventory.model import position_of
from services.inventory.store import Queries


class Earlier:
    def __init__(
        self, postgres: Postgres, queries: Queries, *, stream: str, page_bytes: int
    ) -> None:
        self._postgres = postgres
        self._queries = queries
        self._stream = stream
        self._page_bytes = page_bytes

    async def read(self, query: ReadEarlier) -> EarlierEvents | Problem:
        """At least one, if there is any. Whoever begins gets what there is; whoever goes on is told if
        what would come next is in files: they would have to pass it by."""
        async with self._postgres.connection() as connection:
            epoch = await connection.fetchval(self._queries["epoch"], self._stream)
            known = await archives(connection, self._queries, self._stream)
            after = position_of(epoch, query.after)
            if query.after and (away := [each for each in known if after < each.position]):
                return gone(away)
            records = await connection.fetch(
                self._queries["earlier_events"],
                self._stream,
                after,
                position_of(epoch, query.before),
                query.limit,
            )
        items: list[EarlierEvent] = []
        left = self._page_bytes
        for record in records:
            left -= len(record["envelope"])
            if left < 0 and items:
                break
            sequence = record["position"] & ((1 << SEQUENCE_BITS) - 1)
            items.append(EarlierEvent(sequence=sequence, event=Raw(record["envelope"])))
        return EarlierEvents(items=tuple(items))

    def endpoint(self, *, concurrency: int, line: int) -> Endpoint:
        return Endpoint(
            name="event.earlier",
            description="Stored events by their place in the stream",
            request=ReadEarlier,
            handler=self.read,
            concurrency=concurrency,
            line=line,
        )
