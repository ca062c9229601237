"""A policy compiled to operations on columns, and what they say of hosts: verdicts and scores.

`compile_policy` picks the rules and terms once, when a policy is loaded. A verdict is the code of the
first rule that excludes a host, 0 where none does. A score is the weighted mean of the terms that are
known. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.policies import Policy, SoftRule
from services.scheduler.columns import Floats, Rows
from services.scheduler.requests import Request
from services.scheduler.rules import (
    CODE,
    FITS,
    FLEET_RULES,
    HOST_RULES,
    FleetRule,
    HostRule,
    holds_near,
    near,
    skew_above,
)
from services.scheduler.scores import (
    FLEET_TERMS,
    GAPPY,
    HOST_TERMS,
    FleetTerm,
    HostTerm,
    avoided_taints,
    preferred_hosts,
)
from services.scheduler.table import Table

Verdicts = NDArray[np.int8]


class Part(Struct, frozen=True):
    """One term of a score, for some hosts. `gappy`: NaN where it is not known."""

    name: str
    weight: float
    values: Floats
    gappy: bool = False


class CompiledPolicy(Struct, frozen=True, kw_only=True):
    """A policy ready to be applied."""

    policy: Policy
    content: bytes
    """What tells it from every other policy, be they of one name and version."""
    host_rules: tuple[tuple[int, HostRule], ...]
    """Last rule first: who comes later overwrites, so the first rule has the last word."""
    fleet_rules: tuple[tuple[int, FleetRule], ...]
    loosened: tuple[SoftRule, ...]
    host_terms: tuple[tuple[str, float, HostTerm, bool], ...]
    fleet_terms: tuple[tuple[str, float, FleetTerm], ...]

    @property
    def key(self) -> tuple[str, int]:
        return self.policy.name, self.policy.version


def compile_policy(policy: Policy) -> CompiledPolicy:
    def is_required(rule: str) -> bool:
        return policy.rules.get(rule, "required") == "required"  # type: ignore[call-overload,no-any-return]

    weights = {term: weight for term, weight in policy.weights.items() if weight > 0}
    return CompiledPolicy(
        policy=policy,
        content=msgspec.json.encode(policy),
        host_rules=tuple(
            (CODE[rule], test) for rule, test in reversed(HOST_RULES.items()) if is_required(rule)
        ),
        fleet_rules=tuple(
            (CODE[rule], test) for rule, test in FLEET_RULES.items() if is_required(rule)
        ),
        loosened=tuple(rule for rule, said in sorted(policy.rules.items()) if said == "preferred"),
        host_terms=tuple(
            (term, weight, HOST_TERMS[term], term in GAPPY)
            for term, weight in weights.items()
            if term in HOST_TERMS
        ),
        fleet_terms=tuple(
            (term, weight, FLEET_TERMS[term])
            for term, weight in weights.items()
            if term in FLEET_TERMS
        ),
    )


def is_local(policy: CompiledPolicy, request: Request) -> bool:
    """Whether a host's score follows from its own row, so that it may be kept until that changes."""
    return (
        not policy.fleet_terms
        and not any(rule in FLEET_RULES for rule in policy.loosened)
        and all(said.required for _, said in (*request.near, *request.away))
        and all(said.required for _, said in request.spread)
    )


# verdicts


def judge_hosts(table: Table, request: Request, policy: CompiledPolicy, at: Rows) -> Verdicts:
    """The first rule of the host alone that excludes each."""
    verdicts = np.zeros(len(table.columns), np.int8)[at]
    for code, test in policy.host_rules:
        fits = test(table, request, at)
        if fits is not None:
            np.copyto(verdicts, code, where=~fits)
    return verdicts


def judge_fleet(
    table: Table, request: Request, policy: CompiledPolicy, verdicts: Verdicts
) -> Verdicts:
    """The same with the rules about other VMs, which come last; `verdicts` are of all hosts."""
    judged = verdicts.copy()
    for code, test in policy.fleet_rules:
        for excluded in test(table, request, verdicts):
            if excluded.dtype == np.bool_:
                np.copyto(judged, code, where=excluded & (judged == FITS))
            else:
                judged[excluded[judged[excluded] == FITS]] = code
    return judged


# scores


