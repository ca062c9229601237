"""One attempt to reach one server: settings in, a connected client out.

What doesn't belong here: what to do when it fails or ends (`link.py`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from chassis.nats.client import FastClient
from chassis.nats.settings import NatsSettings


async def dial(
    url: str,
    *,
    name: str,
    settings: NatsSettings,
    on_error: Callable[[Exception], Awaitable[None]],
    closed: asyncio.Event,
) -> FastClient:
    """Connect once. Raises OSError, nats.errors.Error or TimeoutError.

    `closed` is set when the connection ends. The client may neither reconnect nor buffer by itself: a
    lost connection is replaced by a new one, so that a restarted server, an expired login and the
    first start are one path.
    """
    client = FastClient()

    async def on_closed() -> None:
        closed.set()

    try:
        await client.connect(
            [url],
            name=name,
            error_cb=on_error,
            closed_cb=on_closed,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=settings.dial_timeout_s,  # type: ignore[arg-type]
            ping_interval=settings.ping_interval_s,  # type: ignore[arg-type]
            max_outstanding_pings=2,
            inbox_prefix=settings.inbox_prefix,
            pending_size=-1,
            **_credentials(settings),
            **_tls(settings),
        )
    except nats.errors.NoServersError as error:
        await abandon(client)
        raise client.last_error or error from error
    except BaseException:
        await abandon(client)
        raise
    return client


async def abandon(client: Client) -> None:
    """Close a client, whatever state it is in; nothing of it stays behind.

    A client whose socket breaks while it closes leaves its subscriptions' tasks running, so they are
    cancelled here.
    """
    leftovers = [sub._wait_for_msgs_task for sub in list(client._subs.values())]
    # Half open, or never opened: then there is nothing more to close.
    with suppress(OSError, nats.errors.Error, RuntimeError, AssertionError):
        await client.close()
    for task in leftovers:
        if task is not None:
            task.cancel()
    client._subs.clear()


def _credentials(settings: NatsSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.user:
        options["user"] = settings.user
    if settings.password_file:
        options["password"] = _secret(settings.password_file)
    if settings.token_file:
        options["token"] = _secret(settings.token_file)
    if settings.credentials_file:
        options["user_credentials"] = settings.credentials_file
    if settings.nkey_seed_file:
        options["nkeys_seed"] = settings.nkey_seed_file
    return options


def _secret(path: str) -> str:
    return Path(path).read_text().strip()


def _tls(settings: NatsSettings) -> dict[str, Any]:
    """TLS is on when a CA or a certificate is named, or when the URL says `tls://`."""
    options: dict[str, Any] = {}
    if settings.tls_ca_file or settings.tls_certificate_file:
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
        if settings.tls_certificate_file:
            context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file or None)
        options["tls"] = context
    if settings.tls_hostname:
        options["tls_hostname"] = settings.tls_hostname
    if settings.tls_first:
        options["tls_handshake_first"] = True
    return options
