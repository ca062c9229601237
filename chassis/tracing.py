"""Traces: OpenTelemetry spans, carried from process to process as a W3C `traceparent`.

What belongs here: setting it up, and the few words that code needs: `span`, `traceparent`. Where spans go
is a setting: an OTLP collector, a file, or nowhere; the ids travel in any case.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chassis.settings import TraceSettings

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

_KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_w3c = TraceContextTextMapPropagator()
_ids = RandomIdGenerator()


class _Setup(Struct, frozen=True, eq=False):
    """Where this process' spans go. `sends`: they go anywhere at all."""

    provider: TracerProvider
    sampler: TraceIdRatioBased
    sends: bool


_configured: list[_Setup] = []
"""The newest last: OpenTelemetry's own global provider can be set only once in a process."""


class ExporterMissing(Exception):
    """An OTLP endpoint is set, and the extra that speaks OTLP is not installed."""


def configure(settings: TraceSettings, *, service: str, instance: str, site: str) -> TracerProvider:
    """Make spans of this process go where the settings say. Raises ExporterMissing.

    `close` it when the process ends, so that what waits is still sent.
    """
    sampler = TraceIdRatioBased(settings.ratio)
    provider = TracerProvider(
        sampler=ParentBased(sampler),
        resource=Resource.create(
            {"service.name": service, "service.instance.id": instance, "vireo.site": site}
        ),
        shutdown_on_exit=False,
    )
    if settings.file is not None:
        provider.add_span_processor(SimpleSpanProcessor(FileExporter(settings.file)))
    if settings.otlp_endpoint is not None:
        provider.add_span_processor(BatchSpanProcessor(_otlp(settings.otlp_endpoint)))
    sends = settings.file is not None or settings.otlp_endpoint is not None
    _configured.append(_Setup(provider, sampler, sends))
    return provider


def close(provider: TracerProvider) -> None:
    """Send what waits and let go of it."""
    _configured[:] = [setup for setup in _configured if setup.provider is not provider]
    provider.shutdown()


def _otlp(endpoint: str) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ExporterMissing(
            "trace.otlp_endpoint needs the extra otlp: pip install 'vireo[otlp]'"
        ) from error
    exporter: SpanExporter = OTLPSpanExporter(endpoint=endpoint)
    return exporter


def sends() -> bool:
    """Whether spans go anywhere; many of them need not be opened if not."""
    return not _configured or _configured[-1].sends


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    traceparent: str | None = None,
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """Do something inside a span: a child of `traceparent` if given, else of the span we are in.

    An exception marks the span as failed, by its type alone: its text may hold what is nobody's
    business.
    """
    parent = continued_from(traceparent) if traceparent else None
    if _configured and not _configured[-1].sends:
        with _unrecorded(parent, _configured[-1].sampler) as current:
            yield current
        return
    provider = _configured[-1].provider if _configured else trace.get_tracer_provider()
    tracer = provider.get_tracer("vireo")
    with tracer.start_as_current_span(
        name,
        context=parent,
        kind=_KINDS[kind],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


@contextmanager
def _unrecorded(parent: context.Context | None, sampler: TraceIdRatioBased) -> Iterator[Span]:
    """A span that goes nowhere: an id of its own in its parent's trace, and nothing that costs."""
    above = trace.get_current_span(parent).get_span_context()
    own = _below(above) if above.is_valid else _root(sampler)
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(own)))
    try:
        yield trace.get_current_span()
    finally:
        context.detach(token)


def _below(above: SpanContext) -> SpanContext:
    span_id = _ids.generate_span_id()
    return SpanContext(above.trace_id, span_id, False, above.trace_flags, above.trace_state)


def _root(sampler: TraceIdRatioBased) -> SpanContext:
    """The beginning of a trace; others, who do record, heed whether it is sampled."""
    trace_id = _ids.generate_trace_id()
    sampled = sampler.should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(trace_id, _ids.generate_span_id(), False, flags)


def traceparent() -> str | None:
    """The `traceparent` to send along from here; None outside of any span."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"


@lru_cache(maxsize=1024)
def continued_from(traceparent: str) -> context.Context:
    """The context of a `traceparent` received; one that is malformed starts a new trace."""
    return _w3c.extract({"traceparent": traceparent}, context=context.Context())


class FileExporter(SpanExporter):
    """Spans as JSON lines, each written whole, so that several processes may share one file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            for finished in spans:
                self._file.write(msgspec.json.encode(_record(finished), enc_hook=str) + b"\n")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()


def _record(finished: ReadableSpan) -> dict[str, object]:
    own = finished.get_span_context()
    parent = finished.parent
    return {
        "trace_id": f"{own.trace_id:032x}" if own else "",
        "span_id": f"{own.span_id:016x}" if own else "",
        "parent_id": f"{parent.span_id:016x}" if parent else None,
        "name": finished.name,
        "kind": finished.kind.name.lower(),
        "service": finished.resource.attributes.get("service.name"),
        "instance": finished.resource.attributes.get("service.instance.id"),
        "start_ns": finished.start_time,
        "end_ns": finished.end_time,
        "status": finished.status.status_code.name.lower(),
        "error": finished.status.description,
        "attributes": dict(finished.attributes or {}),
    }
