"""The same metrics that Prometheus scrapes, pushed by OTLP/HTTP: for collectors that cannot scrape.

What belongs here: from families to OpenTelemetry's values, and sending them. A push that fails is not made
up for: the next one tells what is newest then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

import structlog
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from chassis.service import Clock
from chassis.threads import Threads
from chassis.tracing import ExporterMissing
from services.metrics.families import Family
from services.metrics.settings import OtlpSettings

log = structlog.get_logger()

EXPORTER = "opentelemetry.exporter.otlp.proto.http.metric_exporter"
"""The module, and so the logger, of who sends."""
SCHEMA = ""
"""The names are Prometheus', not those of OpenTelemetry's semantic conventions."""
UNSAID = 0
"""When a counter began, nobody knows here."""
NANOSECONDS = 1_000_000_000


class Push:
    """Sends what is told, every so often. Raises ExporterMissing if the extra `otlp` is not installed."""

    def __init__(
        self,
        settings: OtlpSettings,
        *,
        endpoint: str,
        instance: str,
        site: str,
        clock: Clock,
        told: Callable[[], Iterable[Family]],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._told = told
        self._exporter = exporter(settings, endpoint)
        self._complaints = Complaints()
        logging.getLogger(EXPORTER).addFilter(self._complaints)
        self._resource = Resource.create(
            {"service.name": "metrics", "service.instance.id": instance, "vireo.site": site}
        )
        self._threads = Threads(1, name="otlp")

    async def push(self) -> None:
        """For ever. Said is the first push, and then each that goes otherwise than the one before."""
        before: bool | None = None
        while True:
            await self._clock.sleep(self._settings.every_s)
            at = self._clock.now()
            sent = await self._threads.run(partial(self._send, self._told(), at))
            if sent and not before:
                log.info("metrics_pushed")
            if not sent and before is not False:
                log.warning("metrics_not_pushed", reason=self._complaints.first)
            before = sent

    def close(self) -> None:
        self._threads.close()
        self._exporter.shutdown()
        logging.getLogger(EXPORTER).removeFilter(self._complaints)

    def _send(self, told: Iterable[Family], at: datetime) -> bool:
        data = as_otlp(told, resource=self._resource, at=at)
        self._complaints.first = ""
        return self._exporter.export(data) is MetricExportResult.SUCCESS


class Complaints(logging.Filter):
    """Keeps what the exporter logs out of the log: a collector that is away would fill it, each push with
    every one of its retries. The first of a push has the cause, the last only that it gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.first = self.first or record.getMessage()
        return False


def exporter(settings: OtlpSettings, endpoint: str) -> MetricExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise ExporterMissing(
            "otlp.endpoint needs the extra otlp: pip install 'vireo[otlp]'"
        ) from error
    return OTLPMetricExporter(
        endpoint=endpoint,
        timeout=settings.timeout_s,
        max_export_batch_size=settings.batch_points,
    )


def as_otlp(families: Iterable[Family], *, resource: Resource, at: datetime) -> MetricsData:
    """OpenTelemetry's values for what Prometheus would be shown."""
    at_ns = int(at.timestamp() * NANOSECONDS)
    metrics = [
        Metric(
            name=family.metric.name,
            description=family.metric.help,
            unit="",
            data=_data(family, at_ns),
        )
        for family in families
    ]
    scope = ScopeMetrics(scope=InstrumentationScope("vireo"), metrics=metrics, schema_url=SCHEMA)
    return MetricsData(
        resource_metrics=[
            ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url=SCHEMA)
        ]
    )


def _data(family: Family, at_ns: int) -> Gauge | Sum:
    points = [
        NumberDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=UNSAID,
            time_unix_nano=at_ns,
            value=value,
        )
        for labels, value in family.samples
    ]
    if family.metric.kind == "gauge":
        return Gauge(data_points=points)
    return Sum(
        data_points=points,
        aggregation_temporality=AggregationTemporality.CUMULATIVE,
        is_monotonic=True,
    )
