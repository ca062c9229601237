"""The inventory's Postgres, reading side: one statement or two per answer, none of which locks anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct

from chassis.postgres import Connection, Postgres
from chassis.service import Tagged
from schemas.ids import Labels, is_uuid7
from schemas.problems import FieldError, Problem, invalid_request, not_found
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
from schemas.subjects import EVENTS as EVENTS_STREAM
from schemas.wire import unwrap
from services.inventory import answers
from services.inventory.answers import Record
from services.inventory.archives import Archive, archives, gone
from services.inventory.columns import in_utc
from services.inventory.cursors import key_in
from services.inventory.store import Queries
from services.inventory.trail import trail

VMS, HOSTS, OPERATIONS, EVENTS = "vm", "host", "operation", "event"
EVENTS_BACK = "event, newest first"
Answer = bytes | Problem
MADE_OF: Mapping[str, Sequence[str]] = {VMS: ("vms",), HOSTS: ("hosts", "vms")}
"""The tables, by name, that lists with a tag are made of: with hosts stands what their VMs take."""
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
        at = await self._moment(query.at)
        if isinstance(at, Problem):
            return at
        record = await self._one(name, query.vm, at=at)
        if record is None:
            return not_found("VM", query.vm)
        return answers.encode(answers.vm(record))

    async def vms(self, query: ListVms) -> Tagged | Problem:
        after = key_in(query.after, VMS, str) if query.after else None
        if isinstance(after, Problem):
            return after
        at = await self._moment(query.at)
        if isinstance(at, Problem):
            return at
        async with self._snapshot(VMS) as (connection, tag):
            statement, given = self._asked(
                "list_vms",
                (
                    after,
                    query.host,
                    query.name,
                    _labels(query.labels),
                    query.state,
                    query.limit + 1,
                ),
                at,
            )
            records = await connection.fetch(statement, *given)
        items = [answers.vm(each) for each in records]
        body = self._page(items, [each["id"] for each in records], query.limit, VMS)
        return Tagged(tag=tag, body=body)

    async def host(self, query: GetHost) -> Answer:
        at = await self._moment(query.at)
        if isinstance(at, Problem):
            return at
        record = await self._one("host_by_name", query.host, at=at)
        if record is None:
            return not_found("host", query.host)
        async with self._postgres.connection() as connection:
            reserved = await self._reserved(connection, [record], at)
        return answers.encode(answers.host(record, reserved.get(query.host)))

    async def hosts(self, query: ListHosts) -> Tagged | Problem:
        after = key_in(query.after, HOSTS, str) if query.after else None
        if isinstance(after, Problem):
            return after
        at = await self._moment(query.at)
        if isinstance(at, Problem):
            return at
        async with self._snapshot(HOSTS) as (connection, tag):
            statement, given = self._asked(
                "list_hosts", (after, query.state, _labels(query.labels), query.limit + 1), at
            )
            records = await connection.fetch(statement, *given)
            reserved = await self._reserved(connection, records, at)
        items = [answers.host(each, reserved.get(each["name"])) for each in records]
        body = self._page(items, [each["name"] for each in records], query.limit, HOSTS)
        return Tagged(tag=tag, body=body)

    async def tag(self, listed: str) -> str:
        """The tag of a list: what was answered under it is true for as long as it stands."""
        records = await self._postgres.glance(self._queries["tags"])
        tags = {record["name"]: record["tag"] for record in records}
        return ".".join(tags[table] for table in MADE_OF[listed])

    async def past_operation(self, operation: str, moment: datetime) -> Answer:
        """As it was, with its trail until then."""
        at = await self._moment(moment)
        if isinstance(at, Problem):
            return at
        found = await self.trails([operation], at=at)
        return found.get(operation) or not_found("operation", operation)

    async def trails(self, ids: Sequence[str], *, at: datetime | None = None) -> dict[str, bytes]:
        """Those of the operations that exist, with their trails."""
        found: dict[str, bytes] = {}
        for start in range(0, len(ids), TRAILS_AT_ONCE):
            some = ids[start : start + TRAILS_AT_ONCE]
            for record in await self._all("operations_by_id", some, self._trail_limit, at=at):
                fields = dict(record)
                steps = trail([unwrap(envelope) for envelope in fields.pop("events")])
                found[record["id"]] = answers.encode(answers.operation(fields, steps))
        return found

    async def operations(self, query: ListOperations) -> Answer:
        after = key_in(query.after, OPERATIONS, str) if query.after else None
        if isinstance(after, Problem):
            return after
        at = await self._moment(query.at)
        if isinstance(at, Problem):
            return at
        records = await self._list(
            "list_operations",
            *(after, query.target, query.phase, query.actor, query.limit + 1),
            at=at,
        )
        items = [answers.operation(each) for each in records]
        return self._page(items, [each["id"] for each in records], query.limit, OPERATIONS)

    async def events(self, query: ListEvents) -> Answer:
        listed = EVENTS_BACK if query.newest else EVENTS
        after = key_in(query.after, listed, int) if query.after else None
        if isinstance(after, Problem):
            return after
        if query.until is not None and (away := await self._away_before(in_utc(query.until))):
            return gone(away)
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

    async def _away_before(self, until: datetime) -> list[Archive]:
        """The months that were put away, if nothing that was stored before a time is still here."""
        async with self._postgres.connection() as connection:
            known = await archives(connection, self._queries, EVENTS_STREAM)
        return known if known and until <= known[-1].anchor.received_at else []

    def _page(
        self, items: Sequence[Struct | Raw], keys: Sequence[str | int], limit: int, list_name: str
    ) -> bytes:
        return answers.page(
            items, keys, limit=limit, budget_bytes=self._page_bytes, list_name=list_name
        )

    async def _moment(self, at: datetime | None) -> datetime | Problem | None:
        """The time that is asked for, where there is anything to be said of it."""
        if at is None:
            return None
        wanted = in_utc(at)
        async with self._postgres.connection() as connection:
            span = await connection.fetchrow(self._queries["history_span"])
        if wanted < span["begins"]:
            return _not_then(f"the history begins at {span['begins'].isoformat()}")
        if wanted > span["now"]:
            return _not_then("is yet to come")
        return wanted

    def _asked(
        self, query: str, values: Sequence[Any], at: datetime | None
    ) -> tuple[str, Sequence[Any]]:
        """A statement with its values: about now, or about then."""
        if at is None:
            return self._queries[query], values
        return self._queries[f"past_{query}"], (*values, at)

    async def _one(self, query: str, *values: Any, at: datetime | None = None) -> Record | None:
        statement, given = self._asked(query, values, at)
        async with self._postgres.connection() as connection:
            record: Record | None = await connection.fetchrow(statement, *given)
            return record

    async def _all(self, query: str, *values: Any, at: datetime | None = None) -> list[Record]:
        statement, given = self._asked(query, values, at)
        async with self._postgres.connection() as connection:
            records: list[Record] = await connection.fetch(statement, *given)
            return records

    async def _list(self, query: str, *values: Any, at: datetime | None = None) -> list[Record]:
        """As `_all`, planned for the filters that are really given."""
        statement, given = self._asked(query, values, at)
        async with self._postgres.transaction(readonly=True) as connection:
            await connection.execute(self._queries["plan_for_values"])
            records: list[Record] = await connection.fetch(statement, *given)
            return records

    @asynccontextmanager
    async def _snapshot(self, listed: str) -> AsyncIterator[tuple[Connection, str]]:
        """One moment of what a list is made of, with its tag; planned as in `_list`."""
        async with self._postgres.transaction(
            isolation="repeatable_read", readonly=True
        ) as connection:
            prepare = self._queries["tagged_plan_for_values"]
            yield connection, await connection.fetchval(prepare, MADE_OF[listed])

    async def _reserved(
        self, connection: Connection, hosts: Sequence[Record], at: datetime | None
    ) -> dict[str, Record]:
        statement, given = self._asked("reserved", ([host["name"] for host in hosts],), at)
        records = await connection.fetch(statement, *given)
        return {record["host"]: record for record in records}


def _not_then(detail: str) -> Problem:
    return invalid_request(FieldError(field="query/at", detail=detail))


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
