"""The shell around what people define: commands in, versions kept, CONFIG told, events out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import structlog
from msgspec import Struct

from chassis.bus import BusError, Incoming
from chassis.dispatch import by_type
from chassis.postgres import Postgres, load_queries
from chassis.service import Consumer, Endpoint, Retry, Rig
from schemas import commands, queries, subjects
from schemas.definitions import KINDS
from schemas.envelope import Envelope
from schemas.forecasts import Forecast
from schemas.problems import FieldError, Problem, invalid_request
from schemas.shipped import all_shipped
from schemas.wire import Undecodable, unwrap
from services.inventory.definition_messages import said_of
from services.inventory.definition_outbox import DefinitionOutbox
from services.inventory.definition_reads import Answer, DefinitionReads
from services.inventory.definition_store import DefinitionStore
from services.inventory.fleet_rebuild import FleetRebuild
from services.inventory.replays import Replays
from services.inventory.settings import InventorySettings

log = structlog.get_logger()

COMMANDS: tuple[type[Struct], ...] = (
    *(commands.ApplyPolicy, commands.ApplyTemplate, commands.ApplyProject, commands.ApplyRule),
    *(commands.RemovePolicy, commands.RemoveTemplate, commands.RemoveProject, commands.RemoveRule),
)


class Definitions:
    """What the service needs to run for what people define: `build` puts it together."""

    def __init__(
        self,
        rig: Rig,
        settings: InventorySettings,
        *,
        store: DefinitionStore,
        outbox: DefinitionOutbox,
        reads: DefinitionReads,
        fleet: FleetRebuild,
        replays: Replays,
    ) -> None:
        self._rig = rig
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._reads = reads
        self._fleet = fleet
        self._replays = replays

    async def on_command(
        self, command: Envelope[commands.DefinitionCommand], _message: Incoming
    ) -> None:
        """Carry it out, see that the services learn of it, say so. A repetition says the same again."""
        outcome = await self._store.carry_out(command, at=self._rig.clock.now())
        identity = outcome.identity
        if outcome.change != "refused":
            await self._outbox.copy(identity)
        for message in said_of(outcome, command, site=self._rig.site):
            try:
                await self._rig.bus.publish(message)
            except BusError as error:
                raise Retry(self._settings.config_retry_s, type(error).__name__) from error
        log.info(
            "definition_decided",
            kind=identity.kind,
            name=identity.name,
            change=outcome.change,
            version=outcome.version,
            operation=command.id,
        )

    async def foresee(self, question: queries.Try) -> Forecast | Problem:
        """What would come of a command."""
        try:
            command = unwrap(bytes(question.command))
        except Undecodable as error:
            return invalid_request(FieldError(field="/command", detail=str(error)))
        if isinstance(command.data, commands.RebuildInventory):
            return Forecast(command="inventory.rebuild", kind="inventory", target="inventory")
        if isinstance(command.data, commands.RebuildFleet):
            return await self._fleet.foretell()
        if isinstance(command.data, commands.ReplayCommand):
            return await self._replays.foretell(command.data)
        if not isinstance(command.data, commands.DefinitionCommand):
            detail = f"the inventory does not decide on {command.type}"
            return invalid_request(FieldError(field="/command/type", detail=detail))
        return await self._store.foresee(command.data, at=self._rig.clock.now())

    async def keep_copied(self) -> None:
        await self._outbox.run(self._settings.config_check_s)

    def consumer(self) -> Consumer:
        """One after another, even where this process is killed and another goes on: each decision rests
        on those before it, and who applies last is in force."""
        site = self._rig.site
        return Consumer(
            stream=subjects.COMMANDS,
            name=f"inventory-{site}",
            description=f"Commands about policies, templates, projects and alert rules of site {site}",
            subjects=tuple(subjects.every_command(kind, site=site) for kind in KINDS),
            handler=by_type(dict.fromkeys(COMMANDS, self.on_command)),
            batch=1,
            ack_wait_s=self._settings.ack_wait_s,
        )

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                name="try",
                description="What would come of a command about what people define",
                request=queries.Try,
                handler=self.foresee,
                concurrency=self._settings.queries,
                line=self._settings.queries_waiting,
            ),
            *self._questions(),
        ]

    def _questions(self) -> Iterator[Endpoint]:
        table: tuple[tuple[str, str, type[Struct], Callable[..., Awaitable[Answer]]], ...] = (
            (
                "definition.get",
                "A policy, template, project or alert rule, or one version of it",
                queries.GetDefinition,
                self._reads.one,
            ),
            (
                "definition.list",
                "Policies, templates, projects or alert rules by name",
                queries.ListDefinitions,
                self._reads.present,
            ),
            (
                "definition.versions",
                "Versions of one of them, newest first",
                queries.ListVersions,
                self._reads.versions,
            ),
        )
        for name, description, request, read in table:
            yield Endpoint(
                name=name,
                description=description,
                request=request,
                handler=read,
                concurrency=self._settings.queries,
                line=self._settings.queries_waiting,
            )


def definitions(
    settings: InventorySettings, rig: Rig, postgres: Postgres, fleet: FleetRebuild, replays: Replays
) -> Definitions:
    sql = load_queries(Path(__file__).with_name("definitions.sql"))
    with_vireo = all_shipped()
    store = DefinitionStore(postgres, sql, with_vireo, most=settings.definitions)
    outbox = DefinitionOutbox(
        store,
        rig.bus,
        rig.clock,
        batch=settings.batch,
        attempts=settings.config_attempts,
        look_s=settings.config_look_s,
        retry_s=settings.config_retry_s,
    )
    reads = DefinitionReads(postgres, sql, with_vireo, page_bytes=settings.page_bytes)
    return Definitions(
        rig, settings, store=store, outbox=outbox, reads=reads, fleet=fleet, replays=replays
    )
