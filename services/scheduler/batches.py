"""Several new VMs decided together: N copies, and gangs, of which all are placed or none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.commands import CreateVm
from schemas.envelope import Envelope
from schemas.problems import conflict
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.model import Decision, Placed, Refused
from services.scheduler.requests import request_of


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


def release_all(decisions: Sequence[Decision], fleet: Fleet) -> None:
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
    )
    return [refused if number == place else others for number in range(count)]
