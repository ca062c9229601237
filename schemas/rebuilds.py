"""What came of making the inventory's tables anew."""

from __future__ import annotations

from msgspec import Struct

SHOWN_KEYS = 20
"""Of the rows that differ, so many are named for each table."""


class TableComparison(Struct, frozen=True, kw_only=True):
    """A table as it was read, and as it was made anew. A hash is the SHA-256 over the SHA-256 of each
    row's text, in the order of the keys; of versions it is the SHA-256 over those of the pieces that come
    of each 65,536 rows of the ledger."""

    table: str
    rows: int
    """Of the one made anew, as far as they are compared."""
    live: str
    rebuilt: str
    differing: int = 0
    """Rows that are not the same in both, or stand in one of them alone."""
    keys: tuple[str, ...] = ()
    """Some of them."""


TOLD_KEYS = 3
"""In words, so many of them."""


def told(tables: tuple[TableComparison, ...], *, rows: int) -> str:
    """In words, for people."""
    made = ", ".join(f"{each.rows} {each.table}" for each in tables)
    differing = [each for each in tables if each.differing]
    if not differing:
        return f"{made} from {rows} events: the same"
    named = "; ".join(f"{each.differing} {each.table} ({_some(each.keys)})" for each in differing)
    return f"{made} from {rows} events; these differed: {named}"


def _some(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:TOLD_KEYS] + (("…",) if len(keys) > TOLD_KEYS else ()))
