"""Identifiers and names: their forms, and how UUIDv7 ids are put together (RFC 9562).

Pure: time and randomness come in as arguments; `chassis.ids` supplies them.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

END = r"$(?!\n)"
"""The end of the text in Python and in ECMA regular expressions: `$` alone lets a final newline by."""

UUID7_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}" + END
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}" + END
LABEL_KEY_PATTERN = r"^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?" + END

Uuid7 = Annotated[str, Meta(pattern=UUID7_PATTERN, description="UUIDv7, lower case")]
MessageId = Uuid7
OperationId = Uuid7
VmId = Uuid7

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="lower-case letters, digits, hyphens")]
HostName = Name
SiteName = Name

LabelKey = Annotated[str, Meta(pattern=LABEL_KEY_PATTERN, max_length=63)]
LabelValue = Annotated[str, Meta(max_length=63)]
Labels = dict[LabelKey, LabelValue]

_UUID7 = re.compile(UUID7_PATTERN)
_NAME = re.compile(NAME_PATTERN)


def is_uuid7(text: str) -> bool:
    return _UUID7.match(text) is not None


def is_name(text: str) -> bool:
    """Whether `text` may stand in subjects, keys and permissions as a host's or site's name."""
    return _NAME.match(text) is not None


def uuid7(unix_ms: int, randomness: bytes) -> str:
    """A UUIDv7 from a Unix time in milliseconds and at least 10 random bytes (RFC 9562, 5.7)."""
    if not 0 <= unix_ms < 1 << 48:
        raise ValueError(f"unix_ms out of range: {unix_ms}")
    if len(randomness) < 10:
        raise ValueError("a UUIDv7 needs 10 random bytes")
    value = (unix_ms << 80) | int.from_bytes(randomness[:10], "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def time_of(uuid: str) -> datetime:
    """The instant, to the millisecond, at which a UUIDv7 was made."""
    return datetime.fromtimestamp(int(uuid[:8] + uuid[9:13], 16) / 1000, UTC)


def derived_id(parent: str, name: str) -> str:
    """The id of something that follows from `parent`: the same arguments give the same UUIDv7.

    A handler that runs twice for one command thus publishes the same message ids, and the bus drops
    the repeats. The time is the parent's; the rest is SHA-256 of parent and name.
    """
    digest = hashlib.sha256(f"{parent}/{name}".encode()).digest()
    return uuid7(int(parent[:8] + parent[9:13], 16), digest)
