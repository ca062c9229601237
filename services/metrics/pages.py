"""What Prometheus scrapes, served by HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chassis.health import served
from chassis.settings import HealthSettings
from services.metrics.exposition import text
from services.metrics.model import Fleet
from services.metrics.plane import Plane
from services.metrics.settings import PrometheusSettings

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


class Pages:
    """The one page there is, made anew whenever it is asked for."""

    def __init__(self, fleet: Callable[[], Fleet], plane: Callable[[], Plane]) -> None:
        self._fleet = fleet
        self._plane = plane

    def page(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type, body."""
        if path != "/metrics":
            return 404, "application/json", b'{"detail":"not found"}'
        return 200, TEXT_FORMAT, text(self._fleet(), self._plane()).encode()

    async def serve(self, where: PrometheusSettings) -> None:
        """Until cancelled."""
        async with served(HealthSettings(host=where.host, port=where.port), self):
            await asyncio.Event().wait()
