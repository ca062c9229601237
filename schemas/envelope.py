"""The envelope of every command and event: CloudEvents 1.0, structured JSON mode.

`operation`, `cause`, `actor` and `traceparent` are CloudEvents extension attributes: which operation a
message belongs to, which message brought it about, who asked, and the W3C trace context.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from schemas.ids import END, MessageId, OperationId

T = TypeVar("T")

CONTENT_TYPE = "application/cloudevents+json"

TRACEPARENT_PATTERN = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}" + END


class Envelope(Struct, Generic[T], frozen=True, kw_only=True, omit_defaults=True):
    """One CloudEvent around `data`. Attributes that are None are left out of the JSON."""

    specversion: Literal["1.0"]
    id: MessageId
    source: Annotated[str, Meta(min_length=1, max_length=200)]
    """`/vireo/<site>/<service or host>`"""
    type: Annotated[str, Meta(min_length=1, max_length=100)]
    """`vireo.<kind>.<verb or event>.v<version>`"""
    time: datetime
    data: T
    subject: Annotated[str, Meta(max_length=200)] | None = None
    """`<kind>/<id>`: what the message is about"""
    operation: OperationId | None = None
    cause: MessageId | None = None
    actor: Annotated[str, Meta(max_length=200)] | None = None
    traceparent: Annotated[str, Meta(pattern=TRACEPARENT_PATTERN)] | None = None


class Header(Struct, frozen=True, kw_only=True):
    """An envelope read without its data, to see what it is before the data's type is known."""

    specversion: Literal["1.0"]
    id: MessageId
    source: str
    type: str
    time: datetime
    data: msgspec.Raw
    subject: str | None = None
    operation: OperationId | None = None
    cause: MessageId | None = None
    actor: str | None = None
    traceparent: str | None = None


def source_of(site: str, sender: str) -> str:
    """The `source` of what a service or a host of a site says."""
    return f"/vireo/{site}/{sender}"
