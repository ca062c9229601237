"""How to reach the bus: one frozen Struct. Values only; `dial.py` turns them into a connection."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class NatsSettings(Struct, frozen=True, kw_only=True):
    """Where the bus is, who we are to it, and how long we wait for it.

    Secrets are read from files at every dial, so that a rotated one is taken up by the next
    reconnection.
    """

    urls: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    credentials_file: str = ""
    """A `.creds` file: user JWT and seed."""
    nkey_seed_file: str = ""
    tls_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    tls_hostname: str = ""
    """The name that the server's certificate must carry, if it isn't the URL's."""
    tls_first: bool = False
    """TLS before the server's greeting (`handshake_first` on the server)."""
    inbox_prefix: str = "_INBOX"
    dial_timeout_s: Seconds = 5.0
    first_connection_s: Seconds | None = None
    """How long to try for the first connection; None: for ever."""
    redial_first_s: Seconds = 0.05
    redial_most_s: Seconds = 2.0
    ping_interval_s: Seconds = 5.0
    """Two unanswered pings and the connection counts as lost."""
    heartbeat_s: Seconds = 1.0
    """How often the server says on a quiet pull that it is still there; twice missed, pull again."""
    pull_expires_s: Seconds = 60.0
    absent_retry_s: Seconds = 0.5
    """How often to look for a stream or consumer that does not exist yet."""
    call_timeout_s: Seconds = 5.0
    """For acknowledgements and for JetStream's API."""
    publish_timeout_s: Seconds = 5.0
    """From `publish` to the acknowledgement, waiting in the queue included."""
    publish_queue: Count = 10_000
    """Messages that may wait to be published; the next caller waits for room."""
    batch_messages: Annotated[int, Meta(ge=2, le=1000)] = 500
    """Messages in one atomic batch; the server allows 1000."""
    batch_bytes: Count = 4 * 1024 * 1024
    unsent_bytes: Count = 32 * 1024 * 1024
    """What may wait in the socket's buffer before publishing is refused as Unavailable."""
    follow_buffer: Count = 1000
    """Messages of a `follow` that are read ahead of its reader."""
