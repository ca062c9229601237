"""The inventory's Postgres, reading side: one statement or two per answer, none of which locks anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct

from chassis.postgres import Postgres
from schemas.ids import Labels, is_uuid7
from schemas.problems import Problem, not_found
from schemas.queries import (
    GetHost,
    GetVm,
    ListEvents,
    ListHosts,
    ListOperations,
    ListVms,
)
from schemas.resources import OperationPhase
from schemas.subjects import BY_TYPE
from schemas.wire import unwrap
from services.inventory import answers
from services.inventory.answers import Record
from services.inventory.columns import in_utc
from services.inventory.cursors import key_in
from services.inventory.store import Queries
from services.inventory.trail import trail

VMS, HOSTS, OPERATIONS, EVENTS = "vm", "host", "operation", "event"
EVENTS_BACK = "event, newest first"
Answer = bytes | Problem
TRAILS_AT_ONCE = 64
"""Operations that one statement brings with all their events."""


class Reads:
    """Answers to queries, as JSON bytes or a problem. Every method raises Retry while Postgres is away."""

    def __init__(
        self, postgres: Postgres, queries: Queries, *, trail_limit: int, page_bytes: int
    ) -> None:
        self._postgres = postgres
        self._queries = queries
        self._trail_limit = trail_limit
        self._page_bytes = page_bytes

    async def vm(self, query: GetVm) -> Answer:
        name = "vm_by_id" if is_uuid7(query.vm) else "vm_by_name"
        record = await self._one(name, query.vm)
        if record is None:
            return not_found("VM", query.vm)
        return answers.encode(answers.vm(record))

    async def vms(self, query: ListVms) -> Answer:
        after = key_in(query.after, VMS, str) if query.after else None
        if isinstance(after, Problem):
            return after
        records = await self._list(
            "list_vms",
            *(after, query.host, query.name, _labels(query.labels), query.state),
            query.limit + 1,
        )
        items = [answers.vm(each) for each in records]
        return self._page(items, [each["id"] for each in records], query.limit, VMS)

    async def host(self, query: GetHost) -> Answer:
        record = await self._one("host_by_name", query.host)
        if record is None:
            return not_found("host", query.host)
        reserved = await self._reserved([record])
        return answers.encode(answers.host(record, reserved.get(query.host)))

    async def hosts(self, query: ListHosts) -> Answer:
        after = key_in(query.after, HOSTS, str) if query.after else None
        if isinstance(after, Problem):
            return after
        records = await self._list(
            "list_hosts",
            *(after, query.state, _labels(query.labels), query.limit + 1),
        )
        reserved = await self._reserved(records)
        items = [answers.host(each, reserved.get(each["name"])) for each in records]
        return self._page(items, [each["name"] for each in records], query.limit, HOSTS)

    async def trails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Those of the operations that exist, with their trails."""
        found: dict[str, bytes] = {}
        for start in range(0, len(ids), TRAILS_AT_ONCE):
            some = ids[start : start + TRAILS_AT_ONCE]
            for record in await self._all("operations_by_id", some, self._trail_limit):
                fields = dict(record)
                steps = trail([unwrap(envelope) for envelope in fields.pop("events")])
                found[record["id"]] = answers.encode(answers.operation(fields, steps))
        return found

    async def operations(self, query: ListOperations) -> Answer:
        after = key_in(query.after, OPERATIONS, str) if query.after else None
        if isinstance(after, Problem):
            return after
        records = await self._list(
            "list_operations",
            *(after, query.target, query.phase, query.actor, query.limit + 1),
        )
        items = [answers.operation(each) for each in records]
        return self._page(items, [each["id"] for each in records], query.limit, OPERATIONS)

    async def events(self, query: ListEvents) -> Answer:
        listed = EVENTS_BACK if query.newest else EVENTS
        after = key_in(query.after, listed, int) if query.after else None
        if isinstance(after, Problem):
            return after
        records = await self._list(
            "list_events_back" if query.newest else "list_events",
            *(after, query.operation, query.vm, query.host, query.actor),
            *(types_of(query.types), _utc(query.since), _utc(query.until), query.limit + 1),
        )
        items = [Raw(each["envelope"]) for each in records]
        return self._page(items, [each["number"] for each in records], query.limit, listed)

    async def phases(self, operations: Sequence[str]) -> dict[str, OperationPhase]:
        """The phases of those operations that exist."""
        records = await self._all("phases", operations)
        return {record["id"]: record["phase"] for record in records}

    def _page(
        self, items: Sequence[Struct | Raw], keys: Sequence[str | int], limit: int, list_name: str
    ) -> bytes:
        return answers.page(
            items, keys, limit=limit, budget_bytes=self._page_bytes, list_name=list_name
        )

    async def _one(self, query: str, *values: Any) -> Record | None:
        async with self._postgres.connection() as connection:
            record: Record | None = await connection.fetchrow(self._queries[query], *values)
            return record

    async def _all(self, query: str, *values: Any) -> list[Record]:
        async with self._postgres.connection() as connection:
            records: list[Record] = await connection.fetch(self._queries[query], *values)
            return records

    async def _list(self, query: str, *values: Any) -> list[Record]:
        """As `_all`, planned for the filters that are really given."""
        async with self._postgres.transaction(readonly=True) as connection:
            await connection.execute(self._queries["plan_for_values"])
            records: list[Record] = await connection.fetch(self._queries[query], *values)
            return records

    async def _reserved(self, hosts: Sequence[Record]) -> dict[str, Record]:
        names = [host["name"] for host in hosts]
        records = await self._all("reserved", names)
        return {record["host"]: record for record in records}


def _labels(labels: Labels) -> str | None:
    return msgspec.json.encode(labels).decode().replace("\\u0000", "") if labels else None


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else in_utc(at)


def types_of(names: Sequence[str]) -> list[str] | None:
    """The types that these names stand for, `vm.*` for all of that kind; None where there are no names."""
    if not names:
        return None
    return [channel.type for channel in BY_TYPE.values() if fits(channel.name, names)]


def fits(name: str, names: Sequence[str]) -> bool:
    """Whether an event's name is one of `names`."""
    return name in names or f"{name.partition('.')[0]}.*" in names
