"""What the metrics service says of alerts and of commands about them: events, with derived ids. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from chassis.bus import Outgoing
from schemas import events, subjects
from schemas.alerts import Silence
from schemas.commands import AlertCommand, SilenceAlert
from schemas.envelope import Envelope
from schemas.forecasts import Change, Forecast
from schemas.ids import derived_id
from schemas.problems import Problem
from schemas.subjects import BY_MESSAGE
from schemas.wire import encode, wrap
from services.metrics.alert_states import Tracked, event_id

SENDER = "metrics"


def said_of(tracked: Tracked, *, site: str) -> Outgoing:
    """The event of the phase that an alert is in."""
    alert = tracked.alert
    data: Struct = (
        events.AlertFired(alert=alert)
        if alert.phase == "firing"
        else events.AlertResolved(alert=alert)
    )
    at = alert.fired_at if alert.phase == "firing" else alert.resolved_at
    assert at is not None
    envelope: Envelope[Any] = wrap(
        data,
        id=event_id(tracked),
        site=site,
        sender=SENDER,
        at=at,
        about=f"alert/{alert.rule}",
        actor=SENDER,
    )
    subject = subjects.event(type(data), site=site, source=SENDER, id=alert.rule)
    return Outgoing(subject=subject, data=encode(envelope), message_id=envelope.id)


def silence_of(command: Envelope[AlertCommand], *, until: datetime) -> Silence | None:
    """None: there is to be none."""
    data = command.data
    if not isinstance(data, SilenceAlert):
        return None
    return Silence(rule=data.rule, until=until, actor=command.actor or "", reason=data.reason)


def done(
    command: Envelope[AlertCommand], silence: Silence | None, *, site: str, at: datetime
) -> list[Outgoing]:
    """What a command changed, then its operation's end. The same each time it is said."""
    if silence is None:
        fact: Struct = events.AlertUnsilenced(rule=command.data.rule)
        detail = "told again"
    else:
        fact = events.AlertSilenced(silence=silence)
        detail = f"silent until {silence.until.isoformat(timespec='seconds')}"
    return [
        _event(fact, command, about=command.data.rule, site=site, at=at),
        _event(events.OperationSucceeded(detail=detail), command, site=site, at=at),
    ]


def refused(
    command: Envelope[AlertCommand], problem: Problem, *, site: str, at: datetime
) -> list[Outgoing]:
    return [_event(events.OperationFailed(problem=problem), command, site=site, at=at)]


def forecast(
    command: Envelope[AlertCommand],
    before: Silence | None,
    after: Silence | None,
    problem: Problem | None,
) -> Forecast:
    """What would come of a command."""
    known = [None if each is None else each.until.isoformat() for each in (before, after)]
    changes = (Change(field="silenced_until", before=known[0], after=known[1]),)
    return Forecast(
        command=BY_MESSAGE[type(command.data)].name,
        kind="alert",
        target=command.data.rule,
        changes=() if problem is not None or known[0] == known[1] else changes,
        problem=problem,
    )


def _event(
    data: Struct, command: Envelope[AlertCommand], *, site: str, at: datetime, about: str = ""
) -> Outgoing:
    name = BY_MESSAGE[type(data)].name
    kind = name.partition(".")[0]
    id = about or command.id
    envelope = wrap(
        data,
        id=derived_id(command.id, name),
        site=site,
        sender=SENDER,
        at=at,
        about=f"{kind}/{id}",
        operation=command.id,
        cause=command.id,
        actor=command.actor,
        traceparent=command.traceparent,
    )
    subject = subjects.event(type(data), site=site, source=SENDER, id=id)
    return Outgoing(subject=subject, data=encode(envelope), message_id=envelope.id)
