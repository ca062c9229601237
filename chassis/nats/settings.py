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
    """The servers: `nats://host:port`, `tls://…` or `ws://…`."""
    user: str = ""
    """Name to log in with."""
    password_file: str = ""
    """File that holds its password."""
    token_file: str = ""
    """File that holds a token to log in with."""
    credentials_file: str = ""
    """A `.creds` file: user JWT and seed."""
    nkey_seed_file: str = ""
    """File that holds an nkey's seed to log in with."""
    tls_ca_file: str = ""
    """Authorities to trust instead of the system's (PEM)."""
    tls_certificate_file: str = ""
    """Certificate to show, where the server asks for one (PEM)."""
    tls_key_file: str = ""
    """Its private key (PEM)."""
    tls_hostname: str = ""
    """The name that the server's certificate must carry, if it isn't the URL's."""
    tls_first: bool = False
    """TLS before the server's greeting (`handshake_first` on the server)."""
    inbox_prefix: str = "_INBOX"
    """What subjects for answers begin with; permissions may ask for one's own."""
    dial_timeout_s: Seconds = 5.0
    """Patience for one try to connect."""
    first_connection_s: Seconds | None = None
    """How long to try for the first connection; None: for ever."""
    redial_first_s: Seconds = 0.05
    """Pause before the second try; it doubles from try to try."""
    redial_most_s: Seconds = 2.0
    """The longest pause between two tries."""
    ping_interval_s: Seconds = 5.0
    """Two unanswered pings and the connection counts as lost."""
    heartbeat_s: Seconds = 1.0
    """How often the server says on a quiet pull that it is still there; twice missed, pull again."""
    pull_expires_s: Seconds = 60.0
    """How long the server keeps one request for messages."""
    takeover_s: Seconds = 3.0
    """Where only one reader of a consumer is active: how long it may be gone before the next one is."""
    absent_retry_s: Seconds = 0.5
    """How often to look for a stream or consumer that does not exist yet."""
    call_timeout_s: Seconds = 5.0
    """For acknowledgements and for JetStream's API."""
    publish_timeout_s: Seconds = 5.0
    """From `publish` to the acknowledgement, waiting in the queue included."""
    publish_queue: Count = 10_000
    """Messages that may wait to be published; the next caller waits for room."""
    batch_least: Annotated[int, Meta(ge=2, le=1000)] = 16
    """Fewer waiting messages go one by one, pipelined: the server makes files for each batch, which
    costs more than syncing so few."""
    batch_messages: Annotated[int, Meta(ge=2, le=1000)] = 500
    """Messages in one atomic batch; the server allows 1000."""
    batch_bytes: Count = 4 * 1024 * 1024
    """Size of one atomic batch at most."""
    unsent_bytes: Count = 32 * 1024 * 1024
    """What may wait in the socket's buffer before publishing is refused as Unavailable."""
    follow_buffer: Count = 1000
    """Messages of a `follow` that are read ahead of its reader."""
