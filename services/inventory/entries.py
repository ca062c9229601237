"""Events as rows of the ledger: each resting on the hash of the one before. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from schemas.ledger import hash_of, microseconds
from services.inventory.columns import in_utc, text
from services.inventory.decide import Concerned
from services.inventory.model import Arrival, Head

KEY_COLUMNS = ("id", "stream", "position")
EVENT_COLUMNS = (
    *("stream", "number", "position", "id", "time", "type", "source", "subject", "operation"),
    *("cause", "actor", "vm", "host", "received_at", "previous", "hash", "envelope"),
)
Entry = tuple[Any, ...]
"""The values of EVENT_COLUMNS."""


def entries(
    stream: str,
    head: Head,
    new: Mapping[int, Arrival],
    about: Sequence[Concerned],
    *,
    received_at: datetime,
) -> tuple[list[Entry], bytes]:
    """The rows that continue the ledger after `head`, and the hash of the last one."""
    rows: list[Entry] = []
    previous, received_us = head.hash, microseconds(received_at)
    members = zip(new.items(), about, strict=True)
    for number, ((position, arrival), concerns) in enumerate(members, head.number + 1):
        envelope = arrival.envelope
        hash = hash_of(
            previous,
            stream=stream,
            number=number,
            position=position,
            received_us=received_us,
            operation=concerns.operation,
            vm=concerns.vm,
            host=concerns.host,
            envelope=arrival.raw,
        )
        rows.append(
            (
                *(stream, number, position, envelope.id, in_utc(envelope.time), envelope.type),
                text(envelope.source),
                text(envelope.subject) if envelope.subject is not None else None,
                *(concerns.operation, envelope.cause),
                text(envelope.actor) if envelope.actor is not None else None,
                *(concerns.vm, concerns.host, received_at, previous, hash, arrival.raw),
            )
        )
        previous = hash
    return rows, previous
