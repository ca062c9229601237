"""From what is to be told to the bus: envelopes with ids that repeat, and the flusher.

Events are made bytes when they are recorded, so their time is the time when it happened and their id
is the same however often they are published. The flusher keeps the order and never gives up.
"""

from __future__ import annotations

from typing import Any

import structlog
from msgspec import Struct

from chassis.bus import Bus, BusError, Conflict, Outgoing
from chassis.service import Clock
from schemas import events, subjects, wire
from schemas.assignments import VmAssignment
from schemas.ids import HostName, SiteName, derived_id
from services.hostagent.journal import Journal, Unsent
from services.hostagent.model import Utterance

log = structlog.get_logger(__name__)

RETRY_S = 1.0
"""How long the flusher waits when the bus took nothing."""

WORTH_A_BATCH = 6
"""Fewer events are sooner on the bus one after the other than as an atomic batch."""


class Voice(Struct, frozen=True, kw_only=True):
    """Makes messages in the name of one host."""

    site: SiteName
    host: HostName
    clock: Clock

    def of_vm(self, utterance: Utterance, assignment: VmAssignment) -> Outgoing:
        """An event that follows from an assignment: about its VM, or about its operation."""
        return self.message(
            utterance.data,
            id=derived_id(assignment.operation, utterance.name),
            about=_about(utterance.data, assignment.vm, assignment.operation),
            operation=assignment.operation,
            actor=assignment.actor,
            traceparent=assignment.traceparent,
        )

    def message(
        self,
        data: Any,
        *,
        id: str,
        about: tuple[str, str],
        operation: str | None = None,
        actor: str | None = None,
        traceparent: str | None = None,
    ) -> Outgoing:
        kind, entity = about
        envelope = wire.wrap(
            data,
            id=id,
            site=self.site,
            sender=self.host,
            at=self.clock.now(),
            about=f"{kind}/{entity}",
            operation=operation,
            cause=operation,
            actor=actor,
            traceparent=traceparent,
        )
        subject = subjects.event(type(data), site=self.site, source=self.host, id=entity)
        return Outgoing(subject=subject, data=wire.encode(envelope), message_id=id)


def _about(data: Any, vm: str, operation: str) -> tuple[str, str]:
    if isinstance(data, events.OperationEvent):
        return "operation", operation
    return "vm", vm


async def flush(journal: Journal, bus: Bus, clock: Clock, *, batch: int, keep: int) -> None:
    """Publish what is in the outbox, in order, until cancelled."""
    together = True
    while True:
        await journal.unsent.wait()
        journal.unsent.clear()
        waiting = await journal.waiting(batch)
        while waiting:
            try:
                sent = await _publish(bus, waiting, together=together)
            except BusError as error:
                log.warning("outbox_waits", error=str(error), waiting=len(waiting))
                # What may have arrived in part goes one by one: repeats are recognised singly.
                together = False
                await clock.sleep(RETRY_S)
                waiting = await journal.waiting(batch)
                continue
            together = True
            waiting = await journal.sent(sent, keep=keep, limit=batch)


async def _publish(bus: Bus, waiting: list[Unsent], *, together: bool) -> int:
    """Publish in order; answers the number of the last one that is on the bus."""
    if together and len(waiting) >= WORTH_A_BATCH:
        try:
            await bus.publish_together([one.message for one in waiting])
        except Conflict:
            log.info("outbox_batch_refused", waiting=len(waiting))
        else:
            return waiting[-1].number
    for one in waiting:
        await bus.publish(one.message)
    return waiting[-1].number
