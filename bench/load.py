"""The load on the gateway: HTTP/1.1 on kept connections, with as little of its own as can be.

A general client costs more CPU than the gateway that it asks, on the same cores. What is sent and
answered is what any client sends and gets: one request after another on each connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from deploy.control_plane import ControlPlane

TIMEOUT_S = 120


class Answer(Struct, frozen=True):
    """What the gateway answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Connection:
    """One kept connection to the gateway: one request at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._head = head

    async def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Raises RuntimeError on a refusal."""
        content = b"" if body is None else msgspec.json.encode(body)
        head = f"{method} {path} HTTP/1.1\r\n{self._head}content-length: {len(content)}\r\n\r\n"
        self._writer.write(head.encode() + content)
        async with asyncio.timeout(TIMEOUT_S):
            answer = await self._read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body[:500]!r}")
        return answer

    async def _read(self) -> Answer:
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(status.split()[1]), headers, body)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Clients:
    """So many clients, each on a connection of its own."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections

    @property
    def first(self) -> Connection:
        return self._connections[0]

    async def each(
        self, jobs: Iterable[Callable[[Connection], Awaitable[dict[str, Any]]]]
    ) -> list[dict[str, Any]]:
        """Do every job on whichever client is free; the answers in the order of the jobs."""
        numbered = list(enumerate(jobs))[::-1]
        found: dict[int, dict[str, Any]] = {}

        async def work(connection: Connection) -> None:
            while numbered:
                number, job = numbered.pop()
                found[number] = await job(connection)

        async with asyncio.TaskGroup() as group:
            for connection in self._connections:
                group.create_task(work(connection))
        return [found[number] for number in sorted(found)]


@asynccontextmanager
async def clients(plane: ControlPlane, count: int) -> AsyncIterator[Clients]:
    """Connections to a running control plane, closed at the end."""
    place = urlsplit(plane.url)
    head = (
        f"host: {place.netloc}\r\nauthorization: Bearer {plane.token}\r\n"
        "content-type: application/json\r\naccept: application/json\r\n"
    )
    connections: list[Connection] = []
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            connections.append(Connection(reader, writer, head))
        yield Clients(connections)
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))
