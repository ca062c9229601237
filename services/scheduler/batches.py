"""Several new VMs decided together: N copies, and gangs, of which all are placed or none. Pure."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from schemas.commands import CreateVm, CreateVms
from schemas.copies import creates_of
from schemas.envelope import Envelope
from schemas.problems import conflict
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.model import Decision, Placed, Refused, Repeated
from services.scheduler.requests import request_of

GANG_REFUSED = Refused(
    problem=conflict("It was to be placed with others or not at all, and they were refused."),
    for_others=True,
)


def decide_together(
    commands: Sequence[Envelope[CreateVm]], fleet: Fleet, *, now: float, gang: bool = False
) -> list[Decision]:
    """One decision for each command, in their order.

    What is placed is reserved at once, so that the next decision sees it; `release_all` takes it back.
    Requests of one shape are decided one after the other: what was worked out for the first holds for
    the others but for one row. Of a gang with a refusal nothing stays reserved, and all are refused.
    """
    decisions: dict[int, Decision] = {}
    for place in _grouped(commands):
        decision = decide(commands[place], fleet, now=now)
        decisions[place] = decision
        if isinstance(decision, Placed):
            fleet.reserve(decision.assignment)
        elif gang and isinstance(decision, Refused):
            release_all(list(decisions.values()), fleet)
            return _all_refused(len(commands), place, decision)
    return [decisions[place] for place in range(len(commands))]


def decide_many(
    command: Envelope[CreateVms], fleet: Fleet, *, now: float, over: Set[str] = frozenset()
) -> list[Decision | None]:
    """One decision for each VM of a command, in the order of their names; what is placed is reserved.

    For a command that comes again, `over` has the operations of members that are known to have ended.
    None: of this one nothing is left to say. A gang is written as a whole or not at all: if one of its
    VMs was ever placed, all were; if none is and the end of one was told, it was refused.
    """
    members = creates_of(command)
    found: dict[str, Decision | None] = {one.id: None for one in members if one.id in over}
    for one in members:
        held = fleet.holdings.of(one.data.vm)
        if held is not None and held.revision and held.assignment.operation == one.id:
            found[one.id] = Repeated(assignment=held.assignment)
    rest = [one for one in members if one.id not in found]
    if command.data.gang and any(isinstance(known, Repeated) for known in found.values()):
        found |= dict.fromkeys((one.id for one in rest), None)
    elif command.data.gang and found:
        found |= dict.fromkeys((one.id for one in rest), GANG_REFUSED)
    else:
        decided = decide_together(rest, fleet, now=now, gang=command.data.gang)
        found |= {one.id: decision for one, decision in zip(rest, decided, strict=True)}
    return [found[one.id] for one in members]


def outcome_of(
    decisions: Sequence[Decision | None], *, gang: bool, failed_before: int = 0
) -> str | Refused:
    """How the placing of several VMs ended, in words; or as what it was refused. Of a gang's refusals
    the first that is its own says why."""
    refused = [one for one in decisions if isinstance(one, Refused)]
    placed = len(decisions) - len(refused) - failed_before
    if refused and (gang or not placed):
        return next((one for one in refused if not one.for_others), refused[0])
    return f"{placed} of {len(decisions)} VMs are placed"


def release_all(decisions: Sequence[Decision | None], fleet: Fleet) -> None:
    """Take back what was reserved and not yet written."""
    for decision in decisions:
        if isinstance(decision, Placed):
            fleet.release(vm=decision.assignment.vm, host=decision.assignment.host)


def _grouped(commands: Sequence[Envelope[Any]]) -> list[int]:
    """Places of the commands, those of one shape together, in the order in which shapes come first."""
    first: dict[Any, int] = {}
    shapes = [request_of(command.data.spec).shape for command in commands]
    for place, shape in enumerate(shapes):
        first.setdefault(shape, place)
    return sorted(range(len(commands)), key=lambda place: (first[shapes[place]], place))


def _all_refused(count: int, place: int, refused: Refused) -> list[Decision]:
    """The one that could not be placed says why; the others, that they were not to go without it."""
    others = Refused(
        problem=conflict(
            f"It was to be placed with {count - 1} others or not at all, and one of them was refused: "
            f"{refused.problem.detail}"
        ),
        unheard=refused.unheard,
        unregistered=refused.unregistered,
        rests_on=refused.rests_on,
        for_others=True,
    )
    return [refused if number == place else others for number in range(count)]
