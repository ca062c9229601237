"""What would come of a command: the decision on it, told instead of recorded. Pure.

Deciding changes nothing; where the question itself changes the fleet (another policy, a VM that is not
to be counted), it is asked of a copy.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas.commands import ConfigureHost, CreateVm, CreateVms
from schemas.envelope import Envelope
from schemas.forecasts import Change, Forecast
from schemas.policies import Policy
from schemas.subjects import BY_MESSAGE
from services.scheduler.batches import decide_many, outcome_of, release_all
from services.scheduler.decide import chance_of
from services.scheduler.fleet import Fleet
from services.scheduler.model import (
    Acted,
    Ask,
    Changed,
    Configured,
    Decision,
    Placed,
    Refused,
    Repeated,
)
from services.scheduler.placement import NoHost

OF_ASSIGNMENTS = ("host", "generation", "power", "ended", "stop_mode", "grace_s")
OF_NEW_VMS = ("host", "power")
OF_HOSTS = ("maintenance", "labels", "taints", "tuning")
"""What people see of a change. What else differs follows from the command itself."""


def supposed(fleet: Fleet, *, policy: Policy | None, without_vm: str | None) -> Fleet:
    """The fleet as the question has it: itself, or a copy that differs."""
    if policy is None and without_vm is None:
        return fleet
    twin = fleet.copy()
    if policy is not None:
        twin.put_policy(policy)
    if without_vm is not None:
        twin.take_away_vm(without_vm)
    return twin


def placed_by(command: Envelope[Any], policy: Policy | None) -> Envelope[Any]:
    """The command with its VM to be placed by this policy instead of the one it names."""
    if policy is None or not isinstance(command.data, CreateVm):
        return command
    spec = replace(command.data.spec, policy=policy.name)
    return replace(command, data=replace(command.data, spec=spec))


def may_change(decision: Decision) -> bool:
    """Whether a refusal rests on what may just not have been heard yet: a lease, a registration."""
    return isinstance(decision, Refused) and (decision.unheard or decision.unregistered is not None)


def told(decision: Decision, command: Envelope[Any], fleet: Fleet, *, now: float) -> Forecast:
    """A decision on a command, as a forecast of what would come of it."""
    about = _about(command.data)
    match decision:
        case Placed(assignment=new):
            changes = differences(None, new, OF_NEW_VMS)
            return replace(about, host=new.host, changes=changes, placement=new.placement)
        case Changed(assignment=new):
            held = fleet.holdings.of(new.vm)
            old = held.assignment if held is not None else None
            return replace(about, host=new.host, changes=differences(old, new, OF_ASSIGNMENTS))
        case Configured(config=config):
            host = fleet.host(config.host)
            old_config = host.config if host is not None else None
            changes = differences(old_config, config, OF_HOSTS)
            return replace(about, host=config.host, changes=changes)
        case Acted():
            detail = f"done once, {decision.mode}; nothing stays changed"
            return replace(about, host=decision.host, detail=detail)
        case Repeated(assignment=here):
            return replace(about, host=here.host, detail="it was done before")
        case Refused(problem=problem):
            about = replace(about, problem=problem)
            if problem.type != "urn:vireo:problem:unplaceable":
                return about
            return _with_reasons(about, command, fleet, now=now)


def told_many(command: Envelope[CreateVms], fleet: Fleet, *, now: float) -> Forecast:
    """What would come of a command for several VMs: where each would go, as a change of its name."""
    wish = command.data
    decisions = decide_many(command, fleet, now=now)
    release_all(decisions, fleet)
    outcome = outcome_of(decisions, gang=wish.gang)
    hosts = [one.assignment.host if isinstance(one, Placed) else None for one in decisions]
    about = Forecast(
        command=BY_MESSAGE[CreateVms].name,
        kind="vm",
        target=wish.names[0],
        changes=tuple(
            Change(field=name, after=host)
            for name, host in zip(wish.names, hosts, strict=True)
            if host is not None
        ),
    )
    if isinstance(outcome, Refused):
        return replace(about, problem=outcome.problem)
    return replace(about, detail=outcome.replace(" are placed", " would be placed"))


def differences(
    before: Struct | None, after: Struct, fields: tuple[str, ...]
) -> tuple[Change, ...]:
    """Those of the fields that differ; all of them where there was nothing before."""
    pairs = [(name, getattr(before, name, None), getattr(after, name)) for name in fields]
    return tuple(
        Change(field=name, before=msgspec.to_builtins(old), after=msgspec.to_builtins(new))
        for name, old, new in pairs
        if before is None or old != new
    )


def _about(wish: Any) -> Forecast:
    name = BY_MESSAGE[type(wish)].name
    if isinstance(wish, ConfigureHost):
        return Forecast(command=name, kind="host", target=wish.host)
    target = wish.spec.name if isinstance(wish, CreateVm) else wish.vm
    return Forecast(command=name, kind="vm", target=target)


def _with_reasons(
    about: Forecast, command: Envelope[CreateVm], fleet: Fleet, *, now: float
) -> Forecast:
    """The hosts and rules behind "no host fits", as values beside the words."""
    spec = command.data.spec
    policy = fleet.policy_of(spec)
    if policy is None:
        return about
    outcome = fleet.place(spec, policy, Ask(now=now, chance=chance_of(command.id)))
    if not isinstance(outcome, NoHost):
        return about
    shown = outcome.excluded[: fleet.limits.shown_reasons]
    return replace(about, excluded=shown, excluded_by=outcome.excluded_by)
