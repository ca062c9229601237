"""Whether tables that were made anew are those that are read: by hashes, and row by row where they differ.

Versions are hashed in pieces of the ledger, since only the newest piece still changes: the others can be
hashed while events are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from msgspec import Struct

from chassis.postgres import Connection
from schemas.rebuilds import SHOWN_KEYS, TableComparison
from services.inventory.versions import NUMBERED

Queries = Mapping[str, str]
Hashed = Sequence[Mapping[str, Any]]
"""`rows` and `hash` of each piece, in order."""

PIECE_BITS = 16
"""Rows of the ledger in a piece, as the migration `history_anew` has it."""
PAST_ALL = 1 << 62


class Early(Struct, frozen=True, kw_only=True):
    """The hashes of pieces that do not change any more, in both sets, by table."""

    upto: int
    """The first piece that is not among them."""
    sides: Mapping[str, tuple[Hashed, Hashed]]


class Comparison:
    """Within one transaction."""

    def __init__(self, connection: Connection, own: Queries, patience_s: float) -> None:
        """`own` are the queries of `rebuild.sql`."""
        self._connection = connection
        self._own = own
        self._patience_s = patience_s

    async def early(self, number: int) -> Early:
        """Of the versions of the rows of the ledger up to one."""
        upto = number >> PIECE_BITS
        return Early(
            upto=upto, sides={table: await self._pieces(table, 0, upto) for table in NUMBERED}
        )

    async def of(self, table: str, early: Early) -> TableComparison:
        live, made = await self._sides(table, early)
        differing = [] if digest(live) == digest(made) else await self._differing(table)
        return TableComparison(
            table=table,
            rows=sum(each["rows"] for each in made),
            live=digest(live).hex(),
            rebuilt=digest(made).hex(),
            differing=differing[0]["count"] if differing else 0,
            keys=tuple(record["key"] for record in differing),
        )

    async def _sides(self, table: str, early: Early) -> tuple[Hashed, Hashed]:
        if table not in early.sides:
            return await self._both("hash_of_table", table)
        live, made = early.sides[table]
        later_live, later_made = await self._pieces(table, early.upto, PAST_ALL)
        return [*live, *later_live], [*made, *later_made]

    async def _pieces(self, table: str, first: int, upto: int) -> tuple[Hashed, Hashed]:
        return await self._both("hash_of_versions", table, first, upto)

    async def _both(self, query: str, *values: Any) -> tuple[Hashed, Hashed]:
        statement = self._own[query]
        live, made = [
            await self._connection.fetch(statement, schema, *values, timeout=self._patience_s)
            for schema in ("public", "rebuild")
        ]
        return live, made

    async def _differing(self, table: str) -> Hashed:
        query = self._own["differing_rows"]
        found: Hashed = await self._connection.fetch(
            query, table, SHOWN_KEYS, timeout=self._patience_s
        )
        return found


def digest(pieces: Hashed) -> bytes:
    """Of a table: its hash or, if it is hashed in pieces, the SHA-256 over theirs."""
    if len(pieces) == 1 and "piece" not in pieces[0]:
        whole: bytes = pieces[0]["hash"]
        return whole
    return sha256(b"".join(each["hash"] for each in pieces)).digest()
