"""What hosts' events bring about: registration, and forgetting a VM that its host has deleted."""

from __future__ import annotations

import structlog

from chassis.bus import Bus, ConsumerConfig, Incoming
from chassis.kv import subject_of
from chassis.service import Reject, Rig
from schemas import subjects
from schemas.envelope import Envelope
from schemas.events import HostRegistered, VmDeleted
from services.scheduler.fleet import Fleet
from services.scheduler.ledger import FLEET, Ledger

log = structlog.get_logger()


class Hosts:
    """Handlers of what hosts say. A Conflict leaves them: read again, handled again."""

    def __init__(self, rig: Rig, fleet: Fleet, ledger: Ledger) -> None:
        self._rig = rig
        self._fleet = fleet
        self._ledger = ledger
        self._registered_by: dict[str, str] = {}

    async def on_registered(self, event: Envelope[HostRegistered], message: Incoming) -> None:
        """Facts into FLEET, then the consumers by which the host reads its part of the bus."""
        facts = event.data.facts
        _check_source(message, facts.host)
        if event.id < self._registered_by.get(facts.host, ""):
            return
        await self._ledger.refresh(subjects.host_facts_key(facts.host))
        await self._ledger.register(facts)
        await open_consumers(self._rig.bus, site=self._rig.site, host=facts.host)
        self._registered_by[facts.host] = event.id
        log.info("host_registered", host=facts.host, cpus=facts.cpus, memory_mib=facts.memory_mib)

    async def on_deleted(self, event: Envelope[VmDeleted], message: Incoming) -> None:
        """The host has confirmed the end: the assignment may go. Anything less is no such order."""
        gone = event.data
        _check_source(message, gone.host)
        await self._ledger.refresh(subjects.vm_key(vm=gone.vm, host=gone.host))
        held = self._fleet.holdings.at(gone.vm, gone.host)
        if held is None:
            return
        if held.assignment.ended and held.assignment.generation == gone.generation:
            await self._ledger.forget(held)
            log.info("vm_forgotten", vm=gone.vm, host=gone.host)
        else:
            log.warning("vm_deleted_but_wanted", vm=gone.vm, host=gone.host)


async def open_consumers(bus: Bus, *, site: str, host: str) -> None:
    """The host's part of FLEET from the start again, so that each start of an agent gets its full
    set; its actions from where it was, so that none is done twice or lost."""
    fleet = fleet_consumer(host)
    await bus.delete_consumer(fleet.stream, fleet.name)
    await bus.ensure_consumer(fleet)
    await bus.ensure_consumer(
        ConsumerConfig(
            stream=subjects.ACTIONS,
            name=subjects.actions_consumer(host),
            description=f"Actions for host {host}",
            subjects=(subjects.host_actions(site=site, host=host),),
        )
    )


def fleet_consumer(host: str) -> ConsumerConfig:
    return ConsumerConfig(
        stream=FLEET,
        name=subjects.fleet_consumer(host),
        description=f"Assignments, facts and configuration of host {host}",
        subjects=(subject_of(subjects.KV_FLEET, subjects.host_keys(host)),),
        deliver="last_per_subject",
    )


def _check_source(message: Incoming, host: str) -> None:
    """A host speaks for itself only."""
    source, *_ = subjects.parts_of_event(message.subject)
    if source != host:
        raise Reject(f"{source} may not speak for host {host}")
