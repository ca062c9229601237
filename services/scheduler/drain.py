"""Emptying a host: every VM on it gets a new one, as if all were placed anew without that host. Pure.

The hardest to place are decided first, and each is reserved before the next is decided. The VMs are
lifted off together, so that one that is to be near another follows it instead of holding it back; a VM
that can go nowhere stays, and then nothing may leave that it asks to be near.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from services.scheduler.draft import Draft, Refusal, Step, movable
from services.scheduler.fleet import Fleet
from services.scheduler.model import Held
from services.scheduler.rules import FITS

ROUNDS = 8
"""So often all is thought through again because some have to stay; then all that could be among them do."""


class Drained(Struct, frozen=True):
    """The moves that empty a host, in their order; who stays, and why; the fleet as it will be."""

    steps: tuple[Step, ...]
    refused: tuple[Refusal, ...]
    after: Draft


def drain(fleet: Fleet, host: str, *, now: float) -> Drained:
    """Raises KeyError for a host that has not registered."""
    stay: dict[str, Refusal] = {}
    for number in range(ROUNDS + 1):
        draft = draft_without(fleet, host, now=now)
        leaving = [
            one for one in movable(draft.fleet.holdings.on(host)) if one.assignment.vm not in stay
        ]
        steps, refused = _place_anew(draft, leaving)
        stay |= {one.held.assignment.vm: one for one in refused}
        if not refused or not _matters(draft, leaving):
            break
        if number == ROUNDS - 1:
            stay |= _all_bound(draft, leaving, stay)
    return Drained(tuple(steps), tuple(stay.values()), draft)


def draft_without(fleet: Fleet, host: str, *, now: float) -> Draft:
    """As if the host were in maintenance: it takes nobody, and no spread waits for it. Raises KeyError
    for a host that has not registered."""
    row = fleet.host(host)
    if row is None:
        raise KeyError(host)
    draft = Draft(fleet, now=now)
    config = replace(row.config, maintenance=True)
    draft.fleet.apply_config(config, row.config_revision + 1)
    return draft


def _matters(draft: Draft, leaving: Sequence[Held]) -> bool:
    """Whether who stays has a say in where others may go, or waits for others: by rules about other VMs
    that reach beyond the host. (Who keeps others off its own host keeps them off one that they leave.)"""
    return any(_is_bound(one) for one in leaving) or any(
        draft.others.allows(one) is not None for one in leaving
    )


def _is_bound(held: Held) -> bool:
    on = held.assignment.spec.on
    return bool(on.affinity or on.spread or any(one.topology for one in on.anti_affinity))


def _all_bound(
    draft: Draft, leaving: Sequence[Held], stay: dict[str, Refusal]
) -> dict[str, Refusal]:
    words = "it is bound to VMs that stay, and no way was found to move them together"
    return {
        one.assignment.vm: Refusal(one, words)
        for one in leaving
        if one.assignment.vm not in stay
        and (_is_bound(one) or draft.others.allows(one) is not None)
    }


def _place_anew(draft: Draft, leaving: Sequence[Held]) -> tuple[list[Step], list[Refusal]]:
    """Lift them all, place each; those that wait for others to be placed are tried again."""
    for held in leaving:
        draft.lift(held)
    steps: list[Step] = []
    pending = _hardest_first(draft, leaving)
    while pending:
        left = [held for held in pending if not _place(draft, held, steps)]
        if len(left) == len(pending) or not _matters(draft, left):
            pending = left
            break
        pending = left
    refused = [draft.why_nowhere(held) for held in pending]
    for held in pending:
        draft.put(held)
    return steps, refused


def _place(draft: Draft, held: Held, steps: list[Step]) -> bool:
    """The best host for a VM that was lifted; reserved at once."""
    policy = draft.policy_of(held)
    if policy is None:
        return False
    choice = draft.choose(held, policy)
    scores, bearable = choice.scores, draft.others.allows(held)
    if bearable is not None:
        scores = np.where(bearable, scores, -np.inf)
    best = int(scores.argmax())
    if scores[best] == -np.inf:
        return False
    host = draft.fleet.table.columns.names[best]
    fitting = int((choice.verdicts == FITS).sum())
    steps.append(Step(held, host, float(scores[best]), fitting))
    draft.put(held, host)
    return True


def _hardest_first(draft: Draft, leaving: Sequence[Held]) -> list[Held]:
    """Fewest hosts that fit, then the largest: what fits nearly nowhere must not find it taken."""
    return sorted(leaving, key=lambda held: _ease(draft, held))


def _ease(draft: Draft, held: Held) -> tuple[int, int, int, int, str]:
    policy, here = draft.policy_of(held), held.assignment
    fitting = 0 if policy is None else int((draft.choose(held, policy).verdicts == FITS).sum())
    return (
        fitting,
        -here.spec.memory_mib,
        -here.spec.cpus,
        -held.demand.disk_gib,
        here.vm,
    )
