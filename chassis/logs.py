"""Logs: structlog events with fields, to standard error; secrets taken out on the way.

What belongs here: how a log line comes about. Code elsewhere says `structlog.get_logger()` and an event
with fields (`vm_placed`, `host=…`), which goes straight to the stream. Lines of other libraries (standard
`logging`) come out alike.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
import structlog
from opentelemetry import trace
from structlog.types import EventDict, Processor, WrappedLogger

from chassis.secret import HIDDEN, Secret
from chassis.settings import LogSettings

SECRET_NAME = re.compile(
    r"(password|passwd|secret|token|authorization|cookie|credential|seed)", re.I
)
USER_INFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/@\s]*:[^/@\s]*@", re.I)
BEARER = re.compile(r"(?P<scheme>bearer\s+)[a-z0-9._~+/=-]+", re.I)
DEPTH = 6
"""How deep values are searched for secrets; what lies deeper is shown as its type's name only."""

NOISY = ("uvicorn.access", "uvicorn.error", "nats", "httpx", "httpcore", "asyncio")
"""Libraries of which only warnings are of interest."""


def configure(settings: LogSettings, *, service: str, instance: str, site: str) -> None:
    """Send every log line of the process to standard error, in the chosen form."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Fixed({"service": service, "instance": instance, "site": site}),
        add_trace,
        structlog.processors.format_exc_info,
        scrub,
    ]
    rendering = _rendering(settings)
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    _route_standard_logging(level, shared, rendering)


def _route_standard_logging(
    level: int, shared: list[Processor], rendering: list[Processor]
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _rendering(settings: LogSettings) -> list[Processor]:
    terminal = sys.stderr.isatty()
    if settings.format == "json" or (settings.format == "auto" and not terminal):
        return [structlog.processors.JSONRenderer(serializer=_to_json)]
    return [for_people, structlog.dev.ConsoleRenderer(colors=terminal)]


def _to_json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


class _Fixed:
    """Fields that every line carries."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**self._fields, **event}


def for_people(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Without what is the same on each line: whoever sits before a terminal knows what runs there."""
    return {name: value for name, value in event.items() if name not in ("instance", "site")}


def add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The ids of the span in which the line was written, so that logs and traces find each other."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def scrub(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide what is secret by its name or by its form."""
    return {key: _scrubbed(key, value, DEPTH) for key, value in event.items()}


def _scrubbed(name: str, value: Any, depth: int) -> Any:
    if isinstance(value, str) and not _is_secret(name):
        return _without_secrets(value)
    if isinstance(value, Secret) or (isinstance(value, str | bytes) and _is_secret(name)):
        return HIDDEN
    if depth == 0:
        return type(value).__name__
    if isinstance(value, Mapping):
        return {key: _scrubbed(str(key), inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(name, inner, depth - 1) for inner in value]
    return value


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return SECRET_NAME.search(name) is not None


def _without_secrets(text: str) -> str:
    """Nearly every text has neither form in it, and is told apart at little cost."""
    if "@" in text:
        text = USER_INFO.sub(rf"\g<scheme>{HIDDEN}@", text)
    if "bearer" in text.lower():
        text = BEARER.sub(r"\g<scheme>" + HIDDEN, text)
    return text
