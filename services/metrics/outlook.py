"""What is shown and told of the fleet as a whole: pages, pushes, and the look at the control plane.

What belongs here: putting these parts together. What each does stands in `watch`, `pages` and `push`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from chassis.service import Rig
from services.metrics.exposition import told
from services.metrics.families import Family
from services.metrics.model import Fleet
from services.metrics.pages import Pages
from services.metrics.push import Push
from services.metrics.settings import MetricsSettings
from services.metrics.watch import Watch

Loop = Callable[[], Awaitable[None]]


class Outlook:
    """`fleet`: what is newest, asked for whenever something is shown."""

    def __init__(self, settings: MetricsSettings, rig: Rig, fleet: Callable[[], Fleet]) -> None:
        self._settings = settings
        self._fleet = fleet
        self._watch = Watch(rig, settings.watch)
        self._pages = Pages(fleet, lambda: self._watch.plane)
        self._push = self._pushing(rig)

    def background(self) -> Iterator[Loop]:
        yield self._watch.follow_names
        yield self._watch.look_around
        yield self._serve
        if self._push is not None:
            yield self._push.push

    async def close(self) -> None:
        if self._push is not None:
            self._push.close()

    async def _serve(self) -> None:
        await self._pages.serve(self._settings.prometheus)

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
