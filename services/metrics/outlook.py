"""What is shown and told of the fleet as a whole: pages, pushes, alerts, and the look at the plane.

What belongs here: putting these parts together. What each does stands in modules of their names.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence

from chassis.service import Consumer, Endpoint, Rig
from schemas.loads import ListHostLoads, ListVmLoads
from schemas.resources import Page
from services.metrics.alert_setup import alerts
from services.metrics.exposition import told
from services.metrics.families import Family
from services.metrics.loads import Rows, host_loads, vm_loads
from services.metrics.model import Fleet
from services.metrics.pages import Pages
from services.metrics.push import Push
from services.metrics.rings import Rings
from services.metrics.series import Kind
from services.metrics.settings import MetricsSettings
from services.metrics.watch import Watch

Loop = Callable[[], Awaitable[None]]


class Outlook:
    """`fleet`: what is newest, asked for whenever something is shown; `rings`: what went before."""

    def __init__(
        self, settings: MetricsSettings, rig: Rig, *, fleet: Callable[[], Fleet], rings: Rings
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._rings = rings
        self._clock = rig.clock
        self._watch = Watch(rig, settings.watch)
        self._pages = Pages(fleet, lambda: self._watch.plane)
        self._push = self._pushing(rig)
        self._alerts = alerts(settings.alerts, rig, self._named)

    def consumers(self) -> Iterator[Consumer]:
        if self._settings.alerts.enabled:
            yield self._alerts.consumer()

    def endpoints(self) -> Iterator[Endpoint]:
        if self._settings.alerts.enabled:
            yield from self._alerts.endpoints()
        yield Endpoint(
            name="load.hosts",
            description="How busy hosts are, by name",
            request=ListHostLoads,
            handler=self._host_loads,
            concurrency=self._settings.requests,
        )
        yield Endpoint(
            name="load.vms",
            description="How busy VMs are, by id",
            request=ListVmLoads,
            handler=self._vm_loads,
            concurrency=self._settings.requests,
        )

    def background(self) -> Iterator[Loop]:
        yield self._watch.follow_names
        yield self._watch.look_around
        yield self._serve
        if self._push is not None:
            yield self._push.push
        if self._settings.alerts.enabled:
            yield from self._alerts.background()

    async def close(self) -> None:
        self._pages.close()
        await self._alerts.close()
        if self._push is not None:
            self._push.close()

    async def _host_loads(self, query: ListHostLoads) -> Page:
        return host_loads(self._fleet(), query, self._recent)

    async def _vm_loads(self, query: ListVmLoads) -> Page:
        return vm_loads(self._fleet(), self._watch.plane.names, query, self._recent)

    def _recent(self, kind: Kind, name: str, count: int) -> Rows:
        if count == 0:
            return ()
        cut = self._rings.vm if kind == "vm" else self._rings.host
        now_s = self._clock.now().timestamp()
        # One tick more: the last one is under way.
        from_s = now_s - (count + 1) * self._rings.tick_s(kind, name)
        rows: list[Sequence[float]] = [
            row for _, piece in cut(name, from_s, math.inf) for row in piece
        ]
        return rows[-count:]

    async def _serve(self) -> None:
        await self._pages.serve(self._settings.prometheus)

    def _named(self, names: frozenset[str]) -> Iterator[Family]:
        return told(self._fleet(), self._watch.plane, names=names)

    def _told(self) -> Iterator[Family]:
        return told(self._fleet(), self._watch.plane)

    def _pushing(self, rig: Rig) -> Push | None:
        endpoint = self._settings.otlp.endpoint
        if endpoint is None:
            return None
        return Push(
            self._settings.otlp,
            endpoint=endpoint,
            instance=rig.instance,
            site=rig.site,
            clock=rig.clock,
            told=self._told,
        )
