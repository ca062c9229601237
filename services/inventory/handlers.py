"""The shell: events from the bus into the store, queries from the bus to the reads. Straight lines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import Any

import asyncpg
import structlog
from msgspec import Struct

from chassis.bus import Incoming
from chassis.migrations import migrate
from chassis.postgres import Postgres, connect
from chassis.service import BatchConsumer, Clock, Endpoint, Reject, Retry, Rig, Service
from chassis.tracing import sends, span
from schemas import audit, queries, subjects
from schemas.changes import ListChanges
from schemas.problems import not_found
from schemas.wire import Undecodable, unwrap
from services.inventory.audits import Audits
from services.inventory.change_reads import ChangeReads
from services.inventory.definition_handlers import definitions
from services.inventory.earlier import Earlier
from services.inventory.effect_reads import EffectReads
from services.inventory.fleet_rebuild import fleet_rebuild
from services.inventory.model import Arrival
from services.inventory.reads import HOSTS, VMS, Answer, Reads
from services.inventory.rebuild_handlers import rebuilds
from services.inventory.record import record_of, sources_of
from services.inventory.replays import replays_of
from services.inventory.settings import InventorySettings
from services.inventory.statements import statements
from services.inventory.store import Store
from services.inventory.waiting import Looks, Waiting

log = structlog.get_logger()

DURABLE = "inventory"
UNFIT = (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""What Postgres says of values that it will never hold."""


class Inventory:
    """What the handlers share while the service runs."""

    def __init__(self, *, store: Store, reads: Reads, waiting: Waiting, clock: Clock) -> None:
        self._store = store
        self._reads = reads
        self._waiting = waiting
        self._clock = clock
        self._looks = Looks(reads.phases)
        self._trails = Looks(reads.trails)

    async def on_events(self, messages: Sequence[Incoming]) -> None:
        """Record a batch. What can be recorded is, even if something among it cannot."""
        arrivals, faults = _read(messages)
        if arrivals:
            await self._record(arrivals)
        if faults:
            self._refuse(messages, "; ".join(faults))

    async def _record(self, arrivals: Sequence[Arrival]) -> None:
        try:
            with _in_their_traces(arrivals):
                phases = await self._store.record(arrivals)
        except UNFIT as error:
            self._refuse(arrivals, f"Postgres cannot hold it: {error}")
        else:
            self._waiting.announce(phases)

    def _refuse(self, messages: Sequence[object], reason: str) -> None:
        """A message that is alone goes to the dead letters; a batch comes back one by one."""
        if len(messages) == 1:
            raise Reject(reason)
        raise Retry(0, reason)

    async def get_operation(self, query: queries.GetOperation) -> Answer:
        """The operation as soon as it exists or has ended, or as it is when the wait is over; or as it
        was."""
        if query.at is not None:
            return await self._reads.past_operation(query.operation, query.at)
        until = self._clock.monotonic() + query.wait_s
        waiter = self._waiting.join(query.operation, ended=query.until == "ended")
        try:
            while not waiter.woken.is_set():
                self._waiting.announce(await self._looks.look(query.operation))
                left_s = until - self._clock.monotonic()
                if left_s <= 0:
                    break
                await _at_most(left_s, waiter.woken.wait())
        finally:
            self._waiting.leave(waiter)
        found = await self._trails.look(query.operation)
        return found.get(query.operation) or not_found("operation", query.operation)

    async def poll(self, every_s: float) -> None:
        """Look for what other replicas committed, as long as somebody waits."""
        while True:
            await self._clock.sleep(every_s)
            awaited = self._waiting.awaited()
            if awaited:
                await self._poll_once(awaited)

    async def _poll_once(self, awaited: Sequence[str]) -> None:
        try:
            self._waiting.announce(await self._reads.phases(awaited))
        except Retry as away:
            log.debug("poll_skipped", reason=str(away))


