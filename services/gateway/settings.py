"""The gateway's settings: where it listens, and every limit it keeps. Values only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from chassis.settings import ChassisSettings, Seconds

Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class TlsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTPS; plain HTTP where neither file is named."""

    certificate_file: Annotated[
        Path | None, Meta(description="Certificate and its chain (PEM)")
    ] = None
    key_file: Annotated[Path | None, Meta(description="Its private key (PEM)")] = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together")


class LimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client may take, so that none can take it all."""

    body_bytes: Annotated[int, Meta(ge=1024, le=512 * 1024, description="Largest request body")] = (
        512 * 1024
    )
    header_bytes: Annotated[
        int, Meta(ge=4096, le=1 << 20, description="Largest request line and headers together")
    ] = 32 * 1024
    page_items: Annotated[int, Meta(ge=1, le=1000, description="Largest page")] = 1000
    page_bytes: Annotated[
        int, Meta(ge=1, le=1 << 30, description="Size from which on a page is made no longer")
    ] = 4 << 20
    kept_answers: Annotated[
        int, Meta(ge=1, le=100_000, description="Pages of VMs and hosts kept, to be given again")
    ] = 256
    kept_bytes: Annotated[
        int, Meta(ge=0, le=1 << 34, description="Their bytes together; 0: none is kept")
    ] = 32 << 20
    connections: Annotated[Count, Meta(description="Connections open at one time")] = 2000
    requests: Annotated[Count, Meta(description="Requests in hand at one time")] = 500
    waits: Annotated[Count, Meta(description="Of these, those that wait for an operation")] = 300
    streams: Annotated[Count, Meta(description="Event streams open at one time")] = 100
    wait_s: Annotated[
        float, Meta(gt=0, le=300, description="Longest `?wait=`; a longer one is cut to it")
    ] = 300
    request_s: Annotated[
        Seconds, Meta(description="Time for one request, waiting for operations apart")
    ] = 30
    idle_s: Annotated[
        int, Meta(ge=1, le=3600, description="Time that a connection may stay open with no request")
    ] = 75
    send_s: Annotated[
        Seconds, Meta(description="Time for a client to take what is sent; then it is cut off")
    ] = 30


class IdempotencySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are kept under the keys that clients choose."""

    takeover_s: Annotated[
        Seconds,
        Meta(description="Age at which an unfinished request is taken over by its repetition"),
    ] = 30
    attempts: Annotated[
        int, Meta(ge=1, le=100, description="Tries to claim a key that others claim too")
    ] = 5


class GatewaySettings(ChassisSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of the gateway."""

    address: Annotated[str, Meta(min_length=1, description="Address to listen on")] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port to listen on; 0: any free one")
    ] = 8470
    tls: TlsSettings = TlsSettings()
    limits: LimitSettings = LimitSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    admin_token_file: Annotated[
        Path | None,
        Meta(
            description="File (made with mode 0600) that the first start writes the admin token to; "
            "without one it is printed, once"
        ),
    ] = None
    ask_timeout_s: Annotated[
        Seconds, Meta(description="Patience for an answer of another service")
    ] = 5
    capacity_timeout_s: Annotated[
        Seconds, Meta(description="Patience for the scheduler's answer to a question for capacity")
    ] = 60
    plan_timeout_s: Annotated[
        Seconds, Meta(description="Patience for the scheduler's answer to a question for a plan")
    ] = 60
    wait_slice_s: Annotated[
        Seconds,
        Meta(
            description="A long wait is asked for in pieces: one that dies with its answerer is short"
        ),
    ] = 3
    ready_timeout_s: Annotated[
        Seconds, Meta(description="Patience of /health/ready for the inventory")
    ] = 1
    fresh_operation_s: Annotated[
        Seconds, Meta(description="Age below which an unknown operation may just not be there yet")
    ] = 10
    fresh_wait_s: Annotated[
        Seconds, Meta(description="How long a read waits for such an operation")
    ] = 2
    keepalive_s: Annotated[
        Seconds, Meta(description="Silence after which an event stream sends a comment")
    ] = 15
    retry_after_s: Annotated[
        int, Meta(ge=1, le=3600, description="What `Retry-After` says when a part is away")
    ] = 2
