"""Counting, and what a service says of its health."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest

from chassis import health
from chassis.clock import ManualClock
from chassis.health import Doctor, Health
from chassis.meters import Meter, Meters
from chassis.settings import HealthSettings
from schemas.problems import Problem
from schemas.queries import Empty

START = datetime(2026, 1, 1, tzinfo=UTC)


def doctor(checks: dict[str, bool], meters: Meters | None = None) -> Doctor:
    return Doctor(
        service="gateway",
        instance="a-1",
        version="1.0.0",
        clock=ManualClock(START),
        checks={name: partial(bool, holds) for name, holds in checks.items()},
        meters=meters or Meters(),
    )


def test_meters_are_read_as_prometheus_text() -> None:
    meters = Meters()
    for seconds in (0.0005, 0.3, 99.0):
        meters.handled(consumer='sched"uler', outcome="done", seconds=seconds)
    meters.watch("vireo_ready", lambda: 1.0)
    text = meters.text()
    assert "# TYPE vireo_messages_handled_total counter\n" in text
    assert 'vireo_messages_handled_total{consumer="sched\\"uler",outcome="done"} 3\n' in text
    assert 'vireo_message_handling_seconds_bucket{consumer="sched\\"uler",le="0.001"} 1\n' in text
    assert 'vireo_message_handling_seconds_bucket{consumer="sched\\"uler",le="0.5"} 2\n' in text
    assert 'vireo_message_handling_seconds_bucket{consumer="sched\\"uler",le="+Inf"} 3\n' in text
    assert 'vireo_message_handling_seconds_count{consumer="sched\\"uler"} 3\n' in text
    assert "\nvireo_ready 1\n" in text


def test_a_meter_that_is_not_listed_or_has_other_labels_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Meters().count("vireo_unheard_of_total")
    with pytest.raises(ValueError, match="with the labels"):
        Meters().count("vireo_messages_handled_total", consumer="x")


def test_counters_stay_exact_when_they_grow_big() -> None:
    meters = Meters()
    meters.count("vireo_messages_handled_total", 12_345_678, consumer="a", outcome="b")
    assert 'vireo_messages_handled_total{consumer="a",outcome="b"} 12345678\n' in meters.text()


async def test_a_service_that_waits_for_something_says_for_what() -> None:
    ailing = doctor({"bus": False, "service": False, "endpoints": True})
    endpoints = {endpoint.name: endpoint for endpoint in ailing.endpoints()}
    answer = await endpoints["ready"].handler(Empty())
    assert isinstance(answer, Problem)
    assert (answer.status, answer.detail) == (503, "waits for bus, service")
    alive = await endpoints["live"].handler(Empty())
    assert alive == Health(
        service="gateway",
        instance="a-1",
        version="1.0.0",
        started_at=START,
        uptime_s=0.0,
        ready=False,
        missing=("bus", "service"),
    )


async def test_orchestrators_ask_by_http() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with health.served(HealthSettings(port=port), doctor({"bus": True})):
        status, body = await http("GET /ready HTTP/1.1", port)
        assert (status, msgspec.json.decode(body)["ready"]) == (200, True)
        assert (await http("GET /metrics HTTP/1.1", port))[0] == 200
        assert (await http("GET /else HTTP/1.1", port))[0] == 404
        assert (await http("POST /ready HTTP/1.1", port))[0] == 405
        assert await asyncio.to_thread(health.main, [f"http://127.0.0.1:{port}/live"]) == 0
        assert await asyncio.to_thread(health.main, [f"http://127.0.0.1:{port}/else"]) == 1
    async with health.served(HealthSettings(port=port), doctor({"bus": False})):
        assert (await http("GET /ready HTTP/1.1", port))[0] == 503
    assert health.main([]) == 2


async def test_rubbish_on_the_health_port_harms_nobody() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with health.served(HealthSettings(port=port), doctor({"bus": True})):
        for rubbish in (b"\xff\xfe\r\n\r\n", b"x\r\n\r\n", b"x" * 100_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(rubbish)
            writer.write_eof()
            await reader.read()
            writer.close()
        assert (await http("GET /live HTTP/1.1", port))[0] == 200


async def http(line: str, port: int) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line}\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def test_a_services_own_counters_are_asked_for_when_they_are_read() -> None:
    counts = {"taken": 1.0}
    help_text = "Frames."
    meters = Meters(
        {"vireo_frames_total": Meter(kind="counter", help=help_text, labels=("outcome",))}
    )
    meters.watch_each("vireo_frames_total", lambda: counts)
    counts["flood"] = 3.0
    assert 'vireo_frames_total{outcome="flood"} 3\n' in meters.text()
    assert meters.value("vireo_frames_total", outcome="taken") == 1
