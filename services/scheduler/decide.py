"""What comes of a command: pure decisions over the fleet table.

Placing is `placement.py`'s; this is the rest: which commands make sense for a VM as it stands, what
the next generation of its assignment is, and what a host's configuration becomes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.commands import (
    ConfigureHost,
    CreateVm,
    DeleteVm,
    PauseVm,
    RebootVm,
    ResumeVm,
    StartVm,
    StopVm,
    VmCommand,
)
from schemas.definitions import Quota
from schemas.envelope import Envelope
from schemas.problems import Problem, conflict, not_found, unavailable
from schemas.resources import HostConfig, VmSpec
from schemas.subjects import BY_MESSAGE, definition_key
from services.scheduler.definitions import over_quota
from services.scheduler.fleet import Fleet
from services.scheduler.model import (
    ANY_HOST,
    TRANSITIONS,
    Acted,
    Ask,
    Changed,
    Configured,
    Decision,
    Held,
    Placed,
    Refused,
    Repeated,
)
from services.scheduler.placement import NoHost
from services.scheduler.silence import lease_problem


def decide(command: Envelope[Any], fleet: Fleet, *, now: float) -> Decision:
    """The decision on one command. Raises KeyError for what is no command of the scheduler's."""
    return DECISIONS[type(command.data)](command, fleet, now)


def _create(command: Envelope[CreateVm], fleet: Fleet, now: float) -> Decision:
    wish = command.data
    held = fleet.holdings.of(wish.vm)
    if held is not None and held.assignment.operation == command.id:
        return Repeated(assignment=held.assignment)
    if held is not None or fleet.holdings.was_forgotten(wish.vm):
        return Refused(problem=conflict(f"The VM id {wish.vm} was given before."))
    namesakes = fleet.holdings.live_named(wish.spec.name)
    if namesakes:
        return Refused(
            problem=conflict(f"The name {wish.spec.name!r} is taken by VM {namesakes[0]}.")
        )
    return _place(command, fleet, now)


def _place(command: Envelope[CreateVm], fleet: Fleet, now: float) -> Placed | Refused:
    spec = command.data.spec
    if beyond := _refuse_project(spec, fleet):
        return beyond
    policy = fleet.policy_of(spec)
    if policy is None:
        name = fleet.definitions.policy_for(spec)
        return Refused(problem=not_found("policy", name), rests_on=definition_key("policy", name))
    outcome = fleet.place(spec, policy, Ask(now=now, chance=chance_of(command.id)))
    if isinstance(outcome, NoHost):
        return _refuse_place(outcome, fleet, spec)
    return Placed(
        assignment=VmAssignment(
            vm=command.data.vm,
            host=outcome.host,
            generation=1,
            spec=spec,
            power=spec.power,
            operation=command.id,
            actor=command.actor or "",
            placement=outcome,
            cloud_init=command.data.cloud_init,
            traceparent=command.traceparent,
        )
    )


def _refuse_project(spec: VmSpec, fleet: Fleet) -> Refused | None:
    """A project must be there and have room for the VM."""
    if spec.project is None:
        return None
    project = fleet.definitions.project(spec.project)
    if project is None:
        problem: Problem | None = not_found("project", spec.project)
    elif project.quota == Quota():
        problem = None
    else:
        taken = fleet.definitions.taken(project.name)
        problem = over_quota(project, taken=taken, asked=fleet.asks_for(spec))
    if problem is None:
        return None
    return Refused(problem=problem, rests_on=definition_key("project", spec.project))


def chance_of(command: str) -> int:
    """The luck of a command: the random end of its id, so that deciding twice is deciding once."""
    return int(command.replace("-", "")[-16:], 16)


def _refuse_place(outcome: NoHost, fleet: Fleet, spec: VmSpec) -> Refused:
    """A host that is asked for by name and unknown is a reason of its own."""
    wanted = spec.on.host
    if wanted is None or fleet.host(wanted) is not None:
        unheard = "lease" in outcome.excluded_by
        unregistered = None if outcome.excluded_by else ANY_HOST
        return Refused(problem=outcome.problem, unheard=unheard, unregistered=unregistered)
    reasons = {wanted: "pinned: no host of this name has registered", **outcome.problem.reasons}
    return Refused(problem=replace(outcome.problem, reasons=reasons), unregistered=wanted)


