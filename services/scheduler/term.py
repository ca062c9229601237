"""The term: which scheduler of a site may place VMs now, as a key in FLEET.

The bus hands a site's commands to one scheduler at a time, but one that was cut off or stopped for a
while may still be at work when the next one begins. Each on its own would keep to every host's limits;
both together would not. So a placement is written on condition that its writer's term is still the
last one, and a term begins by writing the key and then hearing all that FLEET holds up to it: after
that nothing can be placed that the table does not know of (a fencing token).

A placement whose fate is unknown ends the term as well: taken anew, it is either heard or can no longer
be stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from chassis.bus import Expect
from chassis.kv import put, stream_of, subject_of
from chassis.service import Rig
from schemas import subjects
from schemas.wire import encode

FLEET = stream_of(subjects.KV_FLEET)

log = structlog.get_logger()


class Holder(Struct, frozen=True, kw_only=True):
    """What the key holds: for people who look who places."""

    scheduler: str


class Term:
    """One per process."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._key = subjects.term_key(rig.site)
        self._subject = subject_of(subjects.KV_FLEET, self._key)
        self._revision = 0
        self._heard = 0
        self._more_heard = asyncio.Event()
        self._taking = asyncio.Lock()

    @property
    def held(self) -> bool:
        """As far as is known here; the bus knows better."""
        return self._revision > 0

    def still(self) -> Expect:
        """The condition under which a placement that is decided now may be written."""
        return Expect(sequence=self._revision, over=self._subject)

    @property
    def heard_through(self) -> int:
        """The highest revision of FLEET that was ever heard."""
        return self._heard

    def heard(self, revision: int) -> None:
        """The table holds what FLEET held up to here."""
        self._heard = max(self._heard, revision)
        self._more_heard.set()

    async def take(self, begin: Callable[[], Awaitable[None]]) -> None:
        """Begin a term, unless one has begun meanwhile; `begin` is done before anything else in it.
        Raises Conflict if another scheduler took it in the same moment, Unavailable."""
        async with self._taking:
            if self.held:
                return
            last = await self._rig.bus.last(FLEET, self._subject)
            expect = Expect(sequence=last.sequence if last else 0, over=self._subject)
            value = encode(Holder(scheduler=self._rig.instance))
            ack = await self._rig.bus.publish(
                put(subjects.KV_FLEET, self._key, value, expect=expect)
            )
            while self._heard < ack.sequence:
                self._more_heard.clear()
                await self._more_heard.wait()
            await begin()
            self._revision = ack.sequence
            log.info("term_begun", term=ack.sequence)

    def lose(self, condition: Expect) -> None:
        """The term of this condition is over, or nobody knows what became of a placement in it."""
        if condition == self.still():
            self._revision = 0
            log.info("term_over", term=condition.sequence)
