"""What a micro service says of itself: ADR-32's PING, INFO and STATS. Values and their JSON, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from schemas.problems import Problem

PREFIX = "$SRV"
QUEUE = "q"
ERROR_HEADER = "Nats-Service-Error"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"
NANOSECONDS = 1_000_000_000


class Identity(Struct, frozen=True, kw_only=True):
    """Who answers: `name` is the service's (letters, digits, `-`, `_`), `id` this instance's."""

    name: str
    id: str
    version: str
    """Semantic version."""
    description: str
    started_at: datetime
    metadata: dict[str, str] = {}


class Counts:
    """What an endpoint has done so far."""

    def __init__(self, *, name: str, subject: str, description: str) -> None:
        self.name = name
        self.subject = subject
        self.description = description
        self.requests = 0
        self.errors = 0
        self.last_error = ""
        self.seconds = 0.0

    def add(self, problem: Problem | None, seconds: float) -> None:
        self.requests += 1
        self.seconds += seconds
        if problem is not None:
            self.errors += 1
            self.last_error = f"{problem.status}:{problem.title}"


def discovery_subjects(identity: Identity) -> list[str]:
    """Every subject by which the service can be found: all, by name, by name and id."""
    return [
        ".".join((PREFIX, verb, *which))
        for verb in ("PING", "INFO", "STATS")
        for which in ((), (identity.name,), (identity.name, identity.id))
    ]


def reply_to(subject: str, identity: Identity, counts: Sequence[Counts]) -> bytes:
    """The answer to a discovery request on `subject`."""
    verb = subject.split(".")[1]
    said: dict[str, Any] = {
        "type": f"io.nats.micro.v1.{verb.lower()}_response",
        "name": identity.name,
        "id": identity.id,
        "version": identity.version,
        "metadata": identity.metadata,
    }
    if verb == "INFO":
        said["description"] = identity.description
        said["endpoints"] = [_info(endpoint) for endpoint in counts]
    if verb == "STATS":
        said["started"] = identity.started_at.isoformat().replace("+00:00", "Z")
        said["endpoints"] = [_stats(endpoint) for endpoint in counts]
    return msgspec.json.encode(said)


def _info(endpoint: Counts) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "subject": endpoint.subject,
        "queue_group": QUEUE,
        "metadata": {"description": endpoint.description},
    }


def _stats(endpoint: Counts) -> dict[str, Any]:
    total = round(endpoint.seconds * NANOSECONDS)
    return {
        "name": endpoint.name,
        "subject": endpoint.subject,
        "queue_group": QUEUE,
        "num_requests": endpoint.requests,
        "num_errors": endpoint.errors,
        "last_error": endpoint.last_error,
        "processing_time": total,
        "average_processing_time": total // endpoint.requests if endpoint.requests else 0,
    }
