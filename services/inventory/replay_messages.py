"""What a replay publishes: recorded events under subjects of its own, and what it says of itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from chassis.bus import Outgoing
from schemas import subjects
from schemas.envelope import Envelope, Header
from schemas.ids import derived_id
from schemas.seals import Anchor
from schemas.wire import encode, wrap
from services.inventory.recorded import Recorded, Stretch

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
    problem: str | None
    """Why it failed, as JSON."""


def again(event: Recorded, header: Header, *, name: str, operation: str) -> Outgoing:
    """The event as it was, byte for byte, but under a subject and a message id of the replay's own: for
    no consumer is it the original, or a repeat of it."""
    _, _, site, source = header.source.split("/", 3)
    kind, _, verb = header.type.removeprefix("vireo.").rpartition(".")[0].partition(".")
    _, _, about = (header.subject or "").partition("/")
    return Outgoing(
        subject=subjects.replayed(name, site=site, source=source, kind=kind, id=about, event=verb),
        data=event.envelope,
        headers={ORIGINAL: header.id, REPLAY: operation},
        message_id=derived_id(operation, header.id),
    )


def foretold(name: str, count: int, away: Sequence[Anchor]) -> str:
    """What would be published: how many events of the database, and of how many rows in which files."""
    counted = f"{count} events"
    if away:
        rows = sum(each.last - each.first + 1 for each in away)
        files = ", ".join(each.file for each in away)
        counted += f", and what is asked for of {rows} rows in {files},"
    return f"{counted} to vireo.replay.{name}.>"


def fitting(found: Sequence[Recorded], *, most_bytes: int) -> Sequence[Recorded]:
    """As many as go together; one, if it is larger."""
    size = 0
    for count, event in enumerate(found):
        size += len(event.envelope)
        if count and size > most_bytes:
            return found[:count]
    return found


def reached(number: int, stretch: Stretch, published: int) -> int:
    """The row up to which nothing is left to be published, when so many of a stretch that follows
    `number` have been."""
    if published == len(stretch.events):
        return stretch.through
    return stretch.events[published - 1].number if published else number


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
