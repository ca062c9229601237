"""Writing decisions down and telling of them: FLEET by compare-and-swap, then the events.

The table is changed as soon as the bus has the write, not when its echo comes back. What was written
and not yet told is remembered, so that it is told before anything later about the same VM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from msgspec.structs import replace

from chassis.bus import Ack, Conflict, Expect, Outgoing, Unavailable
from chassis.kv import Entry, entry, stream_of, subject_of
from chassis.service import Rig
from schemas import subjects
from schemas.assignments import VmAssignment
from schemas.events import HostRegistered
from schemas.ids import time_of
from schemas.resources import HostConfig, HostFacts
from schemas.wire import read_header
from services.scheduler.config import define_newest
from services.scheduler.decide import superseded
from services.scheduler.fleet import Fleet
from services.scheduler.messages import (
    SENDER,
    Origin,
    Voice,
    config_write,
    facts_write,
    failed,
    first_write,
    forget_write,
    next_write,
    said_of,
)
from services.scheduler.model import ANY_HOST, Changed, Configured, Held, Placed
from services.scheduler.term import Term

FLEET = stream_of(subjects.KV_FLEET)
ENDS = ("succeeded", "failed", "cancelled")
EVENTS_FORGET = timedelta(days=1)
"""An operation of which EVENTS knows nothing and that is older than this is long over."""

log = structlog.get_logger()


class Ledger:
    """FLEET's only writer in this process."""

    def __init__(self, rig: Rig, fleet: Fleet, *, resay_limit: int) -> None:
        """`resay_limit`: how many of the newest assignments may have been left untold."""
        self._resay_limit = resay_limit
        self._rig = rig
        self._bus = rig.bus
        self._fleet = fleet
        self._untold: dict[str, VmAssignment] = {}
        self.term = Term(rig)

    # writing; each raises Conflict when somebody else wrote first

    async def place(self, placed: Placed) -> None:
        """Write a new VM's assignment; it counts on its host from now, and no longer if this fails."""
        new = placed.assignment
        await self._require_term()
        self._fleet.reserve(new)
        try:
            ack = await self._place(new)
            self._fleet.apply_assignment(new, ack.sequence)
            self._untold[new.vm] = new
        finally:
            self._fleet.release(vm=new.vm, host=new.host)

    async def _require_term(self) -> None:
        """Whoever was active before may have died between a write and its event: that is told before
        anything later about the VM."""
        if not self.term.held:
            await self.term.take(self.tell_what_was_left)
            raise Conflict("decided before this scheduler's term")

    async def _place(self, new: VmAssignment) -> Ack:
        condition = self.term.still()
        return await self._firmly(self._bus.publish(first_write(new, term=condition)), condition)

    async def _firmly(self, written: Awaitable[Ack], condition: Expect) -> Ack:
        """What was placed on condition of a term; a failure ends the term."""
        try:
            ack = await written
        except (Conflict, Unavailable):
            self.term.lose(condition)
            raise
        if ack.duplicate:
            raise Conflict("placed before")
        return ack

    async def place_each(self, placed: Sequence[Placed]) -> None:
        """Write several new VMs, each for itself. What came in between of one is raised when all are
        through."""
        outcomes = await asyncio.gather(*map(self.place, placed), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def place_together(self, placed: Sequence[Placed]) -> None:
        """Write several new VMs, all or none."""
        await self._require_term()
        news = [one.assignment for one in placed]
        for new in news:
            self._fleet.reserve(new)
        try:
            condition = self.term.still()
            writes = [first_write(new, term=condition) for new in news]
            ack = await self._firmly(self._bus.publish_together(writes), condition)
            for sequence, new in enumerate(news, start=ack.sequence - len(news) + 1):
                self._fleet.apply_assignment(new, sequence)
                self._untold[new.vm] = new
        finally:
            for new in news:
                self._fleet.release(vm=new.vm, host=new.host)

    async def change(self, changed: Changed) -> None:
        await self._require_term()
        await self.tell_untold(changed.assignment.vm)
        ack = await self._bus.publish(next_write(changed.assignment, revision=changed.revision))
        self._fleet.apply_assignment(changed.assignment, ack.sequence)
        self._untold[changed.assignment.vm] = changed.assignment

    async def configure(self, configured: Configured) -> None:
        if configured.revision is not None:
            write = config_write(configured.config, revision=configured.revision)
            ack = await self._bus.publish(write)
            self._fleet.apply_config(configured.config, ack.sequence)

    async def register(self, facts: HostFacts) -> None:
        row = self._fleet.host(facts.host)
        if row is None or row.facts != facts:
            revision = row.facts_revision if row else 0
            ack = await self._bus.publish(facts_write(facts, revision=revision))
            self._fleet.apply_facts(facts, ack.sequence)

    async def forget(self, held: Held) -> None:
        gone = held.assignment
        ack = await self._bus.publish(forget_write(gone, revision=held.revision))
        self._fleet.forget_assignment(vm=gone.vm, host=gone.host, revision=ack.sequence)

    # reading again

    async def refresh(self, key: str) -> None:
        """Learn the newest value of one key (of a VM on any host: `vm.<id>.*`) from the bus itself."""
        newest = await self._bus.last(FLEET, subject_of(subjects.KV_FLEET, key))
        if newest is not None:
            learn(self._fleet, entry(newest))

    async def define_again(self, key: str) -> bool:
        """Learn the newest definition under a key of CONFIG. Answers whether it was news."""
        return await define_newest(self._fleet.definitions, self._bus, key)

    async def is_over(self, operation: str) -> bool:
        """Whether an operation has ended, as far as EVENTS knows."""
        pattern = subjects.events_about("operation", operation, site=self._rig.site)
        last = await self._bus.last(subjects.EVENTS, pattern)
        if last is None:
            return self._rig.clock.now() - time_of(operation) > EVENTS_FORGET
        return subjects.parts_of_event(last.subject)[-1] in ENDS

    async def end_of(self, operation: str) -> str | None:
        """How an operation ended, as far as EVENTS knows; None if it has not."""
        pattern = subjects.events_about("operation", operation, site=self._rig.site)
        last = await self._bus.last(subjects.EVENTS, pattern)
        said = subjects.parts_of_event(last.subject)[-1] if last is not None else ""
        return said if said in ENDS else None

    async def has_called(self, host: str) -> bool:
        """Whether a host, or any (`*`), has said that it registers, as far as EVENTS knows. What it
        said may still be on its way to the table."""
        pattern = subjects.event_pattern(site=self._rig.site, kind="host", event="registered")
        if host != ANY_HOST:
            pattern = subjects.event(HostRegistered, site=self._rig.site, source=host, id=host)
        return await self._bus.last(subjects.EVENTS, pattern) is not None

    # telling

    async def tell(self, assignment: VmAssignment, *, at: datetime | None = None) -> None:
        """The event of an assignment, and the end of the operation that it cut short, if it did.
        `at` is when it was decided, if that was not now."""
        await self._bus.publish(said_of(assignment, replace(self.voice, at=at or self.voice.at)))
        earlier = assignment.supersedes
        if earlier is not None and not await self.is_over(earlier):
            origin = Origin(
                operation=earlier, cause=assignment.operation, actor=assignment.actor or None
            )
            await self._bus.publish(failed(superseded(assignment), self.voice, origin))
        self._untold.pop(assignment.vm, None)

    async def tell_late(self, assignment: VmAssignment) -> None:
        """What was written before, perhaps by a process that died since, as of when it was written."""
        key = subjects.vm_key(vm=assignment.vm, host=assignment.host)
        written = await self._bus.last(FLEET, subject_of(subjects.KV_FLEET, key))
        await self.tell(assignment, at=written.published_at if written is not None else None)

    async def tell_untold(self, vm: str) -> None:
        untold = self._untold.get(vm)
        if untold is not None:
            await self.tell_late(untold)

    async def say(self, messages: Iterable[Outgoing]) -> None:
        for message in messages:
            await self._bus.publish(message)

    async def tell_what_was_left(self) -> None:
        """At the start, and of a term: the last one may have died between a write and its event. It can
        only have been among the newest assignments."""
        for held in self._fleet.holdings.newest(self._resay_limit):
            if not await self._was_told(held.assignment):
                log.info("assignment_told_late", vm=held.assignment.vm)
                await self.tell_late(held.assignment)

    async def _was_told(self, assignment: VmAssignment) -> bool:
        said = said_of(assignment, self.voice)
        pattern = subjects.events_about("vm", assignment.vm, site=self._rig.site, source=SENDER)
        last = await self._bus.last(subjects.EVENTS, pattern)
        if last is not None:
            return read_header(last.data).id == said.message_id
        return self._rig.clock.now() - time_of(assignment.operation) > EVENTS_FORGET

    @property
    def voice(self) -> Voice:
        return Voice(site=self._rig.site, at=self._rig.clock.now())


def learn(fleet: Fleet, known: Entry) -> None:
    """Apply one entry of FLEET to the table. What cannot be read is logged and changes nothing: an
    assignment must not vanish because somebody wrote nonsense over it."""
    kind, id, host = (*known.key.split("."), "", "")[:3]
    try:
        if kind == "vm" and known.value is None:
            fleet.forget_assignment(vm=id, host=host, revision=known.revision)
        elif kind == "vm" and known.value is not None:
            # Most are echoes of what was written here.
            if fleet.holdings.is_news(vm=id, host=host, revision=known.revision):
                fleet.apply_assignment(_assignment.decode(known.value), known.revision)
        elif (kind, id) == ("host", "facts") and known.value is not None:
            fleet.apply_facts(_facts.decode(known.value), known.revision)
        elif (kind, id) == ("host", "config") and known.value is not None:
            fleet.apply_config(_config.decode(known.value), known.revision)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.error("fleet_entry_unreadable", key=known.key, revision=known.revision, why=str(error))


_assignment = msgspec.json.Decoder(VmAssignment)
_facts = msgspec.json.Decoder(HostFacts)
_config = msgspec.json.Decoder(HostConfig)
