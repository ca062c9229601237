"""Telling the fleet what this host is: at every start, and again when it changes."""

from __future__ import annotations

import asyncio

import structlog

from chassis.service import Clock, Ids
from schemas import events
from schemas.resources import HostFacts
from services.hostagent import facts
from services.hostagent.hypervisor import (
    Hypervisor,
    HypervisorFailure,
    HypervisorUnavailable,
)
from services.hostagent.journal import Journal
from services.hostagent.keeper import Keeper
from services.hostagent.outbox import Voice
from services.hostagent.settings import Settings

log = structlog.get_logger(__name__)

AT_MOST_EVERY_S = 1.0
"""However fast things change, facts are not looked at more often."""


class Registration:
    """Knows what was told last, so that only changes are told."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        keeper: Keeper,
        journal: Journal,
        voice: Voice,
        clock: Clock,
        ids: Ids,
        settings: Settings,
    ) -> None:
        self._hypervisor = hypervisor
        self._keeper = keeper
        self._journal = journal
        self._voice = voice
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._told: HostFacts | None = None
        self.due = asyncio.Event()
        """Set by whoever has reason to think that facts have changed."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._remind())
            while True:
                await self.due.wait()
                self.due.clear()
                await self._look()
                await self._clock.sleep(AT_MOST_EVERY_S)

    async def _remind(self) -> None:
        while True:
            self.due.set()
            await self._clock.sleep(self._settings.facts_s)

    async def _look(self) -> None:
        try:
            found = await facts.gather(
                self._hypervisor, self._settings, claimed=frozenset(self._keeper.known())
            )
        except (HypervisorUnavailable, HypervisorFailure) as error:
            log.debug("no_facts", error=str(error))
            return
        if found == self._told:
            return
        message = self._voice.message(
            events.HostRegistered(facts=found),
            id=self._ids.new(),
            about=("host", self._settings.host),
        )
        await self._journal.post([message])
        self._told = found
        log.info("host_registered", host=found.host, cpus=found.cpus, foreign=len(found.foreign))
