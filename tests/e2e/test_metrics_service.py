"""The metrics service at work: frames in, readings and a scrape out, on either bus."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import msgspec
import pytest

from chassis.bus import Bus, ConsumerConfig, Outgoing
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.micro import ask
from chassis.run import running
from chassis.work import Work
from schemas import events, subjects
from schemas.ids import uuid7
from schemas.problems import Problem
from schemas.queries import GetHost, GetVmReading
from schemas.telemetry import HostFrame, HostReading, HostSample, VmColumns, VmReading
from schemas.wire import encode
from services.metrics.handlers import build
from services.metrics.settings import MetricsSettings, PrometheusSettings, WatchSettings

PATIENCE_S = 10.0
TICK_S = 0.02
VM = uuid7(1_700_000_000_000, b"0123456789")
FRAME = HostFrame(
    host="h1",
    site="lab",
    at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    sequence=1,
    interval_s=5.0,
    sample=HostSample(cpu_busy=0.5),
    vms=VmColumns(ids=(VM,), state=("running",), cpus=(2,)),
)
SUBJECT = subjects.telemetry(site="lab", host="h1")


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
        return free


@pytest.fixture
async def metrics(bus: Bus, port: int, unique: str) -> AsyncIterator[Work]:
    settings = MetricsSettings(
        prometheus=PrometheusSettings(port=port), watch=WatchSettings(every_s=0.1), stale_s=0.5
    )
    async with running("metrics", settings, build, bus=bus, make_streams=False) as work:
        async with asyncio.timeout(PATIENCE_S):
            while not work.doctor.health().ready:
                await asyncio.sleep(TICK_S)
        yield work


async def host(bus: Bus) -> HostReading | Problem:
    answer = await ask(bus, "metrics", "host", GetHost(host="h1"), timeout_s=5)
    return msgspec.json.decode(answer, type=HostReading) if isinstance(answer, bytes) else answer


async def told(bus: Bus) -> HostReading:
    """The frame, told until it is heard: telemetry may be lost."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await bus.send(SUBJECT, encode(FRAME))
            reading = await host(bus)
            if isinstance(reading, HostReading):
                return reading
            await asyncio.sleep(TICK_S)


async def test_the_newest_reading_is_answered_and_then_forgotten(bus: Bus, metrics: Work) -> None:
    reading = await told(bus)
    assert (reading.sample, reading.vms) == (FRAME.sample, 1)
    answer = await ask(bus, "metrics", "vm", GetVmReading(vm=VM), timeout_s=5)
    assert isinstance(answer, bytes)
    assert msgspec.json.decode(answer, type=VmReading).state == "running"
    async with asyncio.timeout(PATIENCE_S):
        while not isinstance(gone := await host(bus), Problem):
            await asyncio.sleep(TICK_S)
    assert (gone.status, gone.detail) == (404, "There is no telemetry of host 'h1'.")


async def test_garbled_frames_are_counted_and_stop_nothing(
    bus: Bus, metrics: Work, port: int
) -> None:
    for raw in (b"\xff", b"{}", encode(FRAME)):
        await bus.send(subjects.telemetry(site="lab", host="h2"), raw)
    await told(bus)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        scraped = await client.get("/metrics")
        elsewhere = await client.get("/")
    assert scraped.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'vireo_telemetry_frames_total{outcome="garbled"} 3' in scraped.text
    assert 'vireo_host_cpu_busy_ratio{host="h1",site="lab"} 0.5' in scraped.text
    assert elsewhere.status_code == 404


async def test_what_waits_and_who_does_not_answer_is_scraped_too(
    bus: Bus, metrics: Work, port: int
) -> None:
    await ensure_streams(bus, SystemClock())
    durable = ConsumerConfig(stream=subjects.EVENTS, name="slow", description="A test's")
    await bus.ensure_consumer(durable)
    subject = subjects.event(events.HostReturned, site="lab", source="scheduler", id="h1")
    await bus.publish(Outgoing(subject=subject, data=b"{}"))
    wanted = (
        'vireo_plane_messages_behind{stream="EVENTS",consumer="slow"} 1',
        'vireo_plane_service_ready{service="inventory"} 0',
        "vireo_plane_dead_letters_total 0",
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        async with asyncio.timeout(PATIENCE_S):
            scraped = ""
            while not all(line in scraped for line in wanted):
                await asyncio.sleep(TICK_S)
                scraped = (await client.get("/metrics")).text