def parts(
    table: Table,
    request: Request,
    policy: CompiledPolicy,
    at: Rows,
    *,
    verdicts: Verdicts,
    chance: int,
) -> Iterator[Part]:
    """The terms of the scores of some hosts; `verdicts` are of all."""
    parameters = policy.policy.parameters
    for name, weight, term, gappy in policy.host_terms:
        yield Part(name, weight, term(table, request, parameters, at), gappy)
    for name, weight, fleet_term in policy.fleet_terms:
        yield Part(name, weight, fleet_term(table, request, chance)[at])
    weight = parameters.preference_weight
    if weight:
        yield from _wishes(table, request, policy, at, verdicts=verdicts, weight=weight)


def _wishes(
    table: Table,
    request: Request,
    policy: CompiledPolicy,
    at: Rows,
    *,
    verdicts: Verdicts,
    weight: float,
) -> Iterator[Part]:
    """What the request would rather have, and the rules that the policy has loosened."""
    if request.prefer:
        yield Part("preferred_hosts", weight, preferred_hosts(table, request, at))
    if any(taint.effect == "avoid" for taint in table.taints()):
        yield Part("avoided_taints", weight, avoided_taints(table, request, at))
    for rule in policy.loosened:
        if rule in HOST_RULES and _concerns(rule, table, request):
            fits = HOST_RULES[rule](table, request, at)
            values = np.ones(len(table.columns))[at] if fits is None else fits.astype(float)
            yield Part(rule, weight, values)
    for name, wished in (
        ("affinity", _affinity(table, request, "affinity" in policy.loosened)),
        ("anti_affinity", _anti_affinity(table, request, "anti_affinity" in policy.loosened)),
        ("spread", _spread(table, request, verdicts, "spread" in policy.loosened)),
    ):
        if wished is not None:
            yield Part(name, weight, wished[at])


def _concerns(rule: SoftRule, table: Table, request: Request) -> bool:
    """Whether a loosened rule has anything to say of this request."""
    match rule:
        case "labels":
            return bool(request.where.pairs or request.where.expressions)
        case "image":
            return bool(request.images)
        case "taints":
            return bool(HOST_RULES[rule](table, request, np.zeros(0, np.intp)) is not None)
    return request.one_node


def _affinity(table: Table, request: Request, loosened: bool) -> Floats | None:
    return _mean(
        [
            (said.weight, near(table, request, chosen, said.topology).astype(float))
            for chosen, said in request.near
            if loosened or not said.required
        ]
    )


def _anti_affinity(table: Table, request: Request, loosened: bool) -> Floats | None:
    return _mean(
        [
            (said.weight, (~holds_near(table, chosen, said.topology)).astype(float))
            for chosen, said in request.away
            if loosened or not said.required
        ]
    )


def _spread(table: Table, request: Request, verdicts: Verdicts, loosened: bool) -> Floats | None:
    """1 as far as the skew is allowed, then 1/2, 1/3, …; 0 for a host in no domain."""
    return _mean(
        [
            (
                said.weight,
                _evenness(skew_above(table, request, chosen, said, verdicts) - said.max_skew),
            )
            for chosen, said in request.spread
            if loosened or not said.required
        ]
    )


def _evenness(excess: Floats) -> Floats:
    even: Floats = np.where(np.isnan(excess), 0.0, 1.0 / (1.0 + np.maximum(excess, 0.0)))
    return even


def _mean(weighted: list[tuple[int, Floats]]) -> Floats | None:
    if not weighted:
        return None
    total = np.zeros_like(weighted[0][1])
    for weight, values in weighted:
        total = total + weight * values
    mean: Floats = total / sum(weight for weight, _ in weighted)
    return mean


def score(known: Iterator[Part], count: int) -> Floats:
    """The weighted mean of the parts that are known of each of `count` hosts; 0 without any."""
    total: Floats = np.zeros(count)
    weights: Floats | float = 0.0
    for part in known:
        if part.gappy:
            there = ~np.isnan(part.values)
            total = total + np.where(there, part.weight * part.values, 0.0)
            weights = weights + np.where(there, part.weight, 0.0)
        else:
            total = total + part.weight * part.values
            weights = weights + part.weight
    if isinstance(weights, float):
        return total / weights if weights else total
    mean: Floats = np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)
    return mean
