"""The catalogue's streams and buckets made real: compare, update, never delete.

What belongs here: turning `schemas.subjects.STREAMS` into the bus's configurations.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from chassis.bus import Bus, StreamConfig, Unavailable
from chassis.kv import PREFIX, stream_of
from chassis.service import Clock
from schemas.subjects import STREAMS, Stream

RETRY_S = 1.0

log = structlog.get_logger()


def config_of(stream: Stream) -> StreamConfig:
    """A stream of the catalogue in JetStream's words; a bucket as key-value clients expect it (ADR-8)."""
    return StreamConfig(
        name=stream_of(stream.name) if stream.bucket else stream.name,
        description=stream.description,
        subjects=(f"{PREFIX}{stream.name}.>",) if stream.bucket else stream.subjects,
        retention=stream.retention,
        storage=stream.storage,
        max_age_s=stream.max_age_s,
        max_bytes=stream.max_bytes,
        max_msg_size=stream.max_msg_size,
        max_msgs_per_subject=stream.history if stream.bucket else -1,
        # The window may not be longer than messages live.
        duplicate_window_s=min(stream.duplicate_window_s, stream.max_age_s or float("inf")),
        discard="new" if stream.full == "refuse_new" else "old",
        allow_rollup=stream.bucket,
        deny_delete=stream.bucket,
        allow_msg_ttl=stream.message_ttl,
        allow_atomic=stream.atomic,
        # A watcher learns that a key ran out by the marker that is left for a while.
        subject_delete_marker_ttl_s=60 if stream.bucket and stream.message_ttl else 0,
    )


async def ensure_streams(bus: Bus, clock: Clock, streams: Sequence[Stream] = STREAMS) -> None:
    """Make or update every stream; waits for the bus for as long as it takes."""
    for stream in streams:
        config = config_of(stream)
        while True:
            try:
                await bus.ensure_stream(config)
                break
            except Unavailable as error:
                log.warning("stream_awaited", stream=config.name, error=str(error))
                await clock.sleep(RETRY_S)
