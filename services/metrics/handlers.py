"""The shell: frames from the bus into what is newest, readings out of it."""

from __future__ import annotations

import asyncio

import structlog

from chassis.bus import Bus, Incoming
from chassis.service import Clock, Endpoint, Rig, Service
from schemas.problems import Problem, not_found
from schemas.queries import GetHost, GetVmReading
from schemas.subjects import ALL_TELEMETRY
from schemas.telemetry import HostReading, VmReading
from services.metrics.columns import measured
from services.metrics.decide import host_reading, read, vm_reading
from services.metrics.model import Garbled
from services.metrics.newest import Newest
from services.metrics.outlook import Outlook
from services.metrics.past import Past
from services.metrics.settings import MetricsSettings

log = structlog.get_logger()

FRAMES_AT_A_TIME = 32
"""So many are read before others get a turn."""
QUIET_S = 10.0
"""After a warning about a frame, the next of its kind waits so long."""
SWEEPS_PER_STALE = 4
"""How often, within the time after which a host is stale, it is looked for stale ones."""


class Metrics:
    """What the handlers share while the service runs."""

    def __init__(self, newest: Newest, past: Past, clock: Clock) -> None:
        self._newest = newest
        self._past = past
        self._clock = clock
        self._quiet_until_s: dict[str, float] = {}

    async def take_frames(self, bus: Bus, *, unread: int) -> None:
        async with bus.listen(ALL_TELEMETRY, limit=unread) as messages:
            count = 0
            async for message in messages:
                self._take(message)
                count += 1
                if count % FRAMES_AT_A_TIME == 0:
                    # Reading a backlog waits for nothing: without a pause nobody else would be served.
                    await asyncio.sleep(0)

    def _take(self, message: Incoming) -> None:
        frame = read(message.data, subject=message.subject)
        if isinstance(frame, Garbled):
            self._drop(message.subject, frame)
            return
        arrays = measured(frame)
        if isinstance(arrays, Garbled):
            self._drop(message.subject, arrays)
            return
        outcome = self._newest.put(frame, now_s=self._clock.monotonic())
        if outcome == "taken":
            self._past.take(frame, arrays)
        elif outcome == "refused":
            self._say("frame_refused", subject=message.subject, reason="too many hosts")

    def _drop(self, subject: str, what: Garbled) -> None:
        self._newest.put(what, now_s=self._clock.monotonic())
        self._say("frame_garbled", subject=subject, reason=what.reason)

    def _say(self, event: str, **fields: str) -> None:
        """Warn, but seldom: who sends nonsense sends much of it. All of it is counted."""
        now_s = self._clock.monotonic()
        if now_s >= self._quiet_until_s.get(event, now_s):
            self._quiet_until_s[event] = now_s + QUIET_S
            log.warning(event, **fields)

    async def forget_stale(self, *, every_s: float) -> None:
        while True:
            await self._clock.sleep(every_s)
            for host in self._newest.forget_stale(now_s=self._clock.monotonic()):
                log.info("host_forgotten", host=host)
            self._past.forget()

    async def host(self, query: GetHost) -> HostReading | Problem:
        newest = self._newest.host(query.host)
        if newest is None:
            return not_found("telemetry of host", query.host)
        return host_reading(newest)

    async def vm(self, query: GetVmReading) -> VmReading | Problem:
        newest = self._newest.host_of_vm(query.vm)
        if newest is None:
            return not_found("telemetry of VM", query.vm)
        return vm_reading(newest, query.vm)


async def build(settings: MetricsSettings, rig: Rig) -> Service:
    newest = Newest(max_hosts=settings.max_hosts, stale_s=settings.stale_s)
    past = Past(settings, rig)
    metrics = Metrics(newest, past, rig.clock)
    outlook = Outlook(settings, rig, fleet=newest.fleet, rings=past.rings)
    return Service(
        description="The newest telemetry of every host and guest",
        consumers=[*outlook.consumers()],
        endpoints=[
            Endpoint(
                name="host",
                description="The newest reading of a host",
                request=GetHost,
                handler=metrics.host,
                concurrency=settings.requests,
            ),
            Endpoint(
                name="vm",
                description="The newest reading of a VM, with what its guest says",
                request=GetVmReading,
                handler=metrics.vm,
                concurrency=settings.requests,
            ),
            *past.endpoints(),
            *outlook.endpoints(),
        ],
        background=[
            lambda: metrics.take_frames(rig.bus, unread=settings.unread_frames),
            lambda: metrics.forget_stale(every_s=settings.stale_s / SWEEPS_PER_STALE),
            past.record,
            *outlook.background(),
        ],
        close=outlook.close,
        alarms=past.alarms,
        gauges=past.gauges(),
    )
