"""How values of the language become columns. Pure; nothing in here knows a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from schemas.envelope import Envelope
from schemas.ids import Labels


class _Labelled(Struct, frozen=True):
    labels: Labels = {}


_labelled = msgspec.json.Decoder(_Labelled)


def site_of(envelope: Envelope[Any]) -> str:
    """The site in a source `/vireo/<site>/<sender>`."""
    return text(envelope.source.split("/")[2]) if envelope.source.count("/") >= 3 else ""


def labels_in(document: str | None) -> Labels:
    return _labelled.decode(document).labels if document else {}


def labels_column(labels: Labels) -> str:
    return text(json_of({key: labels[key].replace("\0", "\ufffd") for key in sorted(labels)}))


def json_of(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def text(value: str) -> str:
    """Text as Postgres can hold it: it knows no NUL."""
    return value.replace("\0", "\ufffd")


def in_utc(time: datetime) -> datetime:
    """A time without zone is taken for UTC."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