async def _at_most(seconds: float, awaitable: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await awaitable
    except TimeoutError:
        return


@contextmanager
def _in_their_traces(arrivals: Sequence[Arrival]) -> Iterator[None]:
    """A span in each trace that the events belong to: the way of a request ends in the database."""
    with ExitStack() as stack:
        said = (each.envelope.traceparent for each in arrivals) if sends() else ()
        for traceparent in dict.fromkeys(said):
            if traceparent is not None:
                stack.enter_context(
                    span("inventory.record", kind="consumer", traceparent=traceparent)
                )
        yield


def _read(messages: Sequence[Incoming]) -> tuple[list[Arrival], list[str]]:
    """The events among the messages, and what is wrong with the others."""
    arrivals: list[Arrival] = []
    faults: list[str] = []
    for message in messages:
        try:
            envelope = unwrap(message.data)
        except Undecodable as error:
            faults.append(str(error))
        else:
            arrivals.append(Arrival(envelope=envelope, raw=message.data, sequence=message.sequence))
    return arrivals, faults


def endpoints(
    inventory: Inventory,
    reads: Reads,
    effects: EffectReads,
    changes: ChangeReads,
    settings: InventorySettings,
) -> list[Endpoint]:
    """The inventory's endpoints; their requests stand in `schemas.queries`.

    A read raises Retry while Postgres is away, which is answered as the problem `unavailable`.
    """
    plain: tuple[tuple[str, str, type[Struct], Callable[..., Awaitable[Answer]]], ...] = (
        ("vm.get", "A VM by its id or name", queries.GetVm, reads.vm),
        ("host.get", "A host by its name", queries.GetHost, reads.host),
        ("operation.list", "Operations, newest first", queries.ListOperations, reads.operations),
        ("operation.effects", "What an operation caused", queries.ShowEffects, effects.tree),
        ("change.list", "What changed between two times", ListChanges, changes.changes),
        ("event.list", "Stored events, in the order of storing", queries.ListEvents, reads.events),
    )
    return [
        Endpoint(
            name="vm.list",
            description="VMs, newest first",
            request=queries.ListVms,
            handler=reads.vms,
            concurrency=settings.queries,
            line=settings.queries_waiting,
            tag=partial(reads.tag, VMS),
        ),
        Endpoint(
            name="host.list",
            description="Hosts by name",
            request=queries.ListHosts,
            handler=reads.hosts,
            concurrency=settings.queries,
            line=settings.queries_waiting,
            tag=partial(reads.tag, HOSTS),
        ),
        Endpoint(
            name="operation.get",
            description="An operation with its trail; waits until it exists or has ended",
            request=queries.GetOperation,
            handler=inventory.get_operation,
            concurrency=settings.waiters,
        ),
        *(
            Endpoint(
                name=name,
                description=description,
                request=request,
                handler=read,
                concurrency=settings.queries,
                line=settings.queries_waiting,
            )
            for name, description, request, read in plain
        ),
    ]


def audit_endpoints(audits: Audits, settings: InventorySettings) -> list[Endpoint]:
    """The endpoints of `schemas.audit`. Few at a time: a check has a core to itself."""
    table: tuple[tuple[str, str, type[Struct], Callable[..., Awaitable[Any]]], ...] = (
        ("ledger.show", "How far the record has come", audit.ShowLedger, audits.state),
        ("ledger.gaps", "What was passed by", audit.ListGaps, audits.gaps),
        ("ledger.seals", "The signed days, oldest first", audit.ListSeals, audits.seals),
        ("ledger.rows", "Events with what is hashed with them", audit.ListRows, audits.rows),
        ("ledger.prove", "That rows are what was signed", audit.ProveRows, audits.prove),
        ("ledger.check", "The next rows, against each other", audit.CheckLedger, audits.check),
        ("ledger.check_seal", "A day, against its seal", audit.CheckSeal, audits.check_seal),
    )
    return [
        Endpoint(
            name=name, description=text, request=request, handler=handler, concurrency=4, line=16
        )
        for name, text, request, handler in table
    ]


async def build(settings: InventorySettings, rig: Rig) -> Service:
    """The inventory, connected and with its tables up to date."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(connect(settings.postgres, name=rig.service))
        await _migrate(postgres, rig.clock)
        kept = stack.pop_all()
    return assemble(settings, rig, postgres, close=kept.aclose)


async def _migrate(postgres: Postgres, clock: Clock) -> None:
    while True:
        try:
            await migrate(postgres, "services.inventory.migrations")
        except Retry as away:
            await clock.sleep(away.after_s)
        else:
            return


def assemble(
    settings: InventorySettings,
    rig: Rig,
    postgres: Postgres,
    *,
    close: Callable[[], Awaitable[None]] | None = None,
) -> Service:
    sql = statements()
    reads = Reads(postgres, sql, trail_limit=settings.trail_limit, page_bytes=settings.page_bytes)
    effects = EffectReads(postgres, sql, limit=settings.trail_limit)
    changes = ChangeReads(postgres, sql, page_bytes=settings.page_bytes)
    store = Store(postgres, sql, subjects.EVENTS)
    inventory = Inventory(
        store=store,
        reads=reads,
        waiting=Waiting(),
        clock=rig.clock,
    )
    earlier = Earlier(postgres, sql, stream=subjects.EVENTS, page_bytes=settings.page_bytes)
    fleet = fleet_rebuild(settings, rig, postgres)
    sources = sources_of(settings, sql)
    replays = replays_of(settings, rig, postgres, sources)
    defined = definitions(settings, rig, postgres, fleet, replays)
    record = record_of(settings, rig, postgres, sql, store)
    return Service(
        description="Every event in Postgres, and what follows from it: VMs, hosts, operations",
        consumers=[
            BatchConsumer(
                stream=subjects.EVENTS,
                name=DURABLE,
                description="Every event, into Postgres",
                subjects=(subjects.ALL_EVENTS,),
                handler=inventory.on_events,
                batch=settings.batch,
                gather_s=settings.gather_s,
                gather_from=settings.gather_from,
                ack_wait_s=settings.ack_wait_s,
                max_deliver=-1,
            ),
            defined.consumer(),
            rebuilds(settings, rig, postgres, sql, sources, fleet).consumer(),
            *replays.consumers(),
        ],
        endpoints=[
            *endpoints(inventory, reads, effects, changes, settings),
            *audit_endpoints(record.audits, settings),
            earlier.endpoint(concurrency=settings.queries, line=settings.queries_waiting),
            *defined.endpoints(),
        ],
        background=[
            lambda: inventory.poll(settings.poll_s),
            lambda: postgres.watch(settings.poll_s),
            lambda: record.upkeep.run(settings.upkeep_s),
            *([record.retention.run] if record.retention is not None else []),
            defined.keep_copied,
        ],
        ready=lambda: postgres.answers,
        alarms=record.upkeep.alarms,
        gauges=record.upkeep.gauges(),
        close=close,
    )
