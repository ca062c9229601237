"""A built service at work: its tasks, how it says that it is ready, and its end in the right order.

What belongs here: the tasks of one service in one process. Getting there is `chassis.run`'s.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

import structlog

from chassis.consume import Patience, consume
from chassis.health import Doctor, Health, served
from chassis.meters import Meter, Meters
from chassis.micro import serve
from chassis.micro_discovery import Identity
from chassis.notify import Notifier
from chassis.service import BatchConsumer, Consumer, Rig, Service
from chassis.settings import ChassisSettings

log = structlog.get_logger()

HEALTH_CHECK_S = 0.1
"""How often readiness is looked at."""


class ServiceBroke(Exception):
    """A part of the service that should run for ever came to its end."""


class Work:
    """Entered, the service works; left, it has ended cleanly."""

    def __init__(
        self,
        rig: Rig,
        service: Service,
        settings: ChassisSettings,
        *,
        version: str,
        notifier: Notifier,
    ) -> None:
        self.rig = rig
        self._serving = asyncio.Event()
        self.service = service
        self.meters = Meters(_own_meters(service))
        self.doctor = Doctor(
            service=rig.service,
            instance=rig.instance,
            version=version,
            clock=rig.clock,
            checks={
                "bus": lambda: rig.bus.connected,
                "endpoints": self._serving.is_set,
                "service": service.ready,
            },
            meters=self.meters,
            alarms=service.alarms,
        )
        self._settings = settings
        self._version = version
        self._notifier = notifier
        self._handling: list[asyncio.Task[None]] = []
        self._supporting: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def until(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set. Raises what broke one of the service's parts."""
        stopping = asyncio.create_task(stop.wait())
        parts = [*self._handling, *self._supporting]
        try:
            await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for part in parts:
            if part.done() and not stop.is_set():
                raise ServiceBroke(f"{part.get_name()} ended") from part.exception()

    async def until_ready(self) -> None:
        """Returns once the service can do its work."""
        while not self.doctor.health().ready:  # noqa: ASYNC110 - readiness is asked, not told
            await asyncio.sleep(HEALTH_CHECK_S)

    async def __aenter__(self) -> Work:
        await self._stack.__aenter__()
        await self._stack.enter_async_context(served(self._settings.health, self.doctor))
        self._count_ourselves()
        self._handling = [_task(self._endpoints(), "endpoints")] + [
            _task(self._consumer(consumer), consumer.name) for consumer in self.service.consumers
        ]
        self._supporting = [
            *(_task(_as_coroutine(loop), _name_of(loop)) for loop in self.service.background),
            _task(self._tell(), "health"),
        ]
        if self._notifier.watchdog_s is not None:
            self._supporting.append(_task(self._notifier.keep_alive(), "watchdog"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """First no more messages and requests; background loops go on until those in hand are done."""
        self._notifier.stopping()
        try:
            await _end(self._handling)
        finally:
            await _end(self._supporting, patience_s=self._settings.grace_s)
            await self._stack.aclose()

    def _count_ourselves(self) -> None:
        rig = self.rig
        self.meters.set(
            "vireo_service_info",
            1,
            service=rig.service,
            instance=rig.instance,
            site=rig.site,
            version=self._version,
        )
        for name, gauge in self.service.gauges.items():
            self.meters.watch(name, gauge.read)
        for name, tally in self.service.tallies.items():
            self.meters.watch_each(name, tally.read)
        self.meters.watch("vireo_bus_connected", lambda: float(rig.bus.connected))
        self.meters.watch("vireo_ready", lambda: float(self.doctor.health().ready))

    def _consumer(self, consumer: Consumer | BatchConsumer) -> Coroutine[Any, Any, None]:
        return consume(
            self.rig.bus,
            consumer,
            meters=self.meters,
            clock=self.rig.clock,
            patience=Patience(grace_s=self._settings.grace_s),
        )

    def _endpoints(self) -> Coroutine[Any, Any, None]:
        rig = self.rig
        identity = Identity(
            name=rig.service,
            id=rig.ids.new(),
            version=self._version,
            description=self.service.description,
            started_at=rig.clock.now(),
            metadata={"instance": rig.instance, "site": rig.site},
        )
        return serve(
            rig.bus,
            identity,
            [*self.service.endpoints, *self.doctor.endpoints()],
            meters=self.meters,
            clock=rig.clock,
            ids=rig.ids,
            address=self.service.address,
            on_serving=self._serving.set,
        )

    async def _tell(self) -> None:
        """Say each change of readiness: to the log and to whoever supervises us; for ever."""
        before: tuple[str, ...] | None = None
        told = False
        while True:
            health = self.doctor.health()
            if health.missing != before:
                before = health.missing
                told = self._tell_change(health, told=told)
            await asyncio.sleep(HEALTH_CHECK_S)

    def _tell_change(self, health: Health, *, told: bool) -> bool:
        if not health.ready:
            log.info("service_not_ready", missing=health.missing)
            self._notifier.status("waits for " + ", ".join(health.missing))
            return told
        log.info("service_ready")
        if told:
            self._notifier.status("ready")
        else:
            self._notifier.ready("ready")
        return True


def _own_meters(service: Service) -> dict[str, Meter]:
    gauges = service.gauges.items()
    tallies = service.tallies.items()
    return {name: Meter(kind="gauge", help=gauge.help) for name, gauge in gauges} | {
        name: Meter(kind="counter", help=tally.help, labels=(tally.label,))
        for name, tally in tallies
    }


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=name)


async def _as_coroutine(loop: Callable[[], Awaitable[None]]) -> None:
    await loop()


def _name_of(loop: Callable[[], Awaitable[None]]) -> str:
    # A partial's own repr would show its arguments, settings among them.
    function = loop.func if isinstance(loop, functools.partial) else loop
    return getattr(function, "__qualname__", type(function).__name__)


async def _end(tasks: Sequence[asyncio.Task[None]], patience_s: float | None = None) -> None:
    """Cancel all and wait until they have ended; what fails now is logged, for nobody waits for it."""
    for task in tasks:
        task.cancel()
    if not tasks:
        return
    ended, late = await asyncio.wait(tasks, timeout=patience_s)
    for task in late:
        log.warning("part_does_not_end", part=task.get_name())
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("part_failed", part=task.get_name(), error=repr(error))
