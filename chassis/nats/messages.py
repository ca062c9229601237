"""Between the client's messages and the bus's values. Pure.

JetStream hides a message's place in its reply subject (ADR-15):
`$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, newer servers
put a domain and an account hash in front of the stream.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from nats.aio.msg import Msg

from chassis.bus import Incoming, Outgoing
from chassis.nats.client import Headers

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PIN_ID = "Nats-Pin-Id"

# What was agreed with the server about storing or delivering the message, not what the message says.
TRANSPORT = frozenset(
    {
        PIN_ID,
        "Nats-Batch-Id",
        "Nats-Batch-Sequence",
        "Nats-Batch-Commit",
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Expected-Last-Subject-Sequence-Subject",
    }
)


class Place(Struct, frozen=True):
    """Where in its stream and in its consumer a delivered message stands."""

    stream: str
    delivered: int
    stream_sequence: int
    consumer_sequence: int
    nanoseconds: int
    pending: int


def place_of(reply: str) -> Place | None:
    """Read a delivery's reply subject; None if the message did not come from a consumer."""
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"]:
        return None
    if len(tokens) == 9:
        tokens = ["$JS", "ACK", "_", "_", *tokens[2:]]
    if len(tokens) < 11:
        return None
    delivered, stream_sequence, consumer_sequence, nanoseconds, pending = map(int, tokens[6:11])
    return Place(tokens[4], delivered, stream_sequence, consumer_sequence, nanoseconds, pending)


def instant(nanoseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)


def status_of(message: Msg) -> int:
    """The status code of a message that the server itself wrote, or 0."""
    if message.data:
        return 0
    code = (message.headers or {}).get("Status", "")
    return int(code) if code.isdigit() else 0


def description_of(message: Msg) -> str:
    return str((message.headers or {}).get("Description", "")).strip()


def incoming(message: Msg) -> Incoming:
    """The value of a received message; what only concerned its transport is left out."""
    place = place_of(message.reply)
    said: Any = message.headers
    # Its own type: to be asked whether it is a Mapping takes a while.
    headers = said.without(TRANSPORT) if type(said) is Headers else _readable(said or {})
    if place is None:
        return Incoming(
            subject=message.subject, data=message.data, headers=headers, reply=message.reply
        )
    return Incoming(
        subject=message.subject,
        data=message.data,
        headers=headers,
        reply=message.reply,
        stream=place.stream,
        sequence=place.stream_sequence,
        published_at=instant(place.nanoseconds),
        delivered=place.delivered,
        pending=place.pending,
    )


def stored(stream: str, message: Mapping[str, Any]) -> Incoming:
    """The value of a message as `STREAM.MSG.GET` answers it."""
    return Incoming(
        subject=message["subject"],
        data=base64.b64decode(message.get("data", "")),
        headers=_readable(_parse(base64.b64decode(message.get("hdrs", "")))),
        stream=stream,
        sequence=message["seq"],
        published_at=parse_time(message["time"]),
    )


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with up to nine decimals, cut to microseconds."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}").replace(tzinfo=UTC)


def wire_size(data: bytes, headers: Mapping[str, str]) -> int:
    """How many bytes of the server's max_payload a message takes."""
    if not headers:
        return len(data)
    lines = sum(len(key.encode()) + len(value.encode()) + 4 for key, value in headers.items())
    return len(data) + lines + len(b"NATS/1.0\r\n\r\n")


def publish_headers(message: Outgoing) -> dict[str, str]:
    """The headers that make JetStream keep what an `Outgoing` asks for."""
    headers = dict(message.headers)
    if message.message_id is not None:
        headers["Nats-Msg-Id"] = message.message_id
    if message.expect is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(message.expect.sequence)
        headers["Nats-Expected-Last-Subject-Sequence-Subject"] = message.expect.over
    if message.ttl_s is not None:
        headers["Nats-TTL"] = f"{message.ttl_s}s"
    return headers


def _readable(headers: Mapping[str, str]) -> dict[str, str]:
    return {str(key): value for key, value in headers.items() if key not in TRANSPORT}


def _parse(raw: bytes) -> dict[str, str]:
    lines = raw.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip(): value.strip() for name, _, value in pairs}
