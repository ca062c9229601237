"""Health: is the process alive, can it do its work, what has it counted.

What belongs here: the endpoints `live`, `ready` and `metrics` of every service, over the bus and, where a
port is set, over HTTP for orchestrators. `live` answers while the event loop turns; `ready` says why not.
"""

from __future__ import annotations

import asyncio
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec import Struct

from chassis.meters import Meters
from chassis.service import Clock, Endpoint
from chassis.settings import HealthSettings
from schemas.problems import Problem, unavailable
from schemas.queries import Empty

REQUEST_TIMEOUT_S = 5.0
REQUEST_BYTES = 8192


class Health(Struct, frozen=True, kw_only=True):
    """How a service is. `missing`: what it waits for, empty when it is ready; `alarms`: what a person
    should look at all the same."""

    service: str
    instance: str
    version: str
    started_at: datetime
    uptime_s: float
    ready: bool
    missing: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()


class Doctor:
    """Knows what readiness depends on; asks at the moment of the question."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        version: str,
        clock: Clock,
        checks: dict[str, Callable[[], bool]],
        meters: Meters,
        alarms: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._service = service
        self._instance = instance
        self._version = version
        self._clock = clock
        self._checks = checks
        self._meters = meters
        self._alarms = alarms
        self._started_at = clock.now()
        self._started = clock.monotonic()

    def health(self) -> Health:
        missing = tuple(name for name, holds in self._checks.items() if not holds())
        return Health(
            service=self._service,
            instance=self._instance,
            version=self._version,
            started_at=self._started_at,
            uptime_s=self._clock.monotonic() - self._started,
            ready=not missing,
            missing=missing,
            alarms=tuple(self._alarms()),
        )

    def endpoints(self) -> list[Endpoint]:
        """`live`, `ready` and `metrics`, wherever the service is asked."""
        return [
            Endpoint(
                name="live",
                description="Answers while the process runs",
                request=Empty,
                handler=self._live,
            ),
            Endpoint(
                name="ready",
                description="Whether the service can do its work; a problem that says what is missing",
                request=Empty,
                handler=self._ready,
            ),
            Endpoint(
                name="metrics",
                description="What the service has counted, as Prometheus text",
                request=Empty,
                handler=self._metrics,
            ),
        ]

    async def _live(self, _request: Empty) -> Health:
        return self.health()

    async def _ready(self, _request: Empty) -> Health | Problem:
        health = self.health()
        return health if health.ready else unavailable("waits for " + ", ".join(health.missing))

    async def _metrics(self, _request: Empty) -> bytes:
        return self._meters.text().encode()

    async def page(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of what an orchestrator asks for."""
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", self._meters.text().encode()
        health = self.health()
        statuses = {"/live": 200, "/ready": 200 if health.ready else 503}
        status = statuses.get(path, 404)
        body = b'{"detail":"not found"}' if status == 404 else msgspec.json.encode(health)
        return status, "application/json", body


class Pages(Protocol):
    """What can be served: by path, a status (200, 404 or 503), a content type and a body."""

    async def page(self, path: str) -> tuple[int, str, bytes]: ...


@asynccontextmanager
async def served(settings: HealthSettings, pages: Pages) -> AsyncIterator[int]:
    """Serve the pages by HTTP while the context lasts; yields the port, 0 where none is wanted."""
    if settings.port == 0:
        yield 0
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await _answer(pages, reader, writer)
        except (OSError, TimeoutError, ValueError, EOFError, asyncio.LimitOverrunError):
            pass  # a client that hung up, dawdled or spoke something else: its own loss
        finally:
            writer.close()

    server = await asyncio.start_server(
        answer, settings.host, settings.port, limit=REQUEST_BYTES, reuse_address=True
    )
    async with server:
        yield settings.port


async def _answer(pages: Pages, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, path, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ", 2)
    if method in ("GET", "HEAD"):
        status, content_type, body = await pages.page(path.partition("?")[0])
    else:
        status, content_type, body = 405, "application/json", b'{"detail":"only GET"}'
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "\r\n",
    ]
    writer.write("\r\n".join(lines).encode() + (b"" if method == "HEAD" else body))
    await writer.drain()


_REASONS = {
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


def main(arguments: list[str]) -> int:
    """`python -m chassis.health URL`: 0 if it answers 200. What a container's health check runs."""
    if len(arguments) != 1 or not arguments[0].startswith(("http://", "https://")):
        sys.stderr.write("usage: python -m chassis.health http://127.0.0.1:PORT/ready\n")
        return 2
    try:
        with urllib.request.urlopen(arguments[0], timeout=REQUEST_TIMEOUT_S) as answer:  # noqa: S310
            sys.stdout.write(answer.read(REQUEST_BYTES).decode() + "\n")
            return 0
    except (urllib.error.URLError, TimeoutError) as error:
        sys.stderr.write(f"{arguments[0]}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
