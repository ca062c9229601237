"""Putting messages into envelopes and bytes, and reading them back. Pure.

`wrap` and `unwrap` are the only ways in and out; decoders are built once per type.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from schemas.envelope import Envelope, Header, source_of
from schemas.subjects import BY_MESSAGE, BY_TYPE

T = TypeVar("T", bound=Struct)

_encoder = msgspec.json.Encoder()
_header = msgspec.json.Decoder(Header)
_decoders: dict[str, msgspec.json.Decoder[Envelope[Any]]] = {
    channel.type: msgspec.json.Decoder(Envelope[channel.message])  # type: ignore[name-defined]
    for channel in BY_TYPE.values()
}


class Undecodable(ValueError):
    """The bytes are no message of the catalogue; the text says what is wrong with them."""


def wrap(
    data: T,
    *,
    id: str,
    site: str,
    sender: str,
    at: datetime,
    about: str,
    operation: str | None = None,
    cause: str | None = None,
    actor: str | None = None,
    traceparent: str | None = None,
) -> Envelope[T]:
    """The envelope of a message that `sender` (a service or host) of `site` says `about` a `kind/id`."""
    return Envelope(
        specversion="1.0",
        id=id,
        source=source_of(site, sender),
        type=BY_MESSAGE[type(data)].type,
        time=at,
        data=data,
        subject=about,
        operation=operation,
        cause=cause,
        actor=actor,
        traceparent=traceparent,
    )


def encode(value: Any) -> bytes:
    """JSON bytes of a Struct."""
    return _encoder.encode(value)


def read_header(raw: bytes) -> Header:
    """The envelope's attributes, the data left as it is. Raises Undecodable."""
    try:
        return _header.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Undecodable(f"not a CloudEvent: {error}") from error


def unwrap(raw: bytes) -> Envelope[Any]:
    """The envelope with its data as the Struct that its `type` names. Raises Undecodable."""
    guess = _first_type(raw)
    decoder = _decoders.get(guess)
    if decoder is not None:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            envelope = decoder.decode(raw)
            if envelope.type == guess:
                return envelope
    return _unwrap_slowly(raw)


_TYPE = b'"type":"'


def _first_type(raw: bytes) -> str:
    """What stands first under the name `type`, which saves reading twice if it is the envelope's own."""
    start = raw.find(_TYPE) + len(_TYPE)
    return raw[start : raw.find(b'"', start)].decode("ascii", "replace")


def _unwrap_slowly(raw: bytes) -> Envelope[Any]:
    header = read_header(raw)
    decoder = _decoders.get(header.type)
    if decoder is None:
        raise Undecodable(f"unknown type {header.type!r}")
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Undecodable(f"{header.type}: {error}") from error
