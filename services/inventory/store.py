"""The inventory's Postgres, writing side: a batch of events and what follows from it, in one transaction.

What belongs here: locking, inserting, loading and saving rows. What does not: how rows change (`decide`),
answers (`reads`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from chassis.postgres import Connection, Postgres
from schemas.resources import OperationPhase
from services.inventory.columns import in_utc, text
from services.inventory.decide import Concerned, concerned, fact, project_all
from services.inventory.model import (
    Arrival,
    HostRow,
    OperationRow,
    Tables,
    VmRow,
    position_of,
)

Queries = Mapping[str, str]
R = TypeVar("R", bound=Struct)

VM_COLUMNS = (
    *("id", "site", "name", "host", "state", "power", "generation", "ending", "deleted"),
    *("cpus", "memory_mib", "disk_gib", "unsized", "labels", "spec", "guest", "placement"),
    *("operation", "problem", "created_at", "updated_at", "position"),
    *("state_position", "guest_position"),
)
OPERATION_COLUMNS = (
    *("id", "command", "kind", "target", "phase", "actor", "progress", "detail", "host"),
    *("problem", "placement", "created_at", "updated_at", "position"),
)
HOST_COLUMNS = (
    *("name", "site", "state", "facts", "config", "config_generation", "labels"),
    *("registered_at", "updated_at", "state_position", "facts_position"),
)


class Store:
    """Records batches of one stream's events. Safe to run in several processes at once."""

    def __init__(self, postgres: Postgres, queries: Queries, stream: str) -> None:
        self._postgres = postgres
        self._queries = queries
        self._stream = stream

    async def record(self, arrivals: Sequence[Arrival]) -> dict[str, OperationPhase]:
        """Store what is new in the batch and project it. Returns the phase of each operation touched
        whose command is known.

        All or nothing: once it returns the batch is committed; when it raises nothing has happened.
        Raises Retry while Postgres is away, ValueError or asyncpg.DataError on a value it cannot hold.
        """
        async with self._postgres.transaction() as connection:
            batch = _Batch(connection, self._queries, self._stream)
            return await batch.record(sorted(arrivals, key=lambda each: each.sequence))


class _Batch:
    """One batch within its transaction."""

    def __init__(self, connection: Connection, queries: Queries, stream: str) -> None:
        self._connection = connection
        self._queries = queries
        self._stream = stream

    async def record(self, arrivals: Sequence[Arrival]) -> dict[str, OperationPhase]:
        epoch = await self._connection.fetchval(self._queries["lock_stream"], self._stream)
        if epoch is None:
            raise LookupError(f"no stream {self._stream!r} among the streams")
        before = await self._load(arrivals)
        about = _about(arrivals, before.operations)
        new = await self._insert(epoch, arrivals, about)
        if len(new) < len(arrivals):
            new |= await self._insert_strangers(arrivals, about, known=new)
        facts = [fact(new[position].envelope, position) for position in sorted(new)]
        after = project_all(before, facts)
        await self._save(after)
        return {id: row.phase for id, row in after.operations.items() if row.command}

    async def _load(self, arrivals: Sequence[Arrival]) -> Tables:
        """The rows that the batch concerns, and the VMs that its operations are about."""
        first = [concerned(each.envelope, {}) for each in arrivals]
        operations = await self._rows(
            "load_operations", (each.operation for each in first), OperationRow, "id"
        )
        about = _about(arrivals, operations)
        return Tables(
            operations=operations,
            vms=await self._rows("load_vms", (each.vm for each in about), VmRow, "id"),
            hosts=await self._rows("load_hosts", (each.host for each in about), HostRow, "name"),
        )

    async def _rows(
        self, query: str, keys: Iterable[str | None], row: type[R], key: str
    ) -> dict[str, R]:
        asked = sorted({each for each in keys if each is not None})
        if not asked:
            return {}
        records = await self._connection.fetch(self._queries[query], asked)
        return {record[key]: row(**record) for record in records}

    async def _insert(
        self, epoch: int, arrivals: Sequence[Arrival], about: Sequence[Concerned]
    ) -> dict[int, Arrival]:
        """Those that were not stored yet, by position."""
        given = {position_of(epoch, each.sequence): each for each in arrivals}
        rows = [
            _event_row(position_of(epoch, each.sequence), each, concerns)
            for each, concerns in zip(arrivals, about, strict=True)
        ]
        inserted = await self._connection.fetch(
            self._queries["insert_events"], self._stream, *map(list, zip(*rows, strict=True))
        )
        return {record["position"]: given[record["position"]] for record in inserted}

    async def _insert_strangers(
        self, arrivals: Sequence[Arrival], about: Sequence[Concerned], known: dict[int, Arrival]
    ) -> dict[int, Arrival]:
        """Events whose place in the stream another event has: the stream was lost and made anew.

        They, and all that follow, belong to its next epoch. Repeats (stored under their id) don't.
        """
        ids = [each.envelope.id for each in arrivals]
        records = await self._connection.fetch(self._queries["known_events"], ids)
        stored = {record["id"] for record in records}
        strangers = [
            (each, concerns)
            for each, concerns in zip(arrivals, about, strict=True)
            if each.envelope.id not in stored
        ]
        if not strangers:
            return {}
        epoch = await self._connection.fetchval(self._queries["next_epoch"], self._stream)
        return await self._insert(epoch, *map(list, zip(*strangers, strict=True)))

    async def _save(self, tables: Tables) -> None:
        await self._upsert("save_operations", tables.operations, OPERATION_COLUMNS)
        await self._upsert("save_vms", tables.vms, VM_COLUMNS)
        await self._upsert("save_hosts", tables.hosts, HOST_COLUMNS)

    async def _upsert(self, query: str, rows: Mapping[str, Any], columns: Sequence[str]) -> None:
        if rows:
            ordered = [rows[key] for key in sorted(rows)]
            values = [[getattr(row, column) for row in ordered] for column in columns]
            await self._connection.execute(self._queries[query], *values)


def _about(arrivals: Sequence[Arrival], operations: Mapping[str, OperationRow]) -> list[Concerned]:
    """What each event concerns; a later event of an operation knows the VM from an earlier one."""
    vms: dict[str, str] = {}
    found: list[Concerned] = []
    for each in arrivals:
        concerns = concerned(each.envelope, operations)
        operation = concerns.operation
        if operation is not None:
            vm = concerns.vm or vms.get(operation)
            concerns = Concerned(vm=vm, operation=operation, host=concerns.host)
            if vm is not None:
                vms[operation] = vm
        found.append(concerns)
    return found


def _event_row(position: int, arrival: Arrival, about: Concerned) -> tuple[Any, ...]:
    """The columns of `insert_events`, in its order."""
    envelope = arrival.envelope
    return (
        position,
        envelope.id,
        in_utc(envelope.time),
        envelope.type,
        text(envelope.source),
        text(envelope.subject) if envelope.subject is not None else None,
        about.operation,
        envelope.cause,
        text(envelope.actor) if envelope.actor is not None else None,
        about.vm,
        about.host,
        arrival.raw,
    )
