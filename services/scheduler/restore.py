"""FLEET written anew from what the inventory says was in it: what is there and not older stays."""

from __future__ import annotations

import msgspec
import structlog
from msgspec import Struct

from chassis.bus import Conflict, Expect, Incoming, Outgoing
from chassis.kv import Entry, entry, put, subject_of
from chassis.service import Retry, Rig
from schemas import subjects
from schemas.assignments import VmAssignment
from schemas.envelope import Envelope
from schemas.events import FleetRestored
from schemas.ids import derived_id
from schemas.resources import HostConfig, HostFacts
from schemas.restores import RestoreFleet
from schemas.wire import encode, wrap
from services.scheduler.fleet import Fleet
from services.scheduler.hearing import Hearing
from services.scheduler.hosts import open_consumers
from services.scheduler.ledger import FLEET, learn
from services.scheduler.messages import SENDER
from services.scheduler.settings import SchedulerSettings

log = structlog.get_logger()


class _Generation(Struct, frozen=True):
    generation: int = 0


_generation = msgspec.json.Decoder(_Generation)


class Restore:
    """The handler of `fleet.restore`."""

    def __init__(
        self, settings: SchedulerSettings, rig: Rig, fleet: Fleet, hearing: Hearing
    ) -> None:
        self._settings = settings
        self._rig = rig
        self._fleet = fleet
        self._hearing = hearing

    async def on_command(self, command: Envelope[RestoreFleet], _message: Incoming) -> None:
        """Write what is missing, say how much that was. Done again it finds it there."""
        await self._hearing.wait_until_warm()
        wanted = command.data
        try:
            written = [
                *[await self._assignment(each) for each in wanted.assignments],
                *[await self._config(each) for each in wanted.configs],
                *[await self._host(each) for each in wanted.hosts],
            ]
        except Conflict as conflict:
            raise Retry(self._settings.retry_s, "others wrote first") from conflict
        await self._rig.bus.publish(self._restored(command, written))
        log.info("fleet_restored", part=wanted.part, of=wanted.of, written=sum(written))

    async def _assignment(self, wanted: VmAssignment) -> bool:
        key = subjects.vm_key(vm=wanted.vm, host=wanted.host)
        everywhere = subjects.vm_key(vm=wanted.vm, host="*")
        return await self._write(key, wanted, over=everywhere, generation=wanted.generation)

    async def _config(self, wanted: HostConfig) -> bool:
        key = subjects.host_config_key(wanted.host)
        return await self._write(key, wanted, over=key, generation=wanted.generation)

    async def _host(self, wanted: HostFacts) -> bool:
        """Facts have no generation: what a host has said since is newer. Its consumers went with the
        bucket."""
        key = subjects.host_facts_key(wanted.host)
        written = await self._write(key, wanted, over=key, generation=0)
        if written:
            await open_consumers(self._rig.bus, site=self._rig.site, host=wanted.host)
        return written

    async def _write(self, key: str, wanted: Struct, *, over: str, generation: int) -> bool:
        """Whether it was written: there is nothing, not even the mark of what was forgotten, or what is
        there is older."""
        subject = subject_of(subjects.KV_FLEET, over)
        last = await self._rig.bus.last(FLEET, subject)
        if last is not None and not _is_older(entry(last), generation):
            learn(self._fleet, entry(last))
            return False
        expect = Expect(sequence=last.sequence if last else 0, over=subject)
        value = encode(wanted)
        ack = await self._rig.bus.publish(put(subjects.KV_FLEET, key, value, expect=expect))
        learn(
            self._fleet,
            Entry(bucket=subjects.KV_FLEET, key=key, value=value, revision=ack.sequence),
        )
        return True

    def _restored(self, command: Envelope[RestoreFleet], written: list[bool]) -> Outgoing:
        part = command.data
        said = FleetRestored(
            part=part.part,
            of=part.of,
            written=sum(written),
            kept=len(written) - sum(written),
        )
        id = derived_id(command.id, "fleet.restored")
        envelope = wrap(
            said,
            id=id,
            site=self._rig.site,
            sender=SENDER,
            at=self._rig.clock.now(),
            about="fleet/fleet",
            operation=command.operation,
            cause=command.id,
            actor=command.actor,
            traceparent=command.traceparent,
        )
        subject = subjects.event(type(said), site=self._rig.site, source=SENDER, id="fleet")
        return Outgoing(subject=subject, data=encode(envelope), message_id=id)


def _is_older(there: Entry, generation: int) -> bool:
    if there.value is None:
        return False
    try:
        return _generation.decode(there.value).generation < generation
    except msgspec.MsgspecError:
        return False
