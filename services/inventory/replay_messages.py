"""What a replay publishes: recorded events under subjects of its own, and what it says of itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from chassis.bus import Outgoing
from schemas import subjects
from schemas.envelope import Envelope
from schemas.ids import derived_id
from schemas.wire import encode, wrap

SENDER = "inventory"
STEPS = 20
"""How often it is told how far it has come."""
ORIGINAL = "Vireo-Replay-Of"
REPLAY = "Vireo-Replay"


class Replay(Struct, frozen=True, kw_only=True):
    """How far one has come in the ledger."""

    name: str
    number: int
    last: int
    published: int
    stopped: bool
    ended: bool


def again(record: Mapping[str, Any], *, name: str, operation: str) -> Outgoing:
    """The event as it was, byte for byte, but under a subject and a message id of the replay's own: for
    no consumer is it the original, or a repeat of it."""
    _, _, site, source = record["source"].split("/", 3)
    kind, _, event = record["type"].removeprefix("vireo.").rpartition(".")[0].partition(".")
    _, _, about = (record["subject"] or "").partition("/")
    return Outgoing(
        subject=subjects.replayed(name, site=site, source=source, kind=kind, id=about, event=event),
        data=record["envelope"],
        headers={ORIGINAL: record["id"], REPLAY: operation},
        message_id=derived_id(operation, record["id"]),
    )


def due_s(at: datetime, *, first: datetime, speed: float) -> float:
    """How long after the first event one is due."""
    return max(0.0, (at - first).total_seconds() / speed) if speed else 0.0


def step_of(number: int, *, begin: int, last: int) -> int:
    return min(STEPS, (number - begin) * STEPS // (last - begin)) if last > begin else STEPS


def said(data: Struct, name: str, command: Envelope[Any], *, site: str, at: datetime) -> Outgoing:
    """An event of the replay, or of its operation; `name` tells it from the operation's others."""
    kind = subjects.BY_MESSAGE[type(data)].name.partition(".")[0]
    about = command.data.name if kind == "replay" else command.id
    envelope = wrap(
        data,
        id=derived_id(command.id, name),
        site=site,
        sender=SENDER,
        at=at,
        about=f"{kind}/{about}",
        operation=command.id,
        cause=command.id,
        actor=command.actor,
        traceparent=command.traceparent,
    )
    subject = subjects.event(type(data), site=site, source=SENDER, id=about)
    return Outgoing(subject=subject, data=encode(envelope), message_id=envelope.id)
