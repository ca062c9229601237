"""The metrics service at work under what should not happen: nonsense, and an end in the middle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import msgspec

from chassis.bus import Bus
from chassis.clock import SystemClock
from chassis.memory_bus import memory_bus
from chassis.micro import ask
from chassis.postgres import PostgresSettings
from chassis.run import running
from chassis.work import Work
from schemas import subjects
from schemas.ids import uuid7
from schemas.metrics import GetHistory, Metrics
from schemas.problems import Problem
from schemas.queries import GetHost
from schemas.telemetry import HostFrame, HostReading, HostSample, VmColumns
from schemas.wire import encode
from services.metrics.handlers import build
from services.metrics.settings import HistorySettings, MetricsSettings, PrometheusSettings
from tests.fixtures.gateway import free_port

PATIENCE_S = 30.0
TICK_S = 0.02
VM = uuid7(1_700_000_000_000, b"0123456789")
SUBJECT = subjects.telemetry(site="lab", host="h1")
GARBLED = 10_000


def frame(sequence: int) -> HostFrame:
    return HostFrame(
        host="h1",
        site="lab",
        at=datetime.now(UTC),
        sequence=sequence,
        interval_s=5.0,
        sample=HostSample(load1=1.5),
        vms=VmColumns(ids=(VM,), cpus=(2,), cpu_time_ns=(sequence,)),
    )


@asynccontextmanager
async def serving(bus: Bus, history: HistorySettings, port: int = 0) -> AsyncIterator[Work]:
    settings = MetricsSettings(
        prometheus=PrometheusSettings(port=port), history=history, unread_frames=2 * GARBLED
    )
    async with running("metrics", settings, build, bus=bus, make_streams=False) as work:
        async with asyncio.timeout(PATIENCE_S):
            while not work.doctor.health().ready:
                await asyncio.sleep(TICK_S)
        yield work


async def told(bus: Bus) -> HostReading:
    """A frame, told until it is heard."""
    async with asyncio.timeout(PATIENCE_S):
        for sequence in range(1, 1_000_000):
            await bus.send(SUBJECT, encode(frame(sequence)))
            answer = await ask(bus, "metrics", "host", GetHost(host="h1"), timeout_s=5)
            if isinstance(answer, bytes):
                return msgspec.json.decode(answer, type=HostReading)
            await asyncio.sleep(TICK_S)
    raise AssertionError("never heard")


async def history(bus: Bus) -> Metrics | Problem:
    now_s = datetime.now(UTC).timestamp()
    query = GetHistory(host="h1", since=now_s - 7200, until=now_s + 60, step_s=60)
    answer = await ask(bus, "metrics", "history", query, timeout_s=5)
    return msgspec.json.decode(answer, type=Metrics) if isinstance(answer, bytes) else answer


def nonsense(chance: random.Random) -> bytes:
    """Bytes that are no frame, or one that was hurt on its way, or says what cannot be."""
    whole = encode(frame(1))
    broken = bytearray(whole)
    broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
    kinds = (
        chance.randbytes(chance.randrange(200)),
        whole[: chance.randrange(len(whole))],
        whole.replace(b'"h1"', b'"h2"'),
        whole.replace(b"[2]", b"[2,3]"),
        whole.replace(b"[2]", b"[" + b"9" * 400 + b"]"),
        whole.replace(b"[2]", b'["two"]'),
        b"[" * 10_000,
        bytes(broken).replace(b"lab", b"LAB"),
    )
    return chance.choice(kinds)


async def test_ten_thousand_garbled_frames_are_counted_and_dropped_and_nothing_else() -> None:
    chance = random.Random(20_260_301)
    port = free_port()
    async with memory_bus(SystemClock()) as bus, serving(bus, HistorySettings(), port) as work:
        for _ in range(GARBLED):
            await bus.send(SUBJECT, nonsense(chance))
        reading = await told(bus)
        assert (reading.sample, reading.vms) == (HostSample(load1=1.5), 1)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            scraped = (await client.get("/metrics")).text
        assert f'vireo_telemetry_frames_total{{outcome="garbled"}} {float(GARBLED)}\n' in scraped
        answer = await history(bus)
        assert isinstance(answer, Metrics)
        assert set(answer.series) == {"load1", "vms_running"}
        assert work.doctor.health().ready


async def test_what_was_told_before_the_end_is_there_after_it(
    postgres_database: PostgresSettings,
) -> None:
    kept = HistorySettings(keep=True, postgres=postgres_database)

    async def stored(bus: Bus) -> Metrics:
        async with asyncio.timeout(PATIENCE_S):
            while isinstance(answer := await history(bus), Problem):
                assert answer.status == 503
                await asyncio.sleep(TICK_S)
        return answer

    async with memory_bus(SystemClock()) as bus:
        async with serving(bus, kept):
            await told(bus)
            await stored(bus)
        async with serving(bus, kept):
            found = await stored(bus)
    assert {value for value in found.series["load1"].max if value is not None} == {1.5}
