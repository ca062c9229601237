"""Questions about what people define: what counts, one version, all versions. One statement an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Raw

from chassis.postgres import Postgres
from schemas.definitions import Definition, DefinitionKind
from schemas.problems import Problem, not_found
from schemas.queries import GetDefinition, ListDefinitions, ListVersions
from schemas.wire import encode
from services.inventory import answers
from services.inventory.answers import Record
from services.inventory.cursors import key_in
from services.inventory.definition_store import Shipped

Answer = bytes | Problem
Shown = Definition[Raw]


class DefinitionReads:
    """Answers to queries, as JSON bytes or a problem. Every method raises Retry while Postgres is away."""

    def __init__(
        self,
        postgres: Postgres,
        queries: Mapping[str, str],
        shipped: Shipped,
        *,
        page_bytes: int,
    ) -> None:
        self._postgres = postgres
        self._queries = queries
        self._shipped = shipped
        self._page_bytes = page_bytes

    async def one(self, query: GetDefinition) -> Answer:
        """A version that says "removed" is an answer only to who asks for it by its number."""
        records = await self._all("definition_version", query.kind, query.name, query.version)
        shipped = self._shipped_as(query.kind, query.name)
        if records and (query.version is not None or records[0]["data"] is not None):
            return encode(_shown(records[0]))
        if shipped is not None and query.version in (None, shipped.version):
            return encode(shipped)
        if query.version is None:
            return not_found(query.kind, query.name)
        return not_found(f"version {query.version} of the {query.kind}", query.name)

    async def present(self, query: ListDefinitions) -> Answer:
        """What counts now, by name."""
        after = key_in(query.after, query.kind, str) if query.after else None
        if isinstance(after, Problem):
            return after
        records = await self._all("live_definitions", query.kind, after, query.limit + 1)
        found = {each.name: each for each in self._all_shipped(query.kind, after)}
        found |= {each["name"]: _shown(each) for each in records}
        names = sorted(found)[: query.limit + 1]
        return answers.page(
            [found[name] for name in names],
            names,
            limit=query.limit,
            budget_bytes=self._page_bytes,
            list_name=query.kind,
        )

    async def versions(self, query: ListVersions) -> Answer:
        list_name = f"{query.kind}.versions"
        after = key_in(query.after, list_name, int) if query.after else None
        if isinstance(after, Problem):
            return after
        records = await self._all(
            "definition_versions", query.kind, query.name, after, query.limit + 1
        )
        found = [_shown(each) for each in records]
        shipped = self._shipped_as(query.kind, query.name)
        if shipped is not None and (after is None or shipped.version < after):
            found.append(shipped)
        if not found and after is None:
            return not_found(query.kind, query.name)
        return answers.page(
            found[: query.limit + 1],
            [each.version for each in found],
            limit=query.limit,
            budget_bytes=self._page_bytes,
            list_name=list_name,
        )

    def _all_shipped(self, kind: DefinitionKind, after: str | None) -> Iterator[Shown]:
        """What comes with Vireo, beyond a page's beginning."""
        for name in self._shipped.get(kind, {}):
            shown = self._shipped_as(kind, name)
            if shown is not None and (after is None or name > after):
                yield shown

    def _shipped_as(self, kind: DefinitionKind, name: str) -> Shown | None:
        definition = self._shipped.get(kind, {}).get(name)
        if definition is None:
            return None
        return Definition(
            kind=kind,
            name=name,
            version=definition.version,
            definition=Raw(encode(definition)),
            shipped=True,
        )

    async def _all(self, query: str, *values: Any) -> list[Record]:
        async with self._postgres.connection() as connection:
            records: list[Record] = await connection.fetch(self._queries[query], *values)
            return records


def _shown(record: Record) -> Shown:
    fields = dict(record)
    data = fields.pop("data")
    return Definition(**fields, definition=None if data is None else Raw(data.encode()))
