"""Streams and durable consumers as configured: made if missing, updated where they differ.

The pure half turns our configurations into the server's JSON and finds what differs; nothing is ever
deleted, and a consumer's cursor is never moved.
"""

from __future__ import annotations

from typing import Any

import structlog

from chassis.bus import Backlog, BusError, ConsumerConfig, NotFound, StreamConfig
from chassis.nats.api import Api, Json
from chassis.nats.pin import GROUP

log = structlog.get_logger(__name__)

NANOSECONDS = 1_000_000_000
BUCKET = "KV_"


def stream_json(config: StreamConfig) -> Json:
    """The server's configuration of a stream. A bucket gets what every KV client expects (ADR-8)."""
    wanted: Json = {
        "name": config.name,
        "description": config.description,
        "subjects": list(config.subjects),
        "retention": config.retention,
        "storage": config.storage,
        "max_age": _nanoseconds(config.max_age_s),
        "max_bytes": config.max_bytes,
        "max_msg_size": config.max_msg_size,
        "max_msgs_per_subject": config.max_msgs_per_subject,
        "duplicate_window": _nanoseconds(_window_s(config)),
        "discard": config.discard,
        "allow_rollup_hdrs": config.allow_rollup,
        "allow_direct": config.allow_direct,
        "allow_msg_ttl": config.allow_msg_ttl,
        "allow_atomic": config.allow_atomic,
        "deny_delete": config.deny_delete,
        "subject_delete_marker_ttl": _nanoseconds(config.subject_delete_marker_ttl_s),
    }
    if config.name.startswith(BUCKET):
        wanted |= _bucket_json(config)
    return wanted


def _bucket_json(config: StreamConfig) -> Json:
    bucket = config.name.removeprefix(BUCKET)
    return {
        "subjects": list(config.subjects) or [f"$KV.{bucket}.>"],
        "max_msgs_per_subject": max(config.max_msgs_per_subject, 1),
        "discard": "new",
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "deny_delete": True,
    }


def consumer_json(config: ConsumerConfig, *, takeover_s: float) -> Json:
    """The server's configuration of a durable pull consumer."""
    return {
        "name": config.name,
        "durable_name": config.name,
        "description": config.description,
        "filter_subjects": _filter(config),
        "deliver_policy": config.deliver,
        "ack_policy": "explicit",
        "ack_wait": _nanoseconds(config.ack_wait_s),
        "max_deliver": config.max_deliver,
        "max_ack_pending": config.max_ack_pending,
        "replay_policy": "instant",
        "priority_groups": [GROUP] if config.single_active else [],
        "priority_policy": "pinned_client" if config.single_active else "none",
        "priority_timeout": _nanoseconds(takeover_s if config.single_active else 0),
    }


def differences(wanted: Json, present: Json) -> dict[str, tuple[Any, Any]]:
    """What of `wanted` is not so: field → (wanted, present). A field left out counts as empty."""
    return {
        field: (value, present.get(field))
        for field, value in wanted.items()
        if (present.get(field) or _empty(value)) != (value or _empty(value))
    }


def present_consumer(config: Json) -> Json:
    """A consumer's configuration with what the server leaves out or says otherwise: its one filter, if
    it has but one, as a list, and that it has no policy for its readers."""
    config = {"priority_policy": "none", **config}
    if single := config.get("filter_subject"):
        return {**config, "filter_subjects": [single], "filter_subject": ""}
    return config


async def ensure_stream(api: Api, config: StreamConfig) -> None:
    """Create or update. Raises BusError where the server refuses a change."""
    wanted = stream_json(config)
    try:
        present = (await api.stream_info(config.name))["config"]
    except NotFound:
        # Made by somebody else at the same moment with the same configuration: no error.
        await api.create_stream(config.name, wanted)
        log.info("stream_created", stream=config.name)
        return
    if differing := differences(wanted, present):
        try:
            await api.update_stream(config.name, {**present, **wanted})
        except BusError as error:
            raise type(error)(f"stream {config.name}: {error}; wanted {differing}") from error
        log.info("stream_updated", stream=config.name, fields=sorted(differing))


async def ensure_consumer(api: Api, config: ConsumerConfig, *, takeover_s: float) -> None:
    """Create or update all but where it began."""
    wanted = consumer_json(config, takeover_s=takeover_s)
    try:
        present = present_consumer((await api.consumer_info(config.stream, config.name))["config"])
    except NotFound:
        await api.create_consumer(config.stream, config.name, wanted)
        log.info("consumer_created", stream=config.stream, consumer=config.name)
        return
    del wanted["deliver_policy"]
    if differing := differences(wanted, present):
        await api.update_consumer(config.stream, config.name, {**present, **wanted})
        log.info("consumer_updated", consumer=config.name, fields=sorted(differing))


async def backlogs(api: Api, stream: str) -> list[Backlog]:
    """Of the durable consumers alone: who only follows has no cursor that would wait for it."""
    found: list[Json] = []
    while True:
        page = await api.consumers(stream, offset=len(found))
        # An empty page ends it, too: consumers may go between two pages.
        found += page["consumers"] or []
        if not page["consumers"] or len(found) >= page["total"]:
            break
    return sorted(
        (
            Backlog(consumer=one["name"], messages=one["num_pending"] + one["num_ack_pending"])
            for one in found
            if one["config"].get("durable_name")
        ),
        key=lambda backlog: backlog.consumer,
    )


def _filter(config: ConsumerConfig) -> list[str]:
    """The last message per subject is only given for subjects that are named."""
    everything = [">"] if config.deliver == "last_per_subject" else []
    return list(config.subjects) or everything


def _window_s(config: StreamConfig) -> float:
    """The duplicate window, which the server wants no longer than the stream's age limit."""
    if config.max_age_s:
        return min(config.duplicate_window_s, config.max_age_s)
    return config.duplicate_window_s


def _nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def _empty(value: object) -> object:
    return type(value)()
