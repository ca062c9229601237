"""The gauges: telemetry from the bus into the rings, a minute's roll-up into Postgres, a graph out again.

The metrics service's parts run in this process, on one core; NATS, Postgres and whoever speaks are
processes of their own. Figures are CPU time, so that what else the machine does matters little.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from bench.metrics_load import START, TICK_S, samples_of, vm_id
from bench.report import Row, Target, row
from chassis.clock import ManualClock
from chassis.ids import SystemIds
from chassis.nats import connect
from chassis.nats.settings import NatsSettings
from chassis.postgres import PostgresSettings
from chassis.postgres import connect as connect_postgres
from chassis.service import Rig
from schemas.metrics import GetHistory
from services.metrics.entries import summed_up
from services.metrics.handlers import Metrics
from services.metrics.levels import DAY_S, LEVELS
from services.metrics.newest import Newest
from services.metrics.past import Past
from services.metrics.series import VM_SERIES
from services.metrics.settings import HistorySettings, MetricsSettings, RingsSettings
from services.metrics.store import entity
from tests.fixtures.nats import NatsServer
from tests.fixtures.postgres import PostgresServer

ROUNDS = 3
HOSTS, VMS, TICKS = 1000, 20, 12
"""A minute of the fleet that the second figure is about."""
CROWD_HOSTS, CROWD_VMS, CROWD_TICKS = 100, 100, 50
YEAR_VMS = 50
GRAPHS = 20
PATIENCE_S = 300.0

INTO_RINGS = Target("at least", 1_000_000)
OF_A_CORE = Target("at most", 0.5)
GRAPH_MS = Target("at most", 20)

SETTINGS = MetricsSettings(
    rings=RingsSettings(skew_s=3600), history=HistorySettings(keep=True), max_hosts=10_000
)


class Site(Struct, frozen=True, kw_only=True):
    """The metrics service's parts on a real bus; the clock stands still."""

    past: Past
    newest: Newest
    clock: ManualClock
    taking: asyncio.Task[None]


def run(directory: Path) -> Iterator[Row]:
    nats = NatsServer(directory)
    nats.start()
    postgres = PostgresServer(directory)
    postgres.start()
    try:
        database = postgres.database("metrics")
        crowds = [
            asyncio.run(_into_rings(nats, CROWD_HOSTS, CROWD_VMS, CROWD_TICKS))
            for _ in range(ROUNDS)
        ]
        yield row(
            "telemetry into the rings, 100 VMs a host",
            crowds,
            "samples/s",
            target=INTO_RINGS,
            note="through the bus, per second of one core",
        )
        minutes = [asyncio.run(_minute(nats, database)) for _ in range(ROUNDS)]
        yield row(
            "telemetry into the rings, 20 VMs a host",
            [each[0] for each in minutes],
            "samples/s",
            target=INTO_RINGS,
            note="the same",
        )
        yield row(
            "1,000 hosts of 20 VMs at a 5 s tick",
            [each[1] for each in minutes],
            "cores",
            target=OF_A_CORE,
            note="a minute's frames and its roll-up into Postgres",
        )
        yield row(
            "a year of one VM, one page",
            asyncio.run(_year(nats, database)),
            "ms",
            target=GRAPH_MS,
            note="asked of Postgres, cut into 293 steps, as JSON",
        )
    finally:
        postgres.stop()
        nats.kill()


@asynccontextmanager
async def _site(nats: NatsServer) -> AsyncIterator[Site]:
    clock = ManualClock(START)
    settings = NatsSettings(urls=(nats.url,))
    async with connect(settings, name="bench") as bus:
        rig = Rig(
            service="metrics", instance="bench", site="bench", bus=bus, clock=clock, ids=SystemIds()
        )
        past = Past(SETTINGS, rig)
        newest = Newest(max_hosts=SETTINGS.max_hosts, stale_s=SETTINGS.stale_s)
        work = Metrics(newest, past, clock).take_frames(bus, unread=1_000_000)
        taking = asyncio.create_task(work)
        await asyncio.sleep(0.2)
        try:
            yield Site(past=past, newest=newest, clock=clock, taking=taking)
        finally:
            taking.cancel()
            await asyncio.wait([taking])


async def _flood(site: Site, nats: NatsServer, hosts: int, vms: int, ticks: int) -> float:
    """CPU seconds that it took to take all frames."""
    numbers = (str(number) for number in (nats.port, hosts, vms, ticks))
    began = time.process_time()
    said = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.metrics_load", *numbers
    )
    async with asyncio.timeout(PATIENCE_S):
        while site.newest.fleet().frames["taken"] < hosts * ticks:
            if site.taking.done():
                site.taking.result()
            await asyncio.sleep(0.05)
    spent = time.process_time() - began
    await said.wait()
    return spent


async def _into_rings(nats: NatsServer, hosts: int, vms: int, ticks: int) -> float:
    async with _site(nats) as site:
        spent = await _flood(site, nats, hosts, vms, ticks)
    return samples_of(vms) * hosts * ticks / spent


async def _minute(nats: NatsServer, database: PostgresSettings) -> tuple[float, float]:
    """Samples per CPU second into the rings; cores that a minute of the fleet keeps busy."""
    async with _site(nats) as site, connect_postgres(database, name="bench") as postgres:
        store = await site.past.use(postgres)
        spent = await _flood(site, nats, HOSTS, VMS, TICKS)
        await site.clock.advance(TICKS * TICK_S)
        began = time.process_time()
        await site.past.recorder.finish(store)
        stored = time.process_time() - began
    return samples_of(VMS) * HOSTS * TICKS / spent, (spent + stored) / (TICKS * TICK_S)


async def _year(nats: NatsServer, database: PostgresSettings) -> list[float]:
    """Milliseconds of each graph; every VM has a year behind it."""
    async with _site(nats) as site, connect_postgres(database, name="bench") as postgres:
        store = await site.past.use(postgres)
        now_s = int(START.timestamp())
        level = LEVELS[2]
        chance = np.random.default_rng(1)
        vms = [entity("vm", vm_id(1_000_000, number)) for number in range(YEAR_VMS)]
        for at_s in range(now_s - 365 * DAY_S, now_s, level.step_s):
            values = chance.random((2, YEAR_VMS, len(VM_SERIES)), dtype=np.float32) * 1e9
            told = summed_up(at_s - at_s % level.step_s, values)
            rows = {vm: told[number : number + 1].tobytes() for number, vm in enumerate(vms)}
            await store.append(level, at_s - at_s % level.step_s, rows)
        return [await _graph(site.past, number, now_s) for number in range(GRAPHS)]


async def _graph(past: Past, number: int, now_s: int) -> float:
    query = GetHistory(
        vm=vm_id(1_000_000, number % YEAR_VMS), since=now_s - 365 * DAY_S, until=now_s
    )
    began = time.perf_counter()
    msgspec.json.encode(await past.history(query))
    return (time.perf_counter() - began) * 1000
