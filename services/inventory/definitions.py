"""What becomes of a wish to apply or remove a policy, template, project or alert rule. Pure.

What belongs here: values and decisions. What does not: SQL (`definition_store`), the bucket CONFIG
(`definition_outbox`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas import commands
from schemas.definition_faults import faults_of
from schemas.definitions import KINDS, AnyDefinition, DefinitionKind
from schemas.forecasts import Change, Forecast
from schemas.ids import Name
from schemas.policies import MOST_VERSIONS
from schemas.problems import Problem, conflict, invalid_request, not_found, unknown_names
from schemas.subjects import BY_MESSAGE

SHOWN_USERS = 5
"""Of those that keep a definition from being removed, so many are named."""


class Identity(Struct, frozen=True, kw_only=True, order=True):
    """Which definition."""

    kind: DefinitionKind
    name: Name


class Kept(Struct, frozen=True, kw_only=True):
    """What is known of a name: `last` is its newest version, a removal or a shipped one included.

    `live` is what counts now, with its version; None if there is nothing (any more).
    """

    last: int = 0
    live: AnyDefinition | None = None
    shipped: bool = False
    """Nobody applied what counts now: it came with Vireo."""


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command came to. It is kept, so that a repeated command comes to the same."""

    identity: Identity
    change: Literal["applied", "removed", "unchanged", "refused"]
    at: datetime
    version: int = 0
    definition: dict[str, Any] | None = None
    problem: Problem | None = None


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a decision is made upon, as it is inside one transaction."""

    kept: Kept
    unknown: tuple[str, ...] = ()
    """Fields of the definition to be applied that name what does not exist."""
    users: tuple[str, ...] = ()
    """Who names the definition to be removed: `project shop`."""
    crowded: bool = False
    """There are as many of the kind as may be."""
    shipped_beneath: bool = False
    """Vireo ships one of this name: it counts again when this one is removed."""


def identity_of(command: commands.DefinitionCommand) -> Identity:
    """What a command is about."""
    kind = msgspec.convert(BY_MESSAGE[type(command)].name.partition(".")[0], DefinitionKind)
    if isinstance(command, commands.ApplyDefinition):
        return Identity(kind=kind, name=command.definition.name)
    return Identity(kind=kind, name=command.name)


def references(definition: AnyDefinition) -> Iterator[tuple[str, Identity]]:
    """What a definition names: the field and which definition it means."""
    kinds: tuple[DefinitionKind, ...] = ("policy", "project")
    for kind in kinds:
        name = getattr(definition, kind, None)
        if name is not None:
            yield f"/{kind}", Identity(kind=kind, name=name)


def decide(command: commands.DefinitionCommand, around: Surroundings, *, at: datetime) -> Outcome:
    identity = identity_of(command)
    if isinstance(command, commands.ApplyDefinition):
        return _apply(command.definition, identity, around, at=at)
    refusal = _why_it_stays(identity, around)
    if refusal is not None:
        return Outcome(identity=identity, change="refused", problem=refusal, at=at)
    return Outcome(identity=identity, change="removed", version=around.kept.last + 1, at=at)


def _apply(
    given: AnyDefinition, identity: Identity, around: Surroundings, *, at: datetime
) -> Outcome:
    live = around.kept.live
    if live is not None and _same(given, live) and given.version in (0, live.version):
        return Outcome(identity=identity, change="unchanged", version=live.version, at=at)
    refusal = _why_not(given, identity, around)
    if refusal is not None:
        return Outcome(identity=identity, change="refused", problem=refusal, at=at)
    version = given.version or around.kept.last + 1
    return Outcome(
        identity=identity,
        change="applied",
        version=version,
        definition=msgspec.to_builtins(replace(given, version=version)),
        at=at,
    )


def forecast(
    command: commands.DefinitionCommand, around: Surroundings, outcome: Outcome
) -> Forecast:
    """An outcome that was not kept, with each field that would change."""
    changes: tuple[Change, ...] = ()
    if outcome.change in ("applied", "removed"):
        changes = tuple(_changes(around.kept.live, outcome.definition or {}))
    return Forecast(
        command=BY_MESSAGE[type(command)].name,
        kind=outcome.identity.kind,
        target=outcome.identity.name,
        detail=told(outcome) if outcome.problem is None else "",
        changes=changes,
        problem=outcome.problem,
    )


def _changes(live: AnyDefinition | None, after: dict[str, Any]) -> Iterator[Change]:
    before: dict[str, Any] = {} if live is None else msgspec.to_builtins(live)
    for field in sorted({*before, *after} - {"name", "version"}):
        if before.get(field) != after.get(field):
            yield Change(field=field, before=before.get(field), after=after.get(field))


def told(outcome: Outcome) -> str:
    """A success in words."""
    match outcome.change:
        case "applied":
            return f"version {outcome.version}"
        case "unchanged":
            return f"unchanged: version {outcome.version} says the same"
        case _:
            return outcome.change


def _same(given: AnyDefinition, live: AnyDefinition) -> bool:
    return replace(given, version=live.version) == live


def _why_not(given: AnyDefinition, identity: Identity, around: Surroundings) -> Problem | None:
    last = around.kept.last
    if faults := tuple(faults_of(given)):
        return invalid_request(*faults)
    if around.unknown:
        names = {field: getattr(given, field.strip("/")) for field in around.unknown}
        return unknown_names(names)
    if given.version and given.version <= last:
        return conflict(
            f"Version {given.version} is not newer than {last}, the newest of the {identity.kind} "
            f"{identity.name!r}; leave `version` out, or say {last + 1} or more."
        )
    if last >= MOST_VERSIONS:
        return conflict(f"The {identity.kind} {identity.name!r} has used up its versions.")
    if around.crowded:
        return conflict(f"There are as many definitions of kind {identity.kind} as may be.")
    return None


def _why_it_stays(identity: Identity, around: Surroundings) -> Problem | None:
    kind, name = identity.kind, identity.name
    if around.kept.live is None:
        return not_found(kind, name)
    if around.kept.shipped:
        return conflict(f"The {kind} {name!r} comes with Vireo and cannot be removed.")
    if around.kept.last >= MOST_VERSIONS:
        return conflict(f"The {kind} {name!r} has used up its versions.")
    if around.users and not around.shipped_beneath:
        return conflict(f"The {kind} {name!r} is in use by {_list(around.users)}.")
    return None


def _list(users: tuple[str, ...]) -> str:
    shown = ", ".join(users[:SHOWN_USERS])
    return f"{shown} and others" if len(users) > SHOWN_USERS else shown


def read(kind: DefinitionKind, data: str | bytes) -> AnyDefinition:
    """A definition from its JSON, as it is kept."""
    return msgspec.json.decode(data, type=KINDS[kind])
