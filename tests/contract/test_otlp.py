"""Traces sent by OTLP/HTTP, read as a collector reads them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from chassis import tracing
from chassis.settings import TraceSettings


class Collector:
    """Keeps what is posted to `/v1/traces`."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.endpoint = ""

    @property
    def spans(self) -> dict[str, SpanMessage]:
        return {
            span.name: span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    @property
    def resources(self) -> list[dict[str, str]]:
        return [
            {pair.key: pair.value.string_value for pair in spans.resource.attributes}
            for request in self.requests
            for spans in request.resource_spans
        ]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Desk(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def test_spans_reach_the_collector_with_who_said_them_and_what_they_follow() -> None:
    with collecting() as collector:
        settings = TraceSettings(otlp_endpoint=collector.endpoint)
        provider = tracing.configure(settings, service="scheduler", instance="a-1", site="wood")
        try:
            with tracing.span("outer", kind="server"):
                context = tracing.traceparent()
                with tracing.span("inner", kind="client"):
                    pass
        finally:
            tracing.close(provider)

    outer, inner = collector.spans["outer"], collector.spans["inner"]
    assert context is not None
    assert context.startswith(f"00-{outer.trace_id.hex()}-{outer.span_id.hex()}-")
    assert (inner.trace_id, inner.parent_span_id) == (outer.trace_id, outer.span_id)
    assert (outer.kind, inner.kind) == (SpanMessage.SPAN_KIND_SERVER, SpanMessage.SPAN_KIND_CLIENT)
    said_by = collector.resources[0]
    expected = {"service.name": "scheduler", "service.instance.id": "a-1", "vireo.site": "wood"}
    assert expected.items() <= said_by.items()
