"""Plans as values: moves with their reasons, sums, what they rest on, and whether that still holds. Pure.

Which moves are made is decided in `balance.py` and `drain.py`. A plan holds as long as FLEET has the same
of every VM and host in it, the policies are the same, and each move, in turn, still breaks no rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from schemas.plans import Band, HostReliance, Move, Plan, PlanOutcome, Stays
from schemas.problems import Problem
from services.scheduler.balance import Balanced, Taste, balance
from services.scheduler.draft import Draft, Refusal, Step, cost_mib, is_live
from services.scheduler.drain import Drained, draft_without, drain
from services.scheduler.fleet import Fleet
from services.scheduler.imbalance import DIGITS, Shares, Weights

MOST_REASONS = 200
PROMISED = Weights(load=0.0)
"""For what was not measured anew: shares of what is promised alone."""


class Frame(Struct, frozen=True, kw_only=True):
    """What a plan needs from outside."""

    id: str
    site: str
    at: datetime
    now: float


def plan_balance(fleet: Fleet, band: Band, taste: Taste, frame: Frame) -> Plan:
    """The moves that take the fleet below the band, if it is above it."""
    found = balance(fleet, band, taste, now=frame.now)
    return Plan(
        id=frame.id,
        kind="balance",
        made_at=frame.at,
        site=frame.site,
        outcome=found.outcome,
        detail=_balance_words(found, band),
        band=band,
        policies=_policies(fleet, found.steps),
        before=found.before.imbalance(),
        after=found.after.imbalance(),
        cost_mib=_cost(found.steps),
        moves=tuple(_balance_moves(found)),
        relies_on=_reliance(fleet, found.steps),
    )


def plan_drain(fleet: Fleet, host: str, frame: Frame) -> Plan:
    """The moves that empty a host. Raises KeyError for one that has not registered."""
    found = drain(fleet, host, now=frame.now)
    before = Draft(fleet, now=frame.now).fleet.table
    return Plan(
        id=frame.id,
        kind="drain",
        made_at=frame.at,
        site=frame.site,
        host=host,
        outcome="stuck" if found.refused else "reached" if found.steps else "even",
        detail=_drain_words(found, host),
        policies=_policies(fleet, found.steps),
        before=Shares(before, PROMISED).imbalance(),
        after=Shares(found.after.fleet.table, PROMISED).imbalance(),
        cost_mib=_cost(found.steps),
        moves=tuple(_drain_move(fleet, step) for step in found.steps),
        stays=tuple(_stays(one) for one in found.refused),
        relies_on=_reliance(fleet, found.steps),
    )


# moves


def _balance_moves(found: Balanced) -> Iterable[Move]:
    for number, step in enumerate(found.steps):
        before, after = found.scores[number : number + 2]
        words = f"the imbalance falls from {before:.4f} to {after:.4f}"
        yield _move(step, words, gain=round(before - after, DIGITS))


def _drain_move(fleet: Fleet, step: Step) -> Move:
    policy = fleet.policy_of(step.held.assignment.spec)
    name = policy.policy.name if policy else ""
    return _move(step, f"best of {step.fitting} by {name}, score {step.score:.4f}")


def _move(step: Step, reason: str, *, gain: float = 0.0) -> Move:
    here = step.held.assignment
    return Move(
        vm=here.vm,
        name=here.spec.name,
        from_host=here.host,
        to_host=step.to_host,
        live=is_live(step.held),
        memory_mib=here.spec.memory_mib,
        cost_mib=cost_mib(step.held),
        gain=gain,
        reason=reason,
        revision=step.held.revision,
    )


def _stays(refusal: Refusal) -> Stays:
    here = refusal.held.assignment
    return Stays(
        vm=here.vm,
        name=here.spec.name,
        detail=refusal.detail,
        excluded_by=refusal.excluded_by,
        excluded=refusal.excluded,
    )


def _cost(steps: Sequence[Step]) -> int:
    return sum(cost_mib(step.held) for step in steps)


def _policies(fleet: Fleet, steps: Sequence[Step]) -> dict[str, int]:
    found = (fleet.policy_of(step.held.assignment.spec) for step in steps)
    return dict(sorted(one.key for one in found if one is not None))


def _balance_words(found: Balanced, band: Band) -> str:
    first, last, count = found.scores[0], found.scores[-1], _moves_words(len(found.steps))
    words: dict[PlanOutcome, str] = {
        "even": f"the imbalance, {first:.4f}, is not above {band.start:g}",
        "reached": f"{count} take the imbalance from {first:.4f} to {last:.4f}",
        "limited": f"{count} take the imbalance from {first:.4f} to {last:.4f}; no more were allowed",
        "stuck": f"{count} take the imbalance from {first:.4f} to {last:.4f}; "
        "no other may be made that is worth its cost",
    }
    return words[found.outcome]


def _drain_words(found: Drained, host: str) -> str:
    moving, staying = len(found.steps), len(found.refused)
    if not moving and not staying:
        return f"{host} holds no VM"
    if not staying:
        return f"{_moves_words(moving)} empty {host}"
    return f"{moving} of {moving + staying} VMs of {host} find another host"


def _moves_words(count: int) -> str:
    return "1 move" if count == 1 else f"{count} moves"


# reliance


def _reliance(fleet: Fleet, steps: Sequence[Step]) -> tuple[HostReliance, ...]:
    sources = {step.held.assignment.host for step in steps}
    hosts = sorted(sources | {step.to_host for step in steps})
    return tuple(_of_host(fleet, host) for host in hosts)


def _of_host(fleet: Fleet, host: str) -> HostReliance:
    row = fleet.host(host)
    return HostReliance(
        host=host,
        facts_revision=row.facts_revision if row else 0,
        config_revision=row.config_revision if row else 0,
        vms=fingerprint(held.assignment.vm for held in fleet.holdings.on(host)),
    )


def fingerprint(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def changes(plan: Plan, fleet: Fleet, *, now: float) -> dict[str, str]:
    """What a plan relied on and is so no more: VM, host or policy, and what has changed. Empty if it
    still holds."""
    found = dict(_changed_vms(plan, fleet))
    found |= dict(_changed_hosts(plan, fleet))
    for name, version in plan.policies.items():
        policy = fleet.policy(name)
        if policy is None or policy.policy.version != version:
            there = f"version {policy.policy.version}" if policy else "gone"
            found[f"policy {name}"] = f"it was version {version}, it is {there}"
    return found or dict(_broken_rules(plan, fleet, now))


def refused(changed: Mapping[str, str]) -> Problem:
    """What is said of a plan that does not hold any more."""
    return Problem(
        type="urn:vireo:problem:conflict",
        title="The plan does not hold any more",
        status=409,
        detail="What it relied on has changed: have a new one made.",
        reasons=dict(list(changed.items())[:MOST_REASONS]),
    )


def _changed_vms(plan: Plan, fleet: Fleet) -> Iterable[tuple[str, str]]:
    seen: set[str] = set()
    for move in plan.moves:
        if move.vm in seen:
            yield f"vm {move.name}", "the plan moves it twice"
        seen.add(move.vm)
        held = fleet.holdings.at(move.vm, move.from_host)
        if held is None or held.assignment.ended:
            yield f"vm {move.name}", f"it is not on {move.from_host} any more"
        elif held.revision != move.revision:
            yield f"vm {move.name}", "its assignment has changed"


def _changed_hosts(plan: Plan, fleet: Fleet) -> Iterable[tuple[str, str]]:
    for host in sorted({host for move in plan.moves for host in (move.from_host, move.to_host)}):
        if fleet.host(host) is None:
            yield f"host {host}", "there is no such host"
    for old in plan.relies_on:
        new = _of_host(fleet, old.host)
        changed = [
            words
            for words, is_so in (
                ("its facts have changed", old.facts_revision != new.facts_revision),
                ("its configuration has changed", old.config_revision != new.config_revision),
                ("VMs have come or gone", old.vms != new.vms),
            )
            if is_so
        ]
        if changed:
            yield f"host {old.host}", "; ".join(changed)


def _broken_rules(plan: Plan, fleet: Fleet, now: float) -> Iterable[tuple[str, str]]:
    """Make the moves once more, on a copy: a lease may have run out, or a VM on a host that is not in
    the plan may have something against them."""
    together = plan.kind == "drain"
    if together and plan.host is not None and fleet.host(plan.host) is not None:
        draft = draft_without(fleet, plan.host, now=now)
    else:
        draft = Draft(fleet, now=now)
    found = [fleet.holdings.at(move.vm, move.from_host) for move in plan.moves]
    moving = [held for held in found if held is not None]
    for held in moving if together else ():
        draft.lift(held)
    for held, move in zip(moving, plan.moves, strict=True):
        if not together:
            draft.lift(held)
        why = draft.why_not(held, move.to_host)
        if why:
            yield f"vm {move.name}", f"{move.to_host} does not take it any more: {why}"
            return
        draft.put(held, move.to_host)
