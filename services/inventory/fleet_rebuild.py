"""FLEET written anew after it was lost: what belongs into it, as commands to the scheduler.

The scheduler is FLEET's only writer: it is told what to write, confirms each part by an event, and the
events end the operation. Whoever is killed in between begins again: what is there stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from chassis.bus import BusError, Incoming, Outgoing
from chassis.postgres import Postgres, load_queries
from chassis.service import Retry, Rig
from schemas import events, subjects
from schemas.commands import RebuildFleet
from schemas.envelope import Envelope
from schemas.forecasts import Forecast
from schemas.ids import derived_id
from schemas.ledger import SEQUENCE_BITS
from schemas.problems import unavailable
from schemas.resources import HostConfig, HostFacts
from schemas.restores import RestoreFleet
from schemas.wire import encode, unwrap, wrap
from services.inventory.fleet_state import Lost, assignments_of, parts
from services.inventory.settings import InventorySettings
from services.inventory.store import Queries

SENDER = "inventory"
PAGE = 500
"""VMs whose events are read at a time."""
POLL_S = 0.1

log = structlog.get_logger()

_facts = msgspec.json.Decoder(HostFacts)
_config = msgspec.json.Decoder(HostConfig)


class FleetRebuild:
    """The handler of `fleet.rebuild`."""

    def __init__(
        self, rig: Rig, settings: InventorySettings, postgres: Postgres, queries: Queries
    ) -> None:
        self._rig = rig
        self._settings = settings
        self._postgres = postgres
        self._queries = queries

    async def on_command(self, command: Envelope[RebuildFleet], _message: Incoming) -> None:
        """Tell the scheduler what belongs into FLEET; end the operation when it has confirmed it all."""
        await self._wait_for_all_told()
        lost = await self.lost()
        told = parts(lost)
        for part in told:
            await self._say(self._restore(part, command))
        confirmed = await self._confirmed(command.id, len(told))
        end = _ending(lost, confirmed, of=len(told))
        await self._say(self._event(end, command))
        log.info("fleet_rebuilt", operation=command.id, vms=len(lost.assignments), parts=len(told))

    async def foretell(self) -> Forecast:
        """What a rebuild would tell the scheduler."""
        lost = await self.lost()
        return Forecast(
            command="fleet.rebuild",
            kind="fleet",
            target="fleet",
            detail=f"{_counts(lost)}: written where FLEET has nothing of them, or what is older",
        )

    async def lost(self) -> Lost:
        """All that belongs into FLEET, as far as events are stored."""
        site = self._rig.site
        assignments = []
        async with self._postgres.transaction(readonly=True, isolation="repeatable_read") as held:
            after: str | None = None
            while vms := await held.fetch(self._queries["live_vms"], site, after, PAGE):
                ids = [record["id"] for record in vms]
                found = await held.fetch(self._queries["assigned"], ids)
                assignments += assignments_of(unwrap(record["envelope"]) for record in found)
                after = ids[-1]
            hosts = await held.fetch(self._queries["hosts"], site)
        return Lost(
            assignments=tuple(assignments),
            configs=tuple(_config.decode(each["config"]) for each in hosts if each["config"]),
            hosts=tuple(_facts.decode(each["facts"]) for each in hosts if each["facts"]),
        )

    async def _wait_for_all_told(self) -> None:
        """What was said of FLEET before it was lost may still be on its way to Postgres."""
        last = await self._rig.bus.last_sequence(subjects.EVENTS)
        until = self._rig.clock.monotonic() + self._settings.fleet_patience_s
        while self._rig.clock.monotonic() < until:
            async with self._postgres.connection() as connection:
                record = await connection.fetchrow(self._queries["told_through"], subjects.EVENTS)
            if record["position"] & ((1 << SEQUENCE_BITS) - 1) >= last:
                return
            await self._rig.clock.sleep(POLL_S)
        raise Retry(self._settings.config_retry_s, "events are still to be stored")

    async def _confirmed(self, operation: str, of: int) -> list[events.FleetRestored]:
        """What the scheduler has said of the parts, when it is all or the patience is over."""
        until = self._rig.clock.monotonic() + self._settings.fleet_patience_s
        while True:
            async with self._postgres.connection() as connection:
                records = await connection.fetch(self._queries["confirmed"], operation)
            if len(records) >= of or self._rig.clock.monotonic() >= until:
                return [unwrap(record["envelope"]).data for record in records]
            await self._rig.clock.sleep(POLL_S)

    def _restore(self, part: RestoreFleet, command: Envelope[RebuildFleet]) -> Outgoing:
        id = derived_id(command.id, f"part {part.part}")
        envelope = self._wrapped(part, command, id=id, about="fleet/fleet")
        subject = subjects.command(RestoreFleet, site=self._rig.site)
        return Outgoing(subject=subject, data=encode(envelope), message_id=id)

    def _event(self, data: Struct, command: Envelope[RebuildFleet]) -> Outgoing:
        id = derived_id(command.id, subjects.BY_MESSAGE[type(data)].name)
        envelope = self._wrapped(data, command, id=id, about=f"operation/{command.id}")
        subject = subjects.event(type(data), site=self._rig.site, source=SENDER, id=command.id)
        return Outgoing(subject=subject, data=encode(envelope), message_id=id)

    def _wrapped(
        self, data: Struct, command: Envelope[RebuildFleet], *, id: str, about: str
    ) -> Envelope[Any]:
        return wrap(
            data,
            id=id,
            site=self._rig.site,
            sender=SENDER,
            at=self._rig.clock.now(),
            about=about,
            operation=command.id,
            cause=command.id,
            actor=command.actor,
            traceparent=command.traceparent,
        )

    async def _say(self, message: Outgoing) -> None:
        try:
            await self._rig.bus.publish(message)
        except BusError as error:
            raise Retry(self._settings.config_retry_s, type(error).__name__) from error


def _counts(lost: Lost) -> str:
    return f"{len(lost.assignments)} VMs, {len(lost.hosts)} hosts"


def _ending(lost: Lost, confirmed: list[events.FleetRestored], *, of: int) -> Struct:
    if len(confirmed) < of:
        detail = f"The scheduler has confirmed {len(confirmed)} of {of} parts; ask again."
        return events.OperationFailed(problem=unavailable(detail))
    written, kept = sum(each.written for each in confirmed), sum(each.kept for each in confirmed)
    detail = f"{_counts(lost)}: {written} entries written, {kept} were there"
    return events.OperationSucceeded(detail=detail)


def fleet_rebuild(settings: InventorySettings, rig: Rig, postgres: Postgres) -> FleetRebuild:
    queries = load_queries(Path(__file__).with_name("fleet.sql"))
    return FleetRebuild(rig, settings, postgres, queries)
