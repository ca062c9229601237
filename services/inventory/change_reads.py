"""Reading what changed between two times, and who had to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from chassis.postgres import Connection, Postgres
from schemas.changes import Changed, ChangedBy, ChangedKind, ListChanges
from schemas.problems import FieldError, Problem, invalid_request
from services.inventory import answers
from services.inventory.changes import Document, differences, kind_of_change
from services.inventory.columns import in_utc
from services.inventory.cursors import is_kind_and_id, key_in
from services.inventory.store import Queries

CHANGES = "change"
Key = tuple[str, str]
"""Kind and id."""


class ChangeReads:
    def __init__(self, postgres: Postgres, queries: Queries, *, page_bytes: int) -> None:
        self._postgres = postgres
        self._queries = queries
        self._page_bytes = page_bytes

    async def changes(self, query: ListChanges) -> bytes | Problem:
        """Raises Retry while Postgres is away."""
        after = key_in(query.after, CHANGES, str, plausible=is_kind_and_id) if query.after else None
        if isinstance(after, Problem):
            return after
        async with self._postgres.transaction(
            isolation="repeatable_read", readonly=True
        ) as connection:
            await connection.execute(self._queries["plan_for_values"])
            span = await connection.fetchrow(self._queries["history_span"])
            since = in_utc(query.since)
            until = span["now"] if query.until is None else in_utc(query.until)
            errors = _errors(since, until, span["begins"], span["now"])
            if errors:
                return invalid_request(*errors)
            between = _Between(connection, self._queries, since, until)
            found = await between.changed(after, query.limit + 1)
        keys = [f"{each.kind}/{each.id}" for each in found]
        return answers.page(
            found, keys, limit=query.limit, budget_bytes=self._page_bytes, list_name=CHANGES
        )


class _Between:
    """Two times within one transaction."""

    def __init__(
        self, connection: Connection, queries: Queries, since: datetime, until: datetime
    ) -> None:
        self._connection = connection
        self._queries = queries
        self._since = since
        self._until = until

    async def changed(self, after: str | None, limit: int) -> list[Changed]:
        """As many as `limit` of what differs; what became again what it was does not."""
        found: list[Changed] = []
        place: Sequence[str | None] = after.split("/", 1) if after else (None, None)
        while len(found) < limit:
            times = (self._since, self._until)
            records = await self._fetch("changed_between", *times, *place, limit)
            keys = [(record["kind"], record["id"]) for record in records]
            found += await self._differing(keys)
            if len(records) < limit:
                break
            place = keys[-1]
        return found[:limit]

    async def _differing(self, keys: Sequence[Key]) -> list[Changed]:
        before = await self._documents(keys, self._since)
        now = await self._documents(keys, self._until)
        by = await self._by(keys)
        return [
            _changed(key, before.get(key), now.get(key), by.get(key, ()))
            for key in keys
            if before.get(key) != now.get(key)
        ]

    async def _documents(self, keys: Sequence[Key], at: datetime) -> dict[Key, Document]:
        """Those of things that are known by then, deleted ones too."""
        vms = await self._fetch("vms_then", _ids(keys, "vm"), at)
        hosts = await self._fetch("hosts_then", _ids(keys, "host"), at)
        definitions = await self._fetch("definitions_then", [id for _, id in keys], at)
        found: dict[Key, Document] = {("vm", row["id"]): _plain(row) for row in vms}
        found |= {("host", row["name"]): _plain(row) for row in hosts}
        return found | {(row["kind"], row["name"]): _plain(row) for row in definitions}

    async def _by(self, keys: Sequence[Key]) -> dict[Key, tuple[ChangedBy, ...]]:
        found: dict[Key, list[ChangedBy]] = {}
        times = (self._since, self._until)
        vms, hosts = _ids(keys, "vm"), _ids(keys, "host")
        records = await self._fetch("operations_between", *times, vms, hosts)
        records += await self._fetch("definitions_between", *times, [id for _, id in keys])
        for record in records:
            fields = dict(record)
            key = (fields.pop("kind"), fields.pop("id"))
            found.setdefault(key, []).append(ChangedBy(**fields))
        return {key: tuple(by) for key, by in found.items()}

    async def _fetch(self, query: str, *values: Any) -> list[Any]:
        records: list[Any] = await self._connection.fetch(self._queries[query], *values)
        return records


def _changed(
    key: Key, before: Document | None, after: Document | None, by: tuple[ChangedBy, ...]
) -> Changed:
    was, is_ = _there(before), _there(after)
    known = after or before or {}
    return Changed(
        kind=msgspec.convert(key[0], ChangedKind),
        id=key[1],
        name=known.get("name", key[1]),
        change=kind_of_change(was, is_),
        fields=differences(was, is_) if was is not None and is_ is not None else (),
        by=by,
    )


def _there(document: Document | None) -> Document | None:
    """None for what is not there any more."""
    if document is None or document.get("deleted"):
        return None
    return None if "data" in document and document["data"] is None else document


def _plain(record: Mapping[str, Any]) -> Document:
    return {
        name: msgspec.json.decode(value) if name in DOCUMENTS and value is not None else value
        for name, value in record.items()
        if name not in ("kind", "labels")
    }


DOCUMENTS = ("spec", "guest", "facts", "config", "data")


def _ids(keys: Sequence[Key], kind: str) -> list[str]:
    return [id for of, id in keys if of == kind]


def _errors(since: datetime, until: datetime, begins: datetime, now: datetime) -> list[FieldError]:
    errors = []
    if since < begins:
        detail = f"the history begins at {begins.isoformat()}"
        errors.append(FieldError(field="query/since", detail=detail))
    if until > now:
        errors.append(FieldError(field="query/until", detail="is yet to come"))
    if since > until:
        errors.append(FieldError(field="query/since", detail="comes after `until`"))
    return errors
