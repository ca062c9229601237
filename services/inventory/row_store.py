"""The rows that follow from events: loaded for a batch, and saved after it.

Which tables are meant is the transaction's matter: those that are read, or those that are made anew
beside them (`rebuild`). How rows change is `decide`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from chassis.postgres import Connection
from schemas.envelope import Envelope
from services.inventory.decide import Concerned, concerned, host_told, operation_of
from services.inventory.model import HostRow, OperationRow, Tables, VmRow

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


class RowStore:
    """Within one transaction."""

    def __init__(self, connection: Connection, queries: Queries) -> None:
        self._connection = connection
        self._queries = queries

    async def load(self, envelopes: Collection[Envelope[Any]]) -> tuple[Tables, list[Concerned]]:
        """The rows that the events concern, the VMs that their operations are about among them; and
        what each of them concerns."""
        asked = (operation_of(each) for each in envelopes)
        operations = await self._rows("load_operations", asked, OperationRow, "id")
        concerns = about(envelopes, operations)
        told = (host_told(each) for each in envelopes)
        tables = Tables(
            operations=operations,
            vms=await self._rows("load_vms", (each.vm for each in concerns), VmRow, "id"),
            hosts=await self._rows("load_hosts", told, HostRow, "name"),
        )
        return tables, concerns

    async def save(self, tables: Tables) -> None:
        await self._upsert("save_operations", tables.operations, OPERATION_COLUMNS)
        await self._upsert("save_vms", tables.vms, VM_COLUMNS)
        await self._upsert("save_hosts", tables.hosts, HOST_COLUMNS)

    async def _rows(
        self, query: str, keys: Iterable[str | None], row: type[R], key: str
    ) -> dict[str, R]:
        asked = sorted({each for each in keys if each is not None})
        if not asked:
            return {}
        records = await self._connection.fetch(self._queries[query], asked)
        return {record[key]: row(**record) for record in records}

    async def _upsert(self, query: str, rows: Mapping[str, Any], columns: Sequence[str]) -> None:
        if rows:
            ordered = [rows[key] for key in sorted(rows)]
            values = [[getattr(row, column) for row in ordered] for column in columns]
            await self._connection.execute(self._queries[query], *values)


def about(
    envelopes: Iterable[Envelope[Any]], operations: Mapping[str, OperationRow]
) -> list[Concerned]:
    """What each event concerns; a later event of an operation knows the VM from an earlier one."""
    vms: dict[str, str] = {}
    found: list[Concerned] = []
    for each in envelopes:
        concerns = concerned(each, operations)
        operation = concerns.operation
        if operation is not None:
            if concerns.vm is not None:
                vms[operation] = concerns.vm
            elif operation in vms:
                concerns = replace(concerns, vm=vms[operation])
        found.append(concerns)
    return found