def _change(command: Envelope[VmCommand], fleet: Fleet, now: float) -> Decision:
    """Start, stop, pause, resume, reboot."""
    wish = command.data
    held = fleet.holdings.of(wish.vm)
    if held is None:
        return Refused(problem=not_found("vm", wish.vm))
    here = held.assignment
    if here.operation == command.id:
        return Repeated(assignment=here)
    power = TRANSITIONS.get((here.power, type(wish)))
    if here.ended:
        return Refused(problem=conflict(f"VM {wish.vm} is being deleted."))
    if power is None:
        verb = BY_MESSAGE[type(wish)].name
        return Refused(problem=conflict(f"VM {wish.vm} is {here.power}: {verb} makes no sense."))
    if isinstance(wish, RebootVm):
        return _act(Acted(vm=here.vm, host=here.host, mode=wish.mode), fleet, now)
    following = replace(_next_generation(held, command), power=power)
    if isinstance(wish, StopVm):
        following = replace(following, stop_mode=wish.mode, grace_s=wish.grace_s)
    return Changed(assignment=following, revision=held.revision)


def _act(action: Acted, fleet: Fleet, now: float) -> Acted | Refused:
    """An action is not kept for a host that is away, as an assignment is: it is refused."""
    host = fleet.host(action.host)
    reason = None if host is None else lease_problem(host, limits=fleet.limits, now=now)
    if reason is None:
        return action
    return Refused(
        problem=unavailable(f"Host {action.host} does not answer: {reason}."), unheard=True
    )


def _delete(command: Envelope[DeleteVm], fleet: Fleet, now: float) -> Decision:
    wish = command.data
    held = fleet.holdings.of(wish.vm)
    if held is None:
        return Refused(problem=not_found("vm", wish.vm))
    if held.assignment.operation == command.id:
        return Repeated(assignment=held.assignment)
    harder = wish.mode == "forced" and held.assignment.stop_mode == "graceful"
    if held.assignment.ended and not harder:
        return Refused(problem=conflict(f"VM {wish.vm} is being deleted already."))
    following = replace(
        _next_generation(held, command),
        power="stopped",
        ended=True,
        cloud_init=None,
        stop_mode=wish.mode,
        grace_s=wish.grace_s,
    )
    return Changed(assignment=following, revision=held.revision)


def _next_generation(held: Held, command: Envelope[Any]) -> VmAssignment:
    return replace(
        held.assignment,
        generation=held.assignment.generation + 1,
        operation=command.id,
        supersedes=held.assignment.operation,
        actor=command.actor or "",
        traceparent=command.traceparent,
    )


def _configure(command: Envelope[ConfigureHost], fleet: Fleet, now: float) -> Decision:
    wish = command.data
    host = fleet.host(wish.host)
    if host is None:
        return Refused(problem=not_found("host", wish.host))
    old = host.config
    new = HostConfig(
        host=wish.host,
        generation=old.generation + 1,
        maintenance=old.maintenance if wish.maintenance is None else wish.maintenance,
        labels=old.labels if wish.labels is None else wish.labels,
        taints=old.taints if wish.taints is None else wish.taints,
        tuning=old.tuning if wish.tuning is None else wish.tuning,
    )
    if replace(new, generation=old.generation) == old:
        return Configured(config=old, revision=None)
    if wish.generation not in (None, old.generation):
        return Refused(
            problem=conflict(
                f"Host {wish.host!r} has been configured meanwhile: this was made from generation "
                f"{wish.generation}, it is at {old.generation}. Nothing was changed."
            )
        )
    return Configured(config=new, revision=host.config_revision)


DECISIONS: dict[type[Any], Callable[[Envelope[Any], Fleet, float], Decision]] = {
    CreateVm: _create,
    StartVm: _change,
    StopVm: _change,
    RebootVm: _change,
    PauseVm: _change,
    ResumeVm: _change,
    DeleteVm: _delete,
    ConfigureHost: _configure,
}
"""Every command that the scheduler owns."""


def superseded(by: VmAssignment) -> Refused:
    """What ends the operation of the generation before, which its host had not confirmed."""
    wish = "its end" if by.ended else f"power {by.power}"
    return Refused(
        problem=conflict(
            f"Superseded by generation {by.generation} ({wish}, operation {by.operation}) "
            f"before host {by.host} had confirmed it."
        )
    )


def overtaken(command: Envelope[Any], held: Held | None) -> Refused | None:
    """Whether a command that comes again was decided after a later one had been: then it is void.

    Ids are in the order of time. This holds for what is delivered again only: what comes first comes
    in the stream's own order, whatever the senders' clocks say.
    """
    if held is None or held.assignment.operation <= command.id:
        return None
    return superseded(held.assignment)
