"""The ledger's values: what the record's upkeep and its auditors are told. Pure."""

from __future__ import annotations

from datetime import date

from msgspec import Struct


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
    return tuple(found)
