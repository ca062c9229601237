"""What belongs into FLEET, by the events: every assignment as it was written, in parts of bounded size."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from schemas import samples
from schemas.assignments import VmAssignment
from schemas.ids import derived_id
from schemas.restores import RestoreFleet
from schemas.wire import encode, unwrap
from services.inventory.fleet_state import Lost, assignments_of, parts
from services.scheduler.messages import Voice, said_of

VOICE = Voice(site="main", at=datetime(2026, 3, 1, tzinfo=UTC))
FIRST = samples.ASSIGNMENT
STOPPED = replace(
    FIRST,
    generation=2,
    power="stopped",
    operation=derived_id(FIRST.operation, "stop"),
    supersedes=FIRST.operation,
    actor="token/other",
    stop_mode="forced",
    grace_s=5,
    traceparent=None,
)
ENDED = replace(STOPPED, generation=3, ended=True, operation=derived_id(FIRST.operation, "delete"))


def told(*assignments: VmAssignment) -> list[VmAssignment]:
    return assignments_of(unwrap(said_of(each, VOICE).data) for each in assignments)


def test_what_the_scheduler_says_of_an_assignment_is_enough_to_write_it_again() -> None:
    assert told(FIRST) == [FIRST]
    assert told(FIRST, STOPPED) == [STOPPED]
    assert told(FIRST, STOPPED, ENDED) == [ENDED]


def test_the_newest_generation_counts_whichever_event_came_last() -> None:
    assert told(ENDED, FIRST, STOPPED) == [ENDED]


def test_a_vm_whose_spec_nobody_told_is_left_out() -> None:
    assert told(STOPPED) == []


def test_parts_are_bounded_and_the_facts_of_hosts_come_last() -> None:
    lost = Lost(assignments=(FIRST, STOPPED, ENDED), hosts=(samples.FACTS,))
    made = parts(lost, part_bytes=len(encode(FIRST)) + 1)
    assert [len(each.assignments) for each in made] == [1, 1, 1, 0]
    assert [(each.part, each.of) for each in made] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert made[-1].hosts == (samples.FACTS,)


def test_nothing_lost_is_one_part_with_nothing_in_it() -> None:
    assert parts(Lost()) == [RestoreFleet(part=1, of=1)]
