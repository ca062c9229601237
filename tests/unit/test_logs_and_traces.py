"""Log lines carry who and in which trace, and no secrets; traces go on over a traceparent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from chassis import logs, tracing
from chassis.secret import Secret
from chassis.settings import LogSettings, TraceSettings


@pytest.fixture
def _own_logging() -> Iterator[None]:
    """Put logging back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.usefixtures("_own_logging")
def test_a_line_says_which_service_it_is_from_and_hides_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(LogSettings(format="json"), service="gateway", instance="a-1", site="wood")
    structlog.get_logger().info(
        "bus_connected",
        url="nats://bird:song@wood:4222",
        password="song",
        nested={"Authorization": "Bearer abc", "note": "with Bearer abc.def"},
        held=Secret("song"),
        attempts=3,
    )
    [line] = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "bus_connected",
        "level": "info",
        "service": "gateway",
        "instance": "a-1",
        "site": "wood",
        "url": "nats://***@wood:4222",
        "password": "***",
        "nested": {"Authorization": "***", "note": "with Bearer ***"},
        "held": "***",
        "attempts": 3,
    }


@pytest.mark.usefixtures("_own_logging")
def test_lines_of_libraries_come_out_alike_and_quiet_levels_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(LogSettings(format="json"), service="gateway", instance="a-1", site="wood")
    logging.getLogger("some.library").warning("from %s", "elsewhere")
    structlog.get_logger().debug("unheard")
    try:
        raise LookupError("nothing there")
    except LookupError:
        structlog.get_logger().exception("failed")
    foreign, failed = lines(capsys)
    assert (foreign["event"], foreign["logger"], foreign["service"]) == (
        "from elsewhere",
        "some.library",
        "gateway",
    )
    assert "LookupError: nothing there" in failed["exception"]


@pytest.mark.usefixtures("_own_logging")
def test_a_line_names_the_span_that_it_was_written_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(LogSettings(format="json"), service="gateway", instance="a-1", site="wood")
    provider = tracing.configure(TraceSettings(), service="gateway", instance="a-1", site="wood")
    with tracing.span("a request"):
        parent = tracing.traceparent()
        structlog.get_logger().info("inside")
    tracing.close(provider)
    [line] = lines(capsys)
    assert parent is not None
    assert parent.startswith(f"00-{line['trace_id']}-{line['span_id']}-")


def test_a_trace_goes_on_from_one_process_to_the_next(tmp_path: Path) -> None:
    file = tmp_path / "spans" / "trace.jsonl"
    gateway = tracing.configure(
        TraceSettings(file=file), service="gateway", instance="a-1", site="wood"
    )
    with tracing.span("POST /v1/vms", kind="server", attributes={"http.request.method": "POST"}):
        sent = tracing.traceparent()
    tracing.close(gateway)
    scheduler = tracing.configure(
        TraceSettings(file=file), service="scheduler", instance="b-1", site="wood"
    )
    with (
        pytest.raises(LookupError),
        tracing.span("vm.create", kind="consumer", traceparent=sent),
    ):
        raise LookupError("the text may hold a secret")
    tracing.close(scheduler)

    request, command = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    assert sent is not None
    assert sent.startswith(f"00-{request['trace_id']}-{request['span_id']}-")
    assert (command["trace_id"], command["parent_id"]) == (request["trace_id"], request["span_id"])
    assert (request["service"], command["service"]) == ("gateway", "scheduler")
    assert (request["status"], command["status"], command["error"]) == (
        "unset",
        "error",
        "LookupError",
    )


def test_a_malformed_traceparent_begins_a_new_trace() -> None:
    provider = tracing.configure(TraceSettings(), service="gateway", instance="a-1", site="wood")
    with tracing.span("outer"):
        outer = tracing.traceparent()
        with tracing.span("inner", traceparent="00-rubbish"):
            inner = tracing.traceparent()
    tracing.close(provider)
    assert outer is not None
    assert inner is not None
    assert outer.split("-")[1] != inner.split("-")[1]


def test_outside_of_spans_there_is_no_traceparent() -> None:
    assert tracing.traceparent() is None


def test_a_trace_goes_on_through_a_process_that_sends_its_spans_nowhere() -> None:
    came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    provider = tracing.configure(TraceSettings(), service="gateway", instance="a-1", site="wood")
    with tracing.span("outer", traceparent=came) as span:
        outer = tracing.traceparent()
        with tracing.span("inner"):
            inner = tracing.traceparent()
        after = tracing.traceparent()
        recorded = span.is_recording()
    tracing.close(provider)
    assert outer is not None
    assert inner is not None
    trace_ids = {one.split("-")[1] for one in (came, outer, inner)}
    span_ids = {one.split("-")[2] for one in (came, outer, inner)}
    assert (len(trace_ids), len(span_ids), after, recorded) == (1, 3, outer, False)
    assert outer.endswith("-01")


def test_a_trace_that_begins_in_a_silent_process_is_sampled_as_its_settings_say() -> None:
    flags = []
    for ratio in (0.0, 1.0):
        provider = tracing.configure(
            TraceSettings(ratio=ratio), service="gateway", instance="a-1", site="wood"
        )
        with tracing.span("root"):
            flags.append((tracing.traceparent() or "")[-2:])
        tracing.close(provider)
    assert flags == ["00", "01"]
