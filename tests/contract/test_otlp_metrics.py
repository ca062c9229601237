"""Metrics pushed by OTLP/HTTP, read as a collector reads them."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource

from chassis.clock import SystemClock
from services.metrics.exposition import told
from services.metrics.model import Fleet
from services.metrics.plane import Plane
from services.metrics.push import Push, as_otlp, exporter
from services.metrics.settings import OtlpSettings
from tests.fixtures.guest_site import until

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FLEET = Fleet(frames={"taken": 3, "garbled": 1})
PLANE = Plane(ready={"gateway": True})


@contextmanager
def collecting(*statuses: int) -> Iterator[tuple[str, list[Any]]]:
    """An endpoint, and what was posted to it. The first requests are answered so, all others with 200."""
    requests: list[Any] = []
    answers = iter(statuses)

    class Desk(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            requests.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(next(answers, 200))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/metrics", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_collector_gets_what_prometheus_would_scrape() -> None:
    data = as_otlp(told(FLEET, PLANE), resource=Resource.create({"vireo.site": "lab"}), at=AT)
    with collecting() as (endpoint, requests):
        sender = exporter(OtlpSettings(batch_points=2), endpoint)
        assert sender.export(data) is MetricExportResult.SUCCESS
        sender.shutdown()
    metrics = [
        metric
        for request in requests
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    frames = {
        point.attributes[0].value.string_value: point.as_double
        for metric in metrics
        if metric.name == "vireo_telemetry_frames_total" and metric.sum.is_monotonic
        for point in metric.sum.data_points
    }
    ready = [metric for metric in metrics if metric.name == "vireo_plane_service_ready"]
    assert len(requests) > 1
    assert frames == {"taken": 3.0, "garbled": 1.0}
    assert [point.as_double for point in ready[0].gauge.data_points] == [1.0]
    assert ready[0].gauge.data_points[0].time_unix_nano == AT.timestamp() * 1e9


def test_a_collector_that_is_away_is_no_more_than_a_failure() -> None:
    with collecting() as (endpoint, _):
        pass
    data = as_otlp(told(FLEET, PLANE), resource=Resource.create(), at=AT)
    sender = exporter(OtlpSettings(timeout_s=0.5), endpoint)
    assert sender.export(data) is MetricExportResult.FAILURE
    sender.shutdown()


def pushing_to(endpoint: str, *, timeout_s: float = 10) -> Push:
    return Push(
        OtlpSettings(every_s=0.01, timeout_s=timeout_s),
        endpoint=endpoint,
        instance="test",
        site="lab",
        clock=SystemClock(),
        told=lambda: told(FLEET, PLANE),
    )


async def test_a_collector_that_goes_and_comes_back_is_said_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with structlog.testing.capture_logs() as logs, collecting(200, 404, 404) as (endpoint, _):
        push = pushing_to(endpoint)
        pushing = asyncio.create_task(push.push())
        await until(lambda: len(logs) == 3)
        pushing.cancel()
        push.close()
    assert [line["event"] for line in logs] == [
        *("metrics_pushed", "metrics_not_pushed", "metrics_pushed")
    ]
    assert "404" in logs[1]["reason"]
    assert not caplog.records


async def test_why_a_collector_is_not_reached_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as (endpoint, _):
        pass
    with structlog.testing.capture_logs() as logs:
        push = pushing_to(endpoint, timeout_s=2)
        pushing = asyncio.create_task(push.push())
        await until(lambda: len(logs) == 1)
        pushing.cancel()
        push.close()
    assert "Connection refused" in logs[0]["reason"]
    assert not caplog.records
