"""Replays: recorded events published again, at their own pace or another, until they end or are stopped.

How far one has come is kept with every page: a killed one goes on there when its command comes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

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
from services.inventory.archives import Archive, archives, gone, those_since
from services.inventory.reads import types_of
from services.inventory.replay_messages import STEPS, Replay, again, due_s, said, step_of
from services.inventory.settings import InventorySettings
from services.inventory.store import Queries

SLICE_S = 1.0
"""However long the next event is off: so often it is looked whether the replay was stopped."""
PAGE_BYTES = 512 * 1024

log = structlog.get_logger()


class Replays:
    """The handlers of `replay.start` and `replay.stop`."""

    def __init__(
        self,
        rig: Rig,
        settings: InventorySettings,
        postgres: Postgres,
        queries: Queries,
        record: Queries,
    ) -> None:
        """`queries` are those of `replays.sql`, `record` those of the record."""
        self._rig = rig
        self._settings = settings
        self._postgres = postgres
        self._queries = queries
        self._record = record

    async def on_start(self, command: Envelope[ReplayEvents], _message: Incoming) -> None:
        replay = await self._begin(command)
        if not replay.ended:
            if away := await self._run(command, replay):
                failed = events.OperationFailed(problem=gone(away))
                await self._tell(failed, "operation.failed", command)
                return
            replay = await self._state(command.id)
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
        if away := await self._away(wish):
            return gone(away)
        async with self._postgres.connection() as connection:
            count = await connection.fetchval(
                self._queries["count"],
                *(subjects.EVENTS, wish.since, wish.until, *_filters(wish)),
            )
        detail = f"{count} events to vireo.replay.{wish.name}.>"
        return Forecast(command="replay.start", kind="replay", target=wish.name, detail=detail)

    async def _away(self, wish: ReplayEvents, *, after: int = 0) -> list[Archive]:
        """The months of which it would still have to publish rows that are in files."""
        async with self._postgres.connection() as connection:
            known = await archives(connection, self._record, subjects.EVENTS)
        return [each for each in those_since(known, wish.since) if each.anchor.last > after]

    async def _begin(self, command: Envelope[ReplayEvents]) -> Replay:
        wish = command.data
        async with self._postgres.connection() as connection:
            await connection.execute(
                self._queries["begin"],
                *(command.id, wish.name, subjects.EVENTS, wish.since, wish.until),
            )
        return await self._state(command.id)

    async def _state(self, operation: str) -> Replay:
        async with self._postgres.connection() as connection:
            return Replay(**await connection.fetchrow(self._queries["state"], operation))

    async def _run(self, command: Envelope[ReplayEvents], replay: Replay) -> list[Archive]:
        """Page after page. Where it goes on after a break, the pace begins anew.

        Returns the months that it cannot go on with, because they are in files."""
        begin, number, stopped = replay.number, replay.number, replay.stopped
        pace = _Pace(self._rig, speed=command.data.speed)
        step = 0
        while not stopped:
            if away := await self._away(command.data, after=number):
                return away
            page = await self._page(command.data, number, replay.last)
            if not page:
                break
            published = await self._publish(command, page, pace)
            if published:
                number = page[published - 1]["number"]
            async with self._postgres.connection() as connection:
                stopped = await connection.fetchval(
                    self._queries["advance"], command.id, number, published
                )
            if (reached := step_of(number, begin=begin, last=replay.last)) > step:
                step = reached
                detail = f"row {number} of {replay.last}"
                said = events.OperationProgressed(step=step, of=STEPS, detail=detail)
                await self._tell(said, f"row {number}", command)
        async with self._postgres.connection() as connection:
            await connection.execute(self._queries["end"], command.id)
        return []

    async def _page(
        self, wish: ReplayEvents, number: int, last: int
    ) -> Sequence[Mapping[str, Any]]:
        async with self._postgres.connection() as connection:
            found: list[Mapping[str, Any]] = await connection.fetch(
                self._queries["next_events"],
                *(subjects.EVENTS, number, last, *_filters(wish), self._settings.replay_batch),
            )
        size = 0
        for count, record in enumerate(found):
            size += len(record["envelope"])
            if count and size > PAGE_BYTES:
                return found[:count]
        return found

    async def _publish(
        self, command: Envelope[ReplayEvents], page: Sequence[Mapping[str, Any]], pace: _Pace
    ) -> int:
        """How many of the page: all, or as many as were due until a slice was over."""
        ready = [record for record in page if pace.wait_s(record["time"]) <= 0]
        if not ready:
            await self._rig.clock.sleep(min(pace.wait_s(page[0]["time"]), SLICE_S))
            return 0
        count = page.index(ready[-1]) + 1
        messages = [
            again(record, name=command.data.name, operation=command.id) for record in page[:count]
        ]
        await self._together(messages)
        return count

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


def _filters(wish: ReplayEvents) -> tuple[Any, ...]:
    return wish.vm, wish.host, wish.operation, types_of(wish.types)


def replays_of(
    settings: InventorySettings, rig: Rig, postgres: Postgres, record: Queries
) -> Replays:
    queries = load_queries(Path(__file__).with_name("replays.sql"))
    return Replays(rig, settings, postgres, queries, record)
