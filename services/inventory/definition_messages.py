"""What the inventory says of a command about a definition: events, with ids derived from its id. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from chassis.bus import Outgoing
from schemas import commands, events, subjects
from schemas.definitions import KINDS, DefinitionKind
from schemas.envelope import Envelope
from schemas.ids import derived_id
from schemas.problems import Problem
from schemas.subjects import BY_MESSAGE
from schemas.wire import encode, wrap
from services.inventory.definitions import Outcome, told

SENDER = "inventory"

APPLIED: dict[DefinitionKind, type[events.DefinitionApplied]] = {
    "policy": events.PolicyApplied,
    "template": events.TemplateApplied,
    "project": events.ProjectApplied,
    "rule": events.RuleApplied,
}
REMOVED: dict[DefinitionKind, type[events.DefinitionRemoved]] = {
    "policy": events.PolicyRemoved,
    "template": events.TemplateRemoved,
    "project": events.ProjectRemoved,
    "rule": events.RuleRemoved,
}


def said_of(
    outcome: Outcome, command: Envelope[commands.DefinitionCommand], *, site: str
) -> list[Outgoing]:
    """The events of an outcome: what changed, then the operation's end. The same each time."""
    return [_event(data, outcome, command, site=site) for data in _facts(outcome)]


def _facts(outcome: Outcome) -> list[Struct]:
    kind, name = outcome.identity.kind, outcome.identity.name
    match outcome.change:
        case "applied":
            definition: Any = msgspec.convert(outcome.definition, KINDS[kind])
            return [APPLIED[kind](definition=definition), _success(outcome)]
        case "removed":
            return [REMOVED[kind](name=name, version=outcome.version), _success(outcome)]
        case "unchanged":
            return [_success(outcome)]
        case "refused":
            problem = outcome.problem or Problem(type="about:blank", title="Refused", status=409)
            return [events.OperationFailed(problem=problem)]


def _success(outcome: Outcome) -> Struct:
    return events.OperationSucceeded(detail=told(outcome))


def _event(
    data: Struct, outcome: Outcome, command: Envelope[commands.DefinitionCommand], *, site: str
) -> Outgoing:
    name = BY_MESSAGE[type(data)].name
    kind = name.partition(".")[0]
    about = command.id if kind == "operation" else outcome.identity.name
    envelope = wrap(
        data,
        id=derived_id(command.id, name),
        site=site,
        sender=SENDER,
        at=outcome.at,
        about=f"{kind}/{about}",
        operation=command.id,
        cause=command.id,
        actor=command.actor,
        traceparent=command.traceparent,
    )
    subject = subjects.event(type(data), site=site, source=SENDER, id=about)
    return Outgoing(subject=subject, data=encode(envelope), message_id=envelope.id)
