"""How long it takes to make all tables anew from the events, while everything runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.report import Row, Target, row
from deploy.control_plane import ControlPlane
from vireo import Client

EVENTS = 1_000_000
WITHIN = Target("at most", 300)
PATIENCE_S = 1800


async def rebuilt_s(plane: ControlPlane) -> float:
    """From the request to the end of its operation; the tables must be the same."""
    async with Client(plane.url, plane.token) as client:
        began = time.perf_counter()
        pending = await client.inventory.rebuild()
        operation = await pending.wait(PATIENCE_S)
        seconds = time.perf_counter() - began
    if not operation.detail.endswith("the same"):
        raise RuntimeError(operation.detail)
    return seconds


def rebuild_rows(seconds: float, events: int) -> Iterator[Row]:
    yield row(
        "rebuild",
        [seconds],
        "s",
        target=WITHIN if events >= EVENTS else None,
        note=f"of all tables from {events} events, compared and taken",
    )
    yield row("rebuild, events", [events / seconds], "/s")
