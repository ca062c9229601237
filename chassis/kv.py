"""Buckets are streams: key-value reads and writes as plain bus messages (ADR-8's layout).

Pure: builds and reads messages; publishing and following are the bus's.
"""

from __future__ import annotations

from msgspec import Struct

from chassis.bus import Expect, Incoming, Outgoing

PREFIX = "$KV."


class Entry(Struct, frozen=True, kw_only=True):
    """One revision of one key. `value` is None where the key was deleted, purged or ran out."""

    bucket: str
    key: str
    value: bytes | None
    revision: int


def stream_of(bucket: str) -> str:
    return f"KV_{bucket}"


def subject_of(bucket: str, key: str) -> str:
    """The subject of a key; `key` may hold wildcards where it is used to follow or to expect."""
    return f"{PREFIX}{bucket}.{key}"


def put(
    bucket: str,
    key: str,
    value: bytes,
    *,
    expect: Expect | None = None,
    message_id: str | None = None,
    ttl_s: int | None = None,
) -> Outgoing:
    """The message that stores `value` under `key`."""
    return Outgoing(
        subject=subject_of(bucket, key),
        data=value,
        expect=expect,
        message_id=message_id,
        ttl_s=ttl_s,
    )


def purge(bucket: str, key: str, *, expect: Expect | None = None) -> Outgoing:
    """The message that forgets a key and its history, leaving one marker behind."""
    return Outgoing(
        subject=subject_of(bucket, key),
        headers={"KV-Operation": "PURGE", "Nats-Rollup": "sub"},
        expect=expect,
    )


def entry(message: Incoming) -> Entry:
    """Read a bucket's message. A marker (deleted, purged, expired) has the value None."""
    _, bucket, key = message.subject.split(".", 2)
    gone = "KV-Operation" in message.headers or "Nats-Marker-Reason" in message.headers
    return Entry(
        bucket=bucket,
        key=key,
        value=None if gone else message.data,
        revision=message.sequence,
    )
