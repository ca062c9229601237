"""The ledger's values: what the record's upkeep and its auditors are told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from msgspec import Struct

from schemas.proofs import Place


class SealRow(Struct, frozen=True, kw_only=True):
    """A sealed day as it is stored; `blocks` are the roots over each 1,024 rows, one after the other."""

    day: date
    first: int
    last: int
    statement: bytes
    signature: bytes
    key: bytes
    blocks: bytes


class Condition(Struct, frozen=True, kw_only=True):
    """How the record is, as far as a person has to know."""

    rows: int = 0
    open: int = 0
    """Places in the stream that were passed by and are being looked for."""
    missing: int = 0
    """Places in the stream that were never stored and are not in the stream any more."""
    outside: int = 0
    """Rows for which no month was made."""
    sealed_through: date | None = None
    seal_fault: str = ""
    """Why the last day that is over is not sealed."""
    archive_fault: str = ""
    """Why a month that should be in a file is still in the database."""


def alarms(condition: Condition) -> tuple[str, ...]:
    """What of it somebody should look at, a sentence each."""
    found: list[str] = []
    if condition.open:
        found.append(f"{condition.open} events were passed by and are being looked for")
    if condition.missing:
        found.append(f"{condition.missing} events are missing: vireo audit gaps")
    if condition.outside:
        found.append(f"{condition.outside} rows of the record lie outside of every month")
    if condition.seal_fault:
        found.append(condition.seal_fault)
    if condition.archive_fault:
        found.append(condition.archive_fault)
    return tuple(found)


def place_of(record: Mapping[str, Any]) -> Place:
    """Where a stored event stands, with all that is hashed with it."""
    return Place(
        number=record["number"],
        position=record["position"],
        received_at=record["received_at"],
        previous=record["previous"].hex(),
        hash=record["hash"].hex(),
        operation=record["operation"],
        vm=record["vm"],
        host=record["host"],
    )
