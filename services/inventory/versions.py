"""How rows were, made anew from events: the versions that recording made of them. Pure.

Recording makes a version of each row that a transaction changed, and a transaction's rows of the ledger
have one time of storing, which no other's have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

from msgspec import Struct

from schemas.envelope import Envelope
from services.inventory.decide import fact, host_told, operation_of, project_all
from services.inventory.history import Turns, turns
from services.inventory.model import Fact, Tables
from services.inventory.row_store import about

V = TypeVar("V")
Values = tuple[Any, ...]

_WHEN = ("since", "number")
_VM = ("host", "state", "power", "generation", "deleted", "operation", "problem")
_DOCUMENT = ("site", "name", "cpus", "memory_mib", "disk_gib", "unsized", "labels")
_DOCUMENTS = ("spec", "guest", "placement")
_OPERATION = (
    "command",
    "kind",
    "target",
    "phase",
    "actor",
    "progress",
    "detail",
    "host",
    "problem",
)
_HOST = ("site", "state", "facts", "config", "labels", "registered_at", "updated_at")
_TIMES = ("created_at", "updated_at")

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "vm_versions": ("id", *_WHEN, *_VM, *_TIMES),
    "vm_documents": ("id", *_WHEN, *_DOCUMENT, *_DOCUMENTS),
    "vm_lives": ("id", "born"),
    "operation_versions": ("id", *_WHEN, "first", *_OPERATION, "placement", *_TIMES),
    "host_versions": ("name", *_WHEN, *_HOST),
}
"""The tables, and what is written of each."""
NUMBERED = tuple(table for table, columns in COLUMNS.items() if "number" in columns)
"""Those to which more rows come, and nothing else happens."""

_vm = attrgetter(*_VM, *_TIMES)
_document = attrgetter(*_DOCUMENT, *_DOCUMENTS)
_operation = attrgetter(*_OPERATION)
_times = attrgetter(*_TIMES)
_host = attrgetter(*_HOST)


class StoredEvent(Struct, frozen=True, kw_only=True):
    """An event as the ledger has it, decoded."""

    number: int
    received_at: datetime
    fact: Fact


class Past(Struct, frozen=True, kw_only=True):
    """What follows from a piece of the ledger."""

    changed: Tables
    """Rows as they are at its end."""
    versions: Mapping[str, Sequence[Values]]
    """Rows for each of COLUMNS' tables."""
    deaths: Mapping[str, datetime]
    """When VMs were gone."""


def stored_event(number: int, position: int, at: datetime, said: Envelope[Any]) -> StoredEvent:
    return StoredEvent(number=number, received_at=at, fact=fact(said, position))


def past(before: Tables, stored: Iterable[StoredEvent]) -> Past:
    """`before` are all rows that these events concern; whole transactions, in the order of the ledger."""
    rows, changed = _copy(before), Tables(vms={}, operations={}, hosts={})
    versions: dict[str, list[Values]] = {table: [] for table in COLUMNS}
    deaths: dict[str, datetime] = {}
    for since, together in groupby(stored, key=attrgetter("received_at")):
        members = list(together)
        facts = [each.fact for each in members]
        was = _concerned(rows, facts)
        now = project_all(was, facts)
        _update(rows, now)
        _update(changed, now)
        turned = turns(was, now)
        for table, values in _versions(turned, now, (since, members[-1].number)):
            versions[table].append(values)
        deaths |= dict.fromkeys(turned.died, since)
    return Past(changed=changed, versions=versions, deaths=deaths)


def _concerned(rows: Tables, facts: Sequence[Fact]) -> Tables:
    """What a transaction with these events would have loaded."""
    envelopes = [each.envelope for each in facts]
    operations = _those(rows.operations, map(operation_of, envelopes))
    return Tables(
        operations=operations,
        vms=_those(rows.vms, (each.vm for each in about(envelopes, operations))),
        hosts=_those(rows.hosts, map(host_told, envelopes)),
    )


def _those(rows: Mapping[str, V], ids: Iterable[str | None]) -> dict[str, V]:
    return {id: rows[id] for id in ids if id is not None and id in rows}


def _copy(tables: Tables) -> Tables:
    return Tables(
        vms=dict(tables.vms), operations=dict(tables.operations), hosts=dict(tables.hosts)
    )


def _update(tables: Tables, changed: Tables) -> None:
    tables.vms.update(changed.vms)
    tables.operations.update(changed.operations)
    tables.hosts.update(changed.hosts)


def _versions(
    turned: Turns, now: Tables, when: tuple[datetime, int]
) -> Iterator[tuple[str, Values]]:
    """As the statement `remember` makes them."""
    for id in turned.vms:
        yield "vm_versions", (id, *when, *_vm(now.vms[id]))
    for id in turned.documents:
        yield "vm_documents", (id, *when, *_document(now.vms[id]))
    for id in turned.born:
        yield "vm_lives", (id, when[0])
    for id in turned.operations:
        row = now.operations[id]
        first, placement = id in turned.begun, row.placement if id in turned.placed else None
        yield "operation_versions", (id, *when, first, *_operation(row), placement, *_times(row))
    for name in turned.hosts:
        yield "host_versions", (name, *when, *_host(now.hosts[name]))
