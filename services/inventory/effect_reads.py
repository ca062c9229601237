"""Reading what an operation caused: its events, and those of what it led to, round by round."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chassis.postgres import Connection, Postgres
from schemas.envelope import Envelope
from schemas.problems import Problem, not_found
from schemas.queries import ShowEffects
from schemas.subjects import EVENTS
from schemas.wire import encode, unwrap
from services.inventory.archives import archives, where
from services.inventory.effects import OperationFacts, led_to, tree
from services.inventory.store import Queries

ROUNDS = 8
"""How deep operations may lead to operations."""


class EffectReads:
    def __init__(self, postgres: Postgres, queries: Queries, *, limit: int) -> None:
        self._postgres = postgres
        self._queries = queries
        self._limit = limit

    async def tree(self, query: ShowEffects) -> bytes | Problem:
        """Raises Retry while Postgres is away."""
        root = query.operation
        async with self._postgres.transaction(
            isolation="repeatable_read", readonly=True
        ) as connection:
            found = _Found(connection, self._queries, self._limit)
            await found.follow(root)
            rows = await connection.fetch(self._queries["operation_facts"], [*found.operations])
            known = await archives(connection, self._queries, EVENTS)
        operations = {row["id"]: OperationFacts(**row) for row in rows}
        if root not in operations:
            return not_found("operation", root)
        ordered = [found.envelopes[number] for number in sorted(found.envelopes)]
        # What follows from its acceptance was stored after it.
        away = [] if root in led_to(ordered) else known
        return encode(
            tree(root, operations, ordered, whole=found.whole, away=where(away) if away else "")
        )


class _Found:
    """What is known of a tree so far; events by their numbers."""

    def __init__(self, connection: Connection, queries: Queries, limit: int) -> None:
        self._connection = connection
        self._queries = queries
        self._limit = limit
        self.operations: set[str] = set()
        self.envelopes: dict[int, Envelope[Any]] = {}
        self.whole = True

    async def follow(self, root: str) -> None:
        wanted = [root]
        for _ in range(ROUNDS):
            self.operations.update(wanted)
            new = [*wanted, *await self._add("effects_of_operations", wanted)]
            while new and self.whole:
                caused = await self._add("effects_of_causes", new)
                new = caused
            wanted = [
                each for each in led_to(self.envelopes.values()) if each not in self.operations
            ]
            if not wanted or not self.whole:
                return
        self.whole = False

    async def _add(self, query: str, ids: Iterable[str]) -> list[str]:
        """What was not known before, by its ids."""
        left = self._limit - len(self.envelopes)
        records = await self._connection.fetch(self._queries[query], [*ids], left + 1)
        self.whole = self.whole and len(records) <= left
        added = {
            record["number"]: unwrap(record["envelope"])
            for record in records[:left]
            if record["number"] not in self.envelopes
        }
        self.envelopes |= added
        return [each.id for each in added.values()]
