"""Which months are in files and not in the database any more, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from chassis.postgres import Connection
from schemas.problems import Problem, put_away
from schemas.seals import Anchor, SignedAnchor, anchor_in

Queries = Mapping[str, str]


class Archive(Struct, frozen=True, kw_only=True):
    """A month that was put away; `position` is the furthest place in the stream among its rows."""

    anchor: Anchor
    signed: SignedAnchor
    position: int


async def archives(connection: Connection, queries: Queries, stream: str) -> list[Archive]:
    """All of them, oldest first."""
    return [archive_of(each) for each in await connection.fetch(queries["archives"], stream)]


def archive_of(record: Mapping[str, Any]) -> Archive:
    signed = SignedAnchor(
        statement=record["statement"].decode(),
        signature=record["signature"].hex(),
        key=record["key"].hex(),
    )
    return Archive(anchor=anchor_in(signed), signed=signed, position=record["position"])


def those_since(known: Sequence[Archive], since: datetime | None) -> list[Archive]:
    """The months of which rows were stored at a time or later."""
    return [each for each in known if since is None or since <= each.anchor.received_at]


def last_before(known: Sequence[Archive], at: datetime) -> int:
    """The last row of the months of which all was stored before a time."""
    return max((each.anchor.last for each in known if each.anchor.received_at < at), default=0)


def last_until(known: Sequence[Archive], at: datetime) -> int:
    """The same, and of the month after them, of which some may have been."""
    later = (each.anchor.last for each in known if at <= each.anchor.received_at)
    return next(later, last_before(known, at))


def with_row(known: Sequence[Archive], number: int) -> Archive | None:
    """The month that holds a row of the ledger."""
    return next((each for each in known if each.anchor.first <= number <= each.anchor.last), None)


def where(known: Sequence[Archive]) -> str:
    """Which rows these are, until when they were stored, and in which files they are."""
    first, last = known[0].anchor, known[-1].anchor
    files = ", ".join(each.anchor.file for each in known)
    return (
        f"rows {first.first} to {last.last}, stored until {last.received_at.isoformat()},"
        f" were put away into {files}"
    )


def gone(known: Sequence[Archive]) -> Problem:
    said = where(known)
    return put_away(f"{said[0].upper()}{said[1:]}.")
