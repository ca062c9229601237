"""Events as the record has them, wherever their rows lie, and what is asked for of them. Pure.

A row of the database and a line of a month's file come to the same value. Of a file, it is seen as it is
read that it is the piece of the chain which was put away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from schemas.proofs import Chain, Place, event_in, hash_of_event
from schemas.wire import read_header

LAST = (1 << 63) - 1
"""Behind all rows."""


class Recorded(Struct, frozen=True, kw_only=True):
    """A recorded event: its place in the ledger, what it was found to concern, its bytes as published."""

    number: int
    position: int
    received_at: datetime
    operation: str | None
    vm: str | None
    host: str | None
    envelope: bytes


class Selection(Struct, frozen=True, kw_only=True):
    """Which events are asked for: all that is given must hold, one of `types`."""

    since: datetime | None = None
    """What was stored then or later,"""
    until: datetime | None = None
    """and before this,"""
    last: int = LAST
    """and no row after this one."""
    vm: str | None = None
    host: str | None = None
    operation: str | None = None
    types: Sequence[str] | None = None

    @property
    def takes_all(self) -> bool:
        """Of what was stored in its time."""
        return self.vm is self.host is self.operation is self.types is None

    def holds(self, event: Recorded) -> bool:
        """Of an event behind which it does not end."""
        if self.since is not None and event.received_at < self.since:
            return False
        return (
            self.vm in (None, event.vm)
            and self.host in (None, event.host)
            and self.operation in (None, event.operation)
            and (self.types is None or read_header(event.envelope).type in self.types)
        )

    def ends_before(self, event: Recorded) -> bool:
        """Whether neither this one nor a later one is asked for."""
        if event.number > self.last:
            return True
        return self.until is not None and event.received_at >= self.until


EVERYTHING = Selection()


class Stretch(Struct, frozen=True, kw_only=True):
    """The next events that are asked for, in the order of the ledger."""

    events: Sequence[Recorded]
    through: int
    """The row up to which there are no others."""
    more: bool
    """Whether others may follow; if not, the month's file ends here, or the record."""


class Damaged(Exception):
    """A file is not what was put away; the text says from where on."""


def recorded_in(lines: Iterable[bytes], chain: Chain, *, stream: str) -> Iterator[Recorded]:
    """The events of a month's file, all of this piece of the chain: each with the hash that it was given,
    and resting on the one before. Raises Damaged where it is not so."""
    number, hash = chain.first - 1, chain.previous
    for place, envelope in _events(lines):
        if place.number != number + 1 or place.number > chain.last:
            raise Damaged(f"row {place.number} stands after row {number}")
        if place.previous != hash:
            raise Damaged(f"row {place.number} rests on another row than the one before it")
        if hash_of_event(stream, place, envelope).hex() != place.hash:
            raise Damaged(f"row {place.number} was changed")
        if place.number == chain.last and place.hash != chain.hash:
            raise Damaged(f"row {place.number} is not the one with which the month ended")
        number, hash = place.number, place.hash
        yield Recorded(
            number=number,
            position=place.position,
            received_at=place.received_at,
            operation=place.operation,
            vm=place.vm,
            host=place.host,
            envelope=envelope,
        )
    if number != chain.last:
        raise Damaged(f"rows {number + 1} to {chain.last} are missing")


def _events(lines: Iterable[bytes]) -> Iterator[tuple[Place, bytes]]:
    for number, line in enumerate(lines, start=1):
        try:
            event = event_in(line)
            found = (event.row, event.envelope) if event is not None else None
        except (msgspec.MsgspecError, ValueError) as error:
            raise Damaged(f"line {number} cannot be read: {error}") from error
        if found is not None:
            yield found
