"""Replays: recorded events published again, at their own pace or another, until they end or are stopped.

How far one has come is kept with every page: a killed one goes on there when its command comes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from chassis.bus import BusError, Incoming, Outgoing
from chassis.dispatch import by_type
from chassis.postgres import Postgres, load_queries
from chassis.service import Consumer, Retry, Rig
from schemas import events, subjects
from schemas.commands import ReplayCommand, ReplayEvents, StopReplay
from schemas.envelope import Envelope
from schemas.forecasts import Forecast
from schemas.problems import Problem, not_found
from schemas.wire import read_header
from services.inventory.columns import in_utc, json_of
from services.inventory.event_source import EventSources, Unreadable
from services.inventory.reads import types_of
from services.inventory.recorded import Recorded, Selection
from services.inventory.replay_messages import (
    STEPS,
    Replay,
    again,
    due_s,
    fitting,
    foretold,
    reached,
    said,
    step_of,
)
from services.inventory.settings import InventorySettings
from services.inventory.store import Queries

SLICE_S = 1.0
"""However long the next event is off: so often it is looked whether the replay was stopped."""
PAGE_BYTES = 512 * 1024

log = structlog.get_logger()

_problem = msgspec.json.Decoder(Problem)


class Replays:
    """The handlers of `replay.start` and `replay.stop`."""

    def __init__(
        self,
        rig: Rig,
        settings: InventorySettings,
        postgres: Postgres,
        queries: Queries,
        sources: EventSources,
    ) -> None:
        """`queries` are those of `replays.sql`."""
        self._rig = rig
        self._settings = settings
        self._postgres = postgres
        self._queries = queries
        self._sources = sources

    async def on_start(self, command: Envelope[ReplayEvents], _message: Incoming) -> None:
        replay = await self._begin(command)
        if not replay.ended:
            await self._carry_out(command, replay)
            replay = await self._state(command.id)
        if replay.problem is None:
            await self._tell_end(command, replay)
        else:
            failed = events.OperationFailed(problem=_problem.decode(replay.problem))
            await self._tell(failed, "operation.failed", command)
            log.warning("replay_failed", name=replay.name, reason=failed.problem.detail)

    async def _carry_out(self, command: Envelope[ReplayEvents], replay: Replay) -> None:
        """Until it has ended, or failed."""
        try:
            await self._run(command, replay)
        except Unreadable as unreadable:
            async with self._postgres.connection() as connection:
                await connection.execute(
                    self._queries["fail"], command.id, json_of(unreadable.problem)
                )

    async def _tell_end(self, command: Envelope[ReplayEvents], replay: Replay) -> None:
        done = events.ReplayEnded(
            name=replay.name, published=replay.published, complete=not replay.stopped
        )
        how = "" if done.complete else ", then it was stopped"
        end = events.OperationSucceeded(
            detail=f"{replay.published} events to vireo.replay.{replay.name}.>{how}"
        )
        await self._tell(done, "replay.ended", command)
        await self._tell(end, "operation.succeeded", command)
        log.info("replay_ended", name=replay.name, published=replay.published)

    async def on_stop(self, command: Envelope[StopReplay], _message: Incoming) -> None:
        name = command.data.name
        async with self._postgres.connection() as connection:
            stopped = await connection.fetch(self._queries["stop"], name)
        if stopped:
            end = events.OperationSucceeded(detail=f"{len(stopped)} told to stop")
            await self._tell(end, "operation.succeeded", command)
        else:
            problem = not_found("running replay", name)
            await self._tell(events.OperationFailed(problem=problem), "operation.failed", command)

    async def foretell(self, wish: ReplayCommand) -> Forecast | Problem:
        """How many events it would be."""
        if isinstance(wish, StopReplay):
            return Forecast(command="replay.stop", kind="replay", target=wish.name)
        number, last = await self._sources.rows_of(self._fetch, wish.since, wish.until)
        away = await self._sources.archives(self._fetch, after=number, last=last)
        try:
            await self._sources.require(away)
        except Unreadable as unreadable:
            return unreadable.problem
        filters = (wish.vm, wish.host, wish.operation, types_of(wish.types))
        ((count,),) = await self._fetch(
            self._queries["count"], subjects.EVENTS, number, last, *filters
        )
        detail = foretold(wish.name, count, [each.anchor for each in away])
        return Forecast(command="replay.start", kind="replay", target=wish.name, detail=detail)

    async def _fetch(self, query: str, *values: Any) -> list[Any]:
        async with self._postgres.connection() as connection:
            found: list[Any] = await connection.fetch(query, *values)
            return found

    async def _begin(self, command: Envelope[ReplayEvents]) -> Replay:
        wish = command.data
        number, last = await self._sources.rows_of(self._fetch, wish.since, wish.until)
        async with self._postgres.connection() as connection:
            await connection.execute(self._queries["begin"], command.id, wish.name, number, last)
        return await self._state(command.id)

    async def _state(self, operation: str) -> Replay:
        async with self._postgres.connection() as connection:
            return Replay(**await connection.fetchrow(self._queries["state"], operation))

    async def _run(self, command: Envelope[ReplayEvents], replay: Replay) -> None:
        """Page after page. Where it goes on after a break, the pace begins anew. Raises Unreadable."""
        number, stopped, step = replay.number, replay.stopped, 0
        pace = _Pace(self._rig, speed=command.data.speed)
        async with self._sources.open(_selection(command.data, last=replay.last)) as source:
            await source.require(self._fetch, after=number)
            while not stopped:
                limit = self._settings.replay_batch
                stretch = await source.next(self._fetch, after=number, limit=limit)
                if stretch.through == number:
                    break
                published = await self._publish(command, stretch.events, pace)
                number = reached(number, stretch, published)
                stopped = await self._advance(command.id, number, published)
                before, step = step, step_of(number, begin=replay.number, last=replay.last)
                if step > before:
                    await self._tell_step(command, step, number=number, last=replay.last)
        async with self._postgres.connection() as connection:
            await connection.execute(self._queries["end"], command.id)

    async def _advance(self, operation: str, number: int, published: int) -> bool:
        """Whether it was stopped meanwhile."""
        async with self._postgres.connection() as connection:
            stopped: bool = await connection.fetchval(
                self._queries["advance"], operation, number, published
            )
            return stopped

    async def _tell_step(
        self, command: Envelope[ReplayEvents], step: int, *, number: int, last: int
    ) -> None:
        detail = f"row {number} of {last}"
        progressed = events.OperationProgressed(step=step, of=STEPS, detail=detail)
        await self._tell(progressed, f"row {number}", command)

    async def _publish(
        self, command: Envelope[ReplayEvents], found: Sequence[Recorded], pace: _Pace
    ) -> int:
        """How many of them: all that fit together, or as many as were due until a slice was over."""
        page = fitting(found, most_bytes=PAGE_BYTES)
        if not page:
            return 0
        headers = [read_header(each.envelope) for each in page]
        waits_s = [pace.wait_s(in_utc(header.time)) for header in headers]
        due = [count for count, wait_s in enumerate(waits_s, start=1) if wait_s <= 0]
        if not due:
            await self._rig.clock.sleep(min(waits_s[0], SLICE_S))
            return 0
        name, operation = command.data.name, command.id
        originals = zip(page[: due[-1]], headers, strict=False)
        await self._together(
            [again(each, header, name=name, operation=operation) for each, header in originals]
        )
        return due[-1]

    async def _together(self, messages: Sequence[Outgoing]) -> None:
        try:
            await self._rig.bus.publish_together(messages)
        except BusError as error:
            raise Retry(self._settings.config_retry_s, type(error).__name__) from error

    async def _tell(self, data: Any, name: str, command: Envelope[Any]) -> None:
        message = said(data, name, command, site=self._rig.site, at=self._rig.clock.now())
        try:
            await self._rig.bus.publish(message)
        except BusError as error:
            raise Retry(self._settings.config_retry_s, type(error).__name__) from error

    def consumers(self) -> tuple[Consumer, Consumer]:
        """Apart: who wants one stopped does not wait until it has ended."""
        site = self._rig.site
        start = Consumer(
            stream=subjects.COMMANDS,
            name=f"replay-{site}",
            description="Commands to publish recorded events again",
            subjects=(subjects.command(ReplayEvents, site=site),),
            handler=by_type({ReplayEvents: self.on_start}),
            key=lambda message: str(message.sequence),
            concurrency=self._settings.replays,
            batch=self._settings.replays,
            ack_wait_s=self._settings.ack_wait_s,
        )
        stop = Consumer(
            stream=subjects.COMMANDS,
            name=f"replay-stop-{site}",
            description="Commands to stop that",
            subjects=(subjects.command(StopReplay, site=site),),
            handler=by_type({StopReplay: self.on_stop}),
            ack_wait_s=self._settings.ack_wait_s,
        )
        return start, stop


class _Pace:
    """When an event is due, counted from the first that was asked for."""

    def __init__(self, rig: Rig, *, speed: float) -> None:
        self._clock = rig.clock
        self._speed = speed
        self._first: datetime | None = None
        self._began = 0.0

    def wait_s(self, at: datetime) -> float:
        """Seconds until an event of this time is due; 0 or less: it is."""
        if self._first is None:
            self._first, self._began = at, self._clock.monotonic()
        due = due_s(at, first=self._first, speed=self._speed)
        return self._began + due - self._clock.monotonic()


def _selection(wish: ReplayEvents, *, last: int) -> Selection:
    return Selection(
        since=wish.since,
        until=wish.until,
        last=last,
        vm=wish.vm,
        host=wish.host,
        operation=wish.operation,
        types=types_of(wish.types),
    )


def replays_of(
    settings: InventorySettings, rig: Rig, postgres: Postgres, sources: EventSources
) -> Replays:
    queries = load_queries(Path(__file__).with_name("replays.sql"))
    return Replays(rig, settings, postgres, queries, sources)
