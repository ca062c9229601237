"""Lists over HTTP, beside the same bytes sent by an application that has them at hand and does no more.

Both are asked by the same client, in turn, on connections that are kept. Both are served by uvicorn with
httptools on uvloop, so that what is compared is what the gateway does.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
import uvicorn
import uvloop
from msgspec import Struct
from msgspec.structs import replace

from bench.repeated import Repeating, Took, Wanted, repeating
from bench.report import Row, Target, row
from bench.servers import postgres_of
from deploy.control_plane import ControlPlane
from schemas.resources import Page

ROUNDS = 21
FLEET = 1_000
"""VMs of a list."""
PAGE = 1_000
"""As many as the gateway gives at once, unless it is told otherwise."""
IN_TURN = 25
"""Lists of a round by one client; the middle one counts."""
CLIENTS = 8
EACH = 25
"""Lists of a round by each of several clients."""
CHANGE = "update vms set updated_at = updated_at where id = (select id from vms limit 1)"
"""To the inventory it is a VM that changed: it does not compare."""
OVER_HTTP = Target("at least", 0.5)


class Round(Struct, frozen=True, kw_only=True):
    """Lists per second: the gateway's, and the application's that has them at hand."""

    one: float
    one_at_hand: float
    several: float
    several_at_hand: float
    changed: float


def list_rows(plane: ControlPlane) -> Iterator[Row]:
    """Requires that there are as many VMs as a list has. Two rows carry the target, for both are meant by
    lists per second: what one client gets, and what many get together."""
    rounds = asyncio.run(measured(plane))
    at_hand = "nothing changed between, against raw ASGI that sends the same bytes"
    yield row(
        f"list of {FLEET} VMs",
        [each.one for each in rounds],
        "/s",
        baselines=[each.one_at_hand for each in rounds],
        target=OVER_HTTP,
        note=f"over HTTP, request after request on one connection, {at_hand}",
    )
    yield row(
        f"list of {FLEET} VMs, {CLIENTS} clients",
        [each.several for each in rounds],
        "/s",
        baselines=[each.several_at_hand for each in rounds],
        target=OVER_HTTP,
        note=f"the same, {CLIENTS} at a time",
    )
    yield row(
        f"list of {FLEET} VMs, a VM changed",
        [each.changed for each in rounds],
        "/s",
        baselines=[each.one_at_hand for each in rounds],
        note="request after request, a VM changed before each",
    )


async def measured(plane: ControlPlane, *, rounds: int = ROUNDS) -> list[Round]:
    headers = {"Authorization": f"Bearer {plane.token}", "Accept": "application/json"}
    pages = _pages(plane.url, headers)
    ours = Wanted(
        url=plane.url, paths=tuple(path for path, _ in pages), headers=tuple(headers.items())
    )
    with repeating() as client, _at_hand([body for _, body in pages]) as url:
        theirs = replace(ours, url=url, paths=tuple(f"/{number}" for number in range(len(pages))))
        async with postgres_of(plane) as postgres:
            await _round(client, ours, theirs, postgres)  # connections are made, and pages kept
            return [await _round(client, ours, theirs, postgres) for _ in range(rounds)]


async def _round(
    client: Repeating, ours: Wanted, theirs: Wanted, postgres: asyncpg.Connection
) -> Round:
    one, one_at_hand = (client.ask(replace(each, times=IN_TURN)) for each in (ours, theirs))
    several, several_at_hand = (
        client.ask(replace(each, clients=CLIENTS, times=EACH)) for each in (ours, theirs)
    )
    await postgres.execute(CHANGE)
    changed = client.ask(ours)
    return Round(
        one=_per_s_in_turn(one),
        one_at_hand=_per_s_in_turn(one_at_hand),
        several=len(several.each_s) / several.whole_s,
        several_at_hand=len(several_at_hand.each_s) / several_at_hand.whole_s,
        changed=_per_s_in_turn(changed),
    )


def _per_s_in_turn(took: Took) -> float:
    """By the middle one: what is measured is the list, not who else was at work."""
    return 1 / statistics.median(took.each_s)


def _pages(url: str, headers: dict[str, str]) -> list[tuple[str, bytes]]:
    """The list as it is walked: as many pages as it takes, since a page has a largest size."""
    found: list[tuple[str, bytes]] = []
    left, after = FLEET, ""
    while left > 0:
        path = f"/v1/vms?limit={min(left, PAGE)}{after}"
        body = _get(url, path, headers)
        page = msgspec.json.decode(body, type=Page)
        found.append((path, body))
        left -= len(page.items)
        if page.next is None and left > 0:
            raise RuntimeError(f"{FLEET - left} VMs are there")
        after = f"&after={page.next}"
    return found


def _get(url: str, path: str, headers: dict[str, str]) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{answer.status} {path}: {body[:200]!r}")
    return body


@contextmanager
def _at_hand(bodies: list[bytes]) -> Iterator[str]:
    """A process that only sends; it listens at the address that is given."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_send, args=(there, bodies), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def _send(told: Connection, bodies: list[bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = bodies[int(scope["path"][1:])]
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})

    listening = socket.create_server(("127.0.0.1", 0))
    told.send(listening.getsockname()[1])
    config = uvicorn.Config(app, http="httptools", lifespan="off", ws="none", log_config=None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))
