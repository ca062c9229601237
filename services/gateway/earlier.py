"""Event streams that are resumed behind the beginning of EVENTS: first from the record, then over to the
stream, each event once.

The stream's own first sequence says whose turn it is: what lies before it is only in the record, and
from it on the stream has everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from chassis.bus import Bus, Incoming, Start
from schemas import subjects
from schemas.earlier import EarlierEvents, ReadEarlier
from services.gateway.desk import Desk

_page = msgspec.json.Decoder(EarlierEvents)


async def earlier(desk: Desk, start: Start) -> AsyncIterator[Incoming]:
    """The events from `start` on that the stream has not any more. Raises Refused, BusError."""
    if start.at != "sequence":
        return
    after = start.sequence - 1
    while (first := await first_after(desk.rig.bus, after)) > after + 1:
        query = ReadEarlier(after=after, before=first)
        page = _page.decode(await desk.ask("inventory", "event.earlier", query))
        for item in page.items:
            after = item.sequence
            yield Incoming(subject="", data=bytes(item.event), sequence=after)
        if not page.items:
            return


async def require_recorded(desk: Desk, start: Start) -> None:
    """That whoever goes on passes nothing by which is in files and not in the record any more.

    Raises Refused, BusError."""
    if start.at == "sequence" and start.sequence > 1:
        after = start.sequence - 1
        if (first := await first_after(desk.rig.bus, after)) > start.sequence:
            query = ReadEarlier(after=after, before=first, limit=1)
            await desk.ask("inventory", "event.earlier", query)


async def first_after(bus: Bus, after: int) -> int:
    """The sequence from which on the stream has everything. Raises BusError."""
    # Asked first: what comes between the two answers is the stream's.
    newest = await bus.last_sequence(subjects.EVENTS)
    first = await bus.first_from(subjects.EVENTS, after + 1)
    return first.sequence if first is not None else newest + 1
