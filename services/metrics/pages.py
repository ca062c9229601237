"""What Prometheus scrapes, served by HTTP.

What belongs here: when a page is made, and where: of a large fleet it takes most of a second, so that it is
made in a thread, from values that were taken in the loop. What it says is `exposition`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from chassis.health import served
from chassis.settings import HealthSettings
from chassis.threads import Threads
from services.metrics.exposition import text
from services.metrics.model import Fleet
from services.metrics.plane import Plane
from services.metrics.settings import PrometheusSettings

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


class Pages:
    """The one page there is, made anew when it is asked for; who asks while it is made gets that one."""

    def __init__(self, fleet: Callable[[], Fleet], plane: Callable[[], Plane]) -> None:
        self._fleet = fleet
        self._plane = plane
        self._threads = Threads(1, name="pages")
        self._making: asyncio.Task[bytes] | None = None

    async def page(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type, body."""
        if path != "/metrics":
            return 404, "application/json", b'{"detail":"not found"}'
        if self._making is None:
            self._making = asyncio.create_task(self._make())
        # Who hangs up does not take the page from the others.
        return 200, TEXT_FORMAT, await asyncio.shield(self._making)

    async def _make(self) -> bytes:
        try:
            return await self._threads.run(partial(_bytes, self._fleet(), self._plane()))
        finally:
            self._making = None

    async def serve(self, where: PrometheusSettings) -> None:
        """Until cancelled."""
        async with served(HealthSettings(host=where.host, port=where.port), self):
            await asyncio.Event().wait()

    def close(self) -> None:
        if self._making is not None:
            self._making.cancel()
        self._threads.close()


def _bytes(fleet: Fleet, plane: Plane) -> bytes:
    return text(fleet, plane).encode()
