"""The shell around making the inventory's tables anew: the command in, steps and the end out.

That of FLEET shares the consumer and stands in `fleet_rebuild`."""

from __future__ import annotations

from pathlib import Path

import structlog

from chassis.bus import BusError, Incoming, Outgoing
from chassis.dispatch import by_type
from chassis.postgres import Postgres, load_queries
from chassis.service import Consumer, Retry, Rig
from schemas import subjects
from schemas.commands import RebuildFleet, RebuildInventory
from schemas.envelope import Envelope
from schemas.problems import Problem
from services.inventory.event_source import EventSources, Unreadable
from services.inventory.fleet_rebuild import FleetRebuild
from services.inventory.rebuild import Rebuild
from services.inventory.rebuild_messages import failed, progress, said_of, step_of
from services.inventory.settings import InventorySettings
from services.inventory.store import Queries

log = structlog.get_logger()


class Rebuilds:
    """The handler of `inventory.rebuild`."""

    def __init__(
        self, rig: Rig, settings: InventorySettings, rebuild: Rebuild, fleet: FleetRebuild
    ) -> None:
        self._rig = rig
        self._settings = settings
        self._rebuild = rebuild
        self._fleet = fleet

    async def on_command(self, command: Envelope[RebuildInventory], _message: Incoming) -> None:
        """Make them, say so. What was done when the command came before is not done again."""
        site, done = self._rig.site, 0

        async def tell(number: int, last: int) -> None:
            nonlocal done
            step = step_of(number, last)
            if step > done:
                done = step
                now = self._rig.clock.now()
                await self._say(progress(command, number=number, last=last, site=site, at=now))

        try:
            outcome = await self._rebuild.run(
                command.id,
                take=not command.data.compare_only,
                told=tell,
                at=self._rig.clock.now(),
            )
        except Unreadable as unreadable:
            await self._fail(command, unreadable.problem)
            return
        for message in said_of(outcome, command, site=site):
            await self._say(message)
        log.info(
            "inventory_rebuilt",
            operation=command.id,
            rows=outcome.rows,
            same=outcome.same,
            taken=outcome.taken,
        )

    async def _fail(self, command: Envelope[RebuildInventory], problem: Problem) -> None:
        await self._rebuild.give_up()
        log.warning("inventory_not_rebuilt", operation=command.id, reason=problem.detail)
        now = self._rig.clock.now()
        await self._say(failed(command, problem, site=self._rig.site, at=now))

    async def _say(self, message: Outgoing) -> None:
        try:
            await self._rig.bus.publish(message)
        except BusError as error:
            raise Retry(self._settings.config_retry_s, type(error).__name__) from error

    def consumer(self) -> Consumer:
        """One after another; a killed process's command comes again and is gone on with."""
        site = self._rig.site
        return Consumer(
            stream=subjects.COMMANDS,
            name=f"rebuild-{site}",
            description="Commands to make the inventory's tables, or FLEET, anew",
            subjects=(
                subjects.every_command("inventory", site=site),
                subjects.command(RebuildFleet, site=site),
            ),
            handler=by_type(
                {RebuildInventory: self.on_command, RebuildFleet: self._fleet.on_command}
            ),
            batch=1,
            ack_wait_s=self._settings.ack_wait_s,
        )


def rebuilds(
    settings: InventorySettings,
    rig: Rig,
    postgres: Postgres,
    queries: Queries,
    sources: EventSources,
    fleet: FleetRebuild,
) -> Rebuilds:
    return Rebuilds(rig, settings, rebuild_of(settings, postgres, queries, sources), fleet)


def rebuild_of(
    settings: InventorySettings, postgres: Postgres, queries: Queries, sources: EventSources
) -> Rebuild:
    return Rebuild(
        postgres,
        queries,
        load_queries(Path(__file__).with_name("rebuild.sql")),
        sources,
        stream=subjects.EVENTS,
        batch=settings.rebuild_batch,
        patience_s=settings.rebuild_patience_s,
    )
