"""The shell: frames from the bus into what is newest, readings out of it."""

from __future__ import annotations

import structlog

from chassis.bus import Bus
from chassis.service import Clock, Endpoint, Rig, Service
from schemas.problems import Problem, not_found
from schemas.queries import GetHost, GetVmReading
from schemas.subjects import ALL_TELEMETRY
from schemas.telemetry import HostReading, VmReading
from services.metrics.decide import host_reading, read, vm_reading
from services.metrics.model import Garbled
from services.metrics.newest import Newest
from services.metrics.pages import Pages
from services.metrics.settings import MetricsSettings
from services.metrics.watch import Watch

log = structlog.get_logger()

SWEEPS_PER_STALE = 4
"""How often, within the time after which a host is stale, it is looked for stale ones."""


class Metrics:
    """What the handlers share while the service runs."""

    def __init__(self, newest: Newest, clock: Clock) -> None:
        self._newest = newest
        self._clock = clock

    async def take_frames(self, bus: Bus, *, unread: int) -> None:
        async with bus.listen(ALL_TELEMETRY, limit=unread) as messages:
            async for message in messages:
                frame = read(message.data, subject=message.subject)
                outcome = self._newest.put(frame, now_s=self._clock.monotonic())
                if isinstance(frame, Garbled):
                    log.warning("frame_garbled", subject=message.subject, reason=frame.reason)
                elif outcome == "refused":
                    log.warning("frame_refused", host=frame.host, reason="too many hosts")

    async def forget_stale(self, *, every_s: float) -> None:
        while True:
            await self._clock.sleep(every_s)
            for host in self._newest.forget_stale(now_s=self._clock.monotonic()):
                log.info("host_forgotten", host=host)

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
    metrics = Metrics(newest, rig.clock)
    watch = Watch(rig, settings.watch)
    pages = Pages(newest.fleet, lambda: watch.plane)
    return Service(
        description="The newest telemetry of every host and guest",
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
        ],
        background=[
            lambda: metrics.take_frames(rig.bus, unread=settings.unread_frames),
            lambda: metrics.forget_stale(every_s=settings.stale_s / SWEEPS_PER_STALE),
            watch.follow_names,
            watch.look_around,
            lambda: pages.serve(settings.prometheus),
        ],
    )
