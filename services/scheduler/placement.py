"""Where a new VM goes, and why: a choice put into a `Placement`, or into a refusal with reasons. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from schemas.problems import Problem
from schemas.resources import Excluded, Placement, PlacementRule, Scored, VmSpec
from services.scheduler.choice import Choice, Chooser, best_rows
from services.scheduler.compiled import CompiledPolicy, parts
from services.scheduler.model import Ask
from services.scheduler.reasons import teller
from services.scheduler.requests import Request
from services.scheduler.rules import CODE, UNSEEN, node_fits
from services.scheduler.table import Table

DIGITS = 4


class NoHost(Struct, frozen=True, kw_only=True):
    """No host fits; `excluded` says why, those that came nearest to fitting first."""

    problem: Problem
    excluded: tuple[Excluded, ...]
    excluded_by: dict[PlacementRule, int]


def place(
    chooser: Chooser, request: Request, policy: CompiledPolicy, ask: Ask
) -> Placement | NoHost:
    """The host for a new VM with the reasons, or why there is none."""
    table = chooser.table
    choice = chooser.choose(request, policy, chance=ask.chance, now=ask.now)
    counts = count_excluded(choice)
    if choice.best is None:
        excluded = _excluded(table, request, choice, counts, table.limits.reasons)
        problem = _unplaceable(request.spec, counts, excluded)
        return NoHost(problem=problem, excluded=excluded, excluded_by=counts)
    return Placement(
        host=table.columns.names[choice.best],
        policy=policy.policy.name,
        policy_version=policy.policy.version,
        considered=int((choice.verdicts != UNSEEN).sum()),
        ranking=_ranking(table, request, policy, choice, ask.chance),
        excluded=_excluded(table, request, choice, counts, table.limits.shown_reasons),
        excluded_by=counts,
        numa_node=best_node(table, request, choice.best),
    )


def count_excluded(choice: Choice) -> dict[PlacementRule, int]:
    """How many hosts each rule was the first to exclude, in the order of the rules."""
    counts = np.bincount(choice.verdicts, minlength=UNSEEN + 1).tolist()
    return {rule: counts[code] for rule, code in CODE.items() if counts[code]}


def best_node(table: Table, request: Request, row: int) -> int | None:
    """The id of the NUMA node for the guest: of those it fits, the one with the least memory left."""
    if not request.one_node or not table.columns.has_numa[row]:
        return None
    columns, at = table.columns, np.array([row])
    fitting = [
        (float(most[row] - used[row]), int(columns.codes("node", node)[row]))
        for node in range(table.nodes)
        if node_fits(table, request, node, at)[0]
        for most, used in [
            (columns.amounts("node_most_memory", node), columns.amounts("node_used_memory", node))
        ]
    ]
    # None fits where the policy does not insist on the rule.
    return min(fitting)[1] if fitting else None


def _ranking(
    table: Table, request: Request, policy: CompiledPolicy, choice: Choice, chance: int
) -> tuple[Scored, ...]:
    rows = best_rows(choice.scores, table.limits.ranking)
    at = np.array(rows, np.intp)
    known = list(parts(table, request, policy, at, verdicts=choice.verdicts, chance=chance))
    values = [(part.name, part.values.tolist()) for part in known]
    return tuple(
        Scored(
            host=table.columns.names[row],
            score=round(float(choice.scores[row]), DIGITS),
            terms={name: round(of[place], DIGITS) for name, of in values if of[place] == of[place]},
        )
        for place, row in enumerate(rows)
    )


def _excluded(
    table: Table, request: Request, choice: Choice, counts: dict[PlacementRule, int], most: int
) -> tuple[Excluded, ...]:
    """At most so many, those that the last rule excluded first, then by name. `counts` are by rule."""
    if not counts:
        return ()
    names, verdicts = table.columns.names, choice.verdicts
    found: list[Excluded] = []
    for rule in reversed(counts):
        rows = (verdicts == CODE[rule]).nonzero()[0][: most - len(found)].tolist()
        tell = teller(rule, table, request, verdicts)
        found += [Excluded(host=names[row], rule=rule, detail=tell(row)) for row in rows]
    return tuple(found)


def _unplaceable(
    spec: VmSpec, counts: dict[PlacementRule, int], excluded: Iterable[Excluded]
) -> Problem:
    """The refusal of what fits nowhere, with the reason per host."""
    return Problem(
        type="urn:vireo:problem:unplaceable",
        title="No host fits",
        status=409,
        detail=_in_short(spec, counts),
        reasons={reason.host: f"{reason.rule}: {reason.detail}" for reason in excluded},
    )


def _in_short(spec: VmSpec, counts: dict[PlacementRule, int]) -> str:
    cpus = "1 CPU" if spec.cpus == 1 else f"{spec.cpus} CPUs"
    wish = f"{cpus} and {spec.memory_mib} MiB of memory"
    if not counts:
        return f"No host has registered that could offer {wish}."
    by_rule = ", ".join(f"{count} by {rule}" for rule, count in counts.items())
    return f"No host of {sum(counts.values())} can take {wish}: {by_rule}."
