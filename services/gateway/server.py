"""uvicorn inside the service's own TaskGroup: it listens until cancelled, then ends what is in hand.

What belongs here: the socket and the server's life. Signals are `chassis.run`'s, so uvicorn gets none.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from litestar.types import ASGIApp

from services.gateway.desk import Desk
from services.gateway.protocol import BoundedHttp
from services.gateway.settings import GatewaySettings

log = structlog.get_logger()

BACKLOG = 1024
SPARE_S = 1
"""The server gives up on stragglers so long before the process gives up on the server."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(settings: GatewaySettings) -> socket.socket:
    """The socket to serve on. Raises OSError if the address is taken or not ours.

    It says IPPROTO_TCP, because asyncio switches Nagle's delay off for sockets that say so only.
    """
    found = socket.getaddrinfo(
        settings.address,
        settings.port,
        type=socket.SOCK_STREAM,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_PASSIVE,
    )
    family, kind, protocol, _, place = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def url_of(listening: socket.socket, settings: GatewaySettings) -> str:
    """Where the gateway is to be found."""
    address, port = listening.getsockname()[:2]
    scheme = "https" if settings.tls.certificate_file is not None else "http"
    return f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}"


async def serve(app: ASGIApp, listening: socket.socket, desk: Desk) -> None:
    """Serve until cancelled; then take nothing new, end the streams, finish what is in hand."""
    server = _Server(_config(app, desk.settings))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        log.info("gateway_listening", url=url_of(listening, desk.settings))
        await asyncio.shield(serving)
        raise RuntimeError("the HTTP server ended by itself")
    except asyncio.CancelledError:
        desk.stopping.set()
        server.should_exit = True
        await serving
        raise
    finally:
        listening.close()


def _config(app: ASGIApp, settings: GatewaySettings) -> uvicorn.Config:
    tls = settings.tls
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        http=BoundedHttp,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.limits.connections,
        h11_max_incomplete_event_size=settings.limits.header_bytes,
        # uvicorn's 5 s cut off clients that were about to use their connection again.
        timeout_keep_alive=settings.limits.idle_s,
        timeout_graceful_shutdown=max(1, int(settings.grace_s) - SPARE_S),
        ssl_certfile=tls.certificate_file,
        ssl_keyfile=tls.key_file,
    )
