"""The page for Prometheus is made beside the loop, and once for all who wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping

import pytest

from services.metrics.model import Fleet, HostNewest, Outcome
from services.metrics.pages import Pages
from services.metrics.plane import Plane

PATIENCE_S = 15.0


class Gate(Mapping[Outcome, int]):
    """Counts of frames that cannot be read before the gate is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __getitem__(self, outcome: Outcome) -> int:
        return {"taken": 7}[outcome]

    def __iter__(self) -> Iterator[Outcome]:
        assert self.open.wait(PATIENCE_S)
        found: tuple[Outcome, ...] = ("taken",)
        return iter(found)

    def __len__(self) -> int:
        return 1


class Fleets:
    """Counts how often it was asked."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.asked = 0

    def now(self) -> Fleet:
        self.asked += 1
        hosts: dict[tuple[str, str], HostNewest] = {}
        return Fleet(hosts=hosts, frames=self.gate)


@pytest.fixture
def fleets() -> Fleets:
    return Fleets(Gate())


@pytest.fixture
def pages(fleets: Fleets) -> Iterator[Pages]:
    pages = Pages(fleets.now, Plane)
    yield pages
    fleets.gate.open.set()
    pages.close()


async def begun(pages: Pages, fleets: Fleets) -> asyncio.Task[tuple[int, str, bytes]]:
    scrape = asyncio.create_task(pages.page("/metrics"))
    async with asyncio.timeout(PATIENCE_S):
        while not fleets.asked:
            await asyncio.sleep(0)
    return scrape


async def test_the_loop_goes_on_while_a_page_is_made(pages: Pages, fleets: Fleets) -> None:
    # Only what runs in the loop meanwhile opens the gate: made in the loop, the page would never end.
    scrape = await begun(pages, fleets)
    assert not scrape.done()
    fleets.gate.open.set()
    status, _, body = await scrape
    assert status == 200
    assert b'vireo_telemetry_frames_total{outcome="taken"} 7.0\n' in body


async def test_who_asks_while_a_page_is_made_gets_the_same(pages: Pages, fleets: Fleets) -> None:
    first = await begun(pages, fleets)
    second = asyncio.create_task(pages.page("/metrics"))
    await asyncio.sleep(0)
    fleets.gate.open.set()
    assert await first == await second
    assert fleets.asked == 1


async def test_the_next_page_is_made_anew(pages: Pages, fleets: Fleets) -> None:
    fleets.gate.open.set()
    await pages.page("/metrics")
    await pages.page("/metrics")
    assert fleets.asked == 2


async def test_who_hangs_up_does_not_take_the_page_from_others(
    pages: Pages, fleets: Fleets
) -> None:
    first = await begun(pages, fleets)
    second = asyncio.create_task(pages.page("/metrics"))
    await asyncio.sleep(0)
    first.cancel()
    fleets.gate.open.set()
    status, _, _ = await second
    assert status == 200
    assert fleets.asked == 1
