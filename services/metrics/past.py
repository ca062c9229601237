"""The shell around rings and history: ticks in, questions about the past answered, live samples waited for.

What belongs here: the order of doing. What a question is answered from is `levels`', how `answers`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import structlog

from chassis.migrations import migrate
from chassis.postgres import Postgres, connect, load_queries
from chassis.service import Clock, Endpoint, Gauge, Retry, Rig
from schemas.metrics import GetHistory, GetLive, LiveSamples, Metrics
from schemas.problems import FieldError, Problem, invalid_request
from schemas.telemetry import HostFrame
from services.metrics.answers import live_samples, metrics_of, unknown_series
from services.metrics.columns import Measured
from services.metrics.entries import Entries, bucketed, none_of, of_ticks
from services.metrics.levels import FINEST, Reading, floored, plan
from services.metrics.recorder import Recorder
from services.metrics.rings import RingLimits, Rings, Tick
from services.metrics.series import SERIES, Kind
from services.metrics.settings import MetricsSettings
from services.metrics.store import Store, entity

log = structlog.get_logger()

QUERIES = load_queries(Path(__file__).with_name("queries.sql"))
AWAY_S = 2.0
"""When to ask again while Postgres was not reached yet."""


class Past:
    """What the service remembers: the last hour in memory, the rest in Postgres if it is kept there."""

    def __init__(self, settings: MetricsSettings, rig: Rig) -> None:
        self._history = settings.history
        self._levels = settings.history.keep_days.levels()
        self._rig = rig
        self._clock: Clock = rig.clock
        self._started_s = rig.clock.now().timestamp()
        self.rings = Rings(ring_limits(settings))
        self.recorder = Recorder(
            self.rings,
            rig.clock,
            settle_s=settings.history.settle_s,
            vms_per_host=settings.history.vms_per_host,
        )
        self._store: Store | None = None
        self._waiting: dict[tuple[Kind, str], set[asyncio.Event]] = {}
        self._requests = settings.requests
        self._watchers = settings.history.watchers

    def take(self, frame: HostFrame, measured: Measured) -> None:
        """Keep a frame, and wake who waits for it."""
        tick = Tick(
            measured=measured,
            at_s=frame.at.timestamp(),
            now_s=self._clock.now().timestamp(),
            heard_s=self._clock.monotonic(),
            sequence=frame.sequence,
            interval_s=frame.interval_s,
        )
        self.rings.put((frame.site, frame.host), tick)
        if self._waiting:
            self._wake("host", frame.host)
            for id in measured.vms.ids:
                self._wake("vm", id)

    def _wake(self, kind: Kind, name: str) -> None:
        for event in self._waiting.get((kind, name), ()):
            event.set()

    def forget(self) -> None:
        self.rings.forget(now_s=self._clock.now().timestamp())

    async def history(self, query: GetHistory) -> Metrics | Problem:
        """A VM's or host's series over some time. Raises Retry while Postgres is needed and away."""
        errors = _errors(query)
        if errors:
            return invalid_request(*errors)
        kind, name = _named(query)
        reading = await self._reading(kind, name, query)
        if query.step_s is not None and reading.buckets > self._history.most_points:
            return invalid_request(_too_many(reading, self._history.most_points))
        pieces = await self._pieces(kind, name, reading)
        buckets = bucketed(
            pieces, from_s=reading.from_s, step_s=reading.step_s, buckets=reading.buckets
        )
        return metrics_of(kind, name, reading, buckets, query.series)

    async def _reading(self, kind: Kind, name: str, query: GetHistory) -> Reading:
        """By the tick where the ring has all there is: since it is whole, or nothing was before it."""
        ring_from_s = self._ring_from_s(kind, name)
        reading = self._plan(kind, name, query, ring_from_s)
        window_s = self.rings.limits.window_s
        if not reading.levels or query.since < self._clock.now().timestamp() - window_s:
            return reading
        # The minute in which the ring begins is the ring's own.
        until_s = floored(ring_from_s, FINEST.step_s)
        before = await self._kept().read(FINEST, entity(kind, name), query.since, until_s)
        return reading if len(before) else self._plan(kind, name, query, 0.0)

    def _ring_from_s(self, kind: Kind, name: str) -> float:
        if not self._history.keep:
            return 0.0
        began_s = self._clock.now().timestamp() - self.rings.limits.window_s
        return max(self._started_s, began_s, self.rings.whole_since(kind, name))

    def _plan(self, kind: Kind, name: str, query: GetHistory, ring_from_s: float) -> Reading:
        return plan(
            from_s=query.since,
            to_s=query.until,
            step_s=query.step_s,
            points=self._history.points,
            levels=self._levels,
            now_s=self._clock.now().timestamp(),
            ring_from_s=ring_from_s,
            tick_s=self.rings.tick_s(kind, name),
        )

    def _kept(self) -> Store:
        """Raises Retry while Postgres was not reached yet."""
        if self._store is None:
            raise Retry(AWAY_S, "Postgres was not reached yet")
        return self._store

    async def _pieces(self, kind: Kind, name: str, reading: Reading) -> list[Entries]:
        """The coarsest level first; where it ends, the next one begins, and the ring is the last."""
        width = len(SERIES[kind])
        from_s = float(reading.from_s)
        to_s = float(reading.from_s + reading.buckets * reading.step_s)
        pieces = [none_of(width)]
        for level in reading.levels:
            found = await self._kept().read(level, entity(kind, name), from_s, to_s)
            if len(found):
                pieces.append(found)
                from_s = float(found["at"][-1]) + level.step_s
        cut = self.rings.vm if kind == "vm" else self.rings.host
        return [*pieces, *(of_ticks(times, rows) for times, rows in cut(name, from_s, to_s))]

    async def live(self, query: GetLive) -> LiveSamples | Problem:
        """What was told after a moment; waits until there is something, or the wait is over."""
        errors = _errors(query)
        if errors:
            return invalid_request(*errors)
        kind, name = _named(query)
        woken = asyncio.Event()
        waiters = self._waiting.setdefault((kind, name), set())
        waiters.add(woken)
        try:
            return await self._samples(kind, name, query, woken)
        finally:
            waiters.discard(woken)
            if not waiters:
                self._waiting.pop((kind, name), None)

    async def _samples(
        self, kind: Kind, name: str, query: GetLive, woken: asyncio.Event
    ) -> LiveSamples:
        cut = self.rings.vm if kind == "vm" else self.rings.host
        until_s = self._clock.monotonic() + query.wait_s
        while True:
            woken.clear()
            # After the moment: times travel in whole microseconds.
            pieces = cut(name, query.after + 5e-7, float("inf"))
            left_s = until_s - self._clock.monotonic()
            if pieces or left_s <= 0:
                found = live_samples(kind, pieces, query.series, most=self._history.most_samples)
                return LiveSamples(samples=found)
            await _at_most(left_s, woken.wait())

    async def record(self) -> None:
        """Until cancelled: keep the past in Postgres. What is not written by then is, at the end."""
        if not self._history.keep:
            await asyncio.Event().wait()
        async with connect(self._history.postgres, name=self._rig.service) as postgres:
            store = await self.use(postgres)
            try:
                await self.recorder.run(store)
            finally:
                await self.recorder.finish(store)

    async def use(self, postgres: Postgres) -> Store:
        """Answer from this database from now on; its tables are brought up to date."""
        while True:
            try:
                await migrate(postgres, "services.metrics.migrations")
            except Retry as away:
                await self._clock.sleep(away.after_s)
            else:
                break
        self._store = Store(postgres, QUERIES, batch=self._history.batch, levels=self._levels)
        return self._store

    def alarms(self) -> list[str]:
        behind_s = self.recorder.behind_s
        if not self._history.keep or behind_s < self._history.alarm_s:
            return []
        return [f"No history has been stored for {behind_s:.0f} s: Postgres is away or too slow."]

    def gauges(self) -> dict[str, Gauge]:
        found = {
            "vireo_metrics_ring_bytes": Gauge(
                help="Memory of the last hour's values.", read=lambda: float(self.rings.nbytes)
            ),
            "vireo_metrics_ring_blocks_lost": Gauge(
                help="Pieces of the last hour that went early, for want of memory.",
                read=lambda: float(self.rings.dropped),
            ),
        }
        if self._history.keep:
            found["vireo_metrics_history_behind_seconds"] = Gauge(
                help="Age of the first moment that is not stored yet.",
                read=lambda: self.recorder.behind_s,
            )
            found["vireo_metrics_history_vms_refused"] = Gauge(
                help="VMs that were not stored for a minute, being too many of their host.",
                read=lambda: float(self.recorder.refused),
            )
        return found

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                name="history",
                description="How a VM or a host was over some time",
                request=GetHistory,
                handler=self.history,
                concurrency=self._requests,
            ),
            Endpoint(
                name="watch",
                description="What is told of a VM or a host after a moment; waits for it",
                request=GetLive,
                handler=self.live,
                concurrency=self._watchers,
            ),
        ]


def ring_limits(settings: MetricsSettings) -> RingLimits:
    rings = settings.rings
    return RingLimits(
        window_s=rings.window_s,
        memory_mib=rings.memory_mib,
        host_mib=rings.host_mib,
        skew_s=rings.skew_s,
        block_ticks=rings.block_ticks,
    )


def _named(query: GetHistory | GetLive) -> tuple[Kind, str]:
    return ("vm", query.vm) if query.vm is not None else ("host", query.host or "")


def _errors(query: GetHistory | GetLive) -> list[FieldError]:
    if (query.vm is None) == (query.host is None):
        return [FieldError(field="/vm", detail="expected either a VM or a host")]
    kind, _ = _named(query)
    known = ", ".join(each.name for each in SERIES[kind])
    errors = [
        FieldError(
            field="query/series", detail=f"no series {name!r} of a {kind}; there are {known}"
        )
        for name in unknown_series(kind, query.series)
    ]
    if isinstance(query, GetHistory) and query.until <= query.since:
        errors.append(FieldError(field="query/to", detail="expected a time after `from`"))
    return errors


def _too_many(reading: Reading, most: int) -> FieldError:
    return FieldError(
        field="query/step",
        detail=f"would make {reading.buckets} points of this time, and {most} is the most",
    )


async def _at_most(seconds: float, awaitable: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await awaitable
    except TimeoutError:
        return
