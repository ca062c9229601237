"""An operation's trail: its steps and the time they took."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from schemas import events
from services.inventory.trail import trail
from tests.fixtures.inventory import CREATE, CREATED, STARTED, VM, envelopes


def test_a_trail_begins_with_the_acceptance_even_if_that_was_published_later() -> None:
    said = envelopes(*CREATED[:3])
    steps = trail([said[1], said[0], said[2]])
    assert [(step.event, step.elapsed_ms) for step in steps] == [
        ("operation.accepted", 0.0),
        ("vm.scheduled", 1000.0),
        ("operation.progressed", 2000.0),
    ]


def test_a_trail_ends_with_its_operation() -> None:
    crash = events.VmCrashed(vm=VM, host="h1", generation=1, detail="panicked")
    steps = trail(envelopes(*CREATED, (CREATE, crash), (CREATE, STARTED)))
    assert [step.event for step in steps][-1] == "operation.succeeded"
    assert len(steps) == len(CREATED)


def test_a_decision_stands_after_the_acceptance_even_if_it_was_told_after_the_end() -> None:
    accepted, scheduled, *rest = envelopes(*CREATED)
    steps = trail([accepted, *rest, scheduled])
    assert steps == trail([accepted, scheduled, *rest])
    assert [step.event for step in steps][:2] == ["operation.accepted", "vm.scheduled"]


def test_a_clock_that_is_behind_shows_no_negative_time() -> None:
    accepted, scheduled = envelopes(*CREATED[:2])
    behind = replace(scheduled, time=accepted.time - timedelta(seconds=3))
    assert [step.elapsed_ms for step in trail([accepted, behind])] == [0.0, 0.0]


def test_without_an_acceptance_time_counts_from_the_first_event() -> None:
    assert [step.elapsed_ms for step in trail(envelopes(*CREATED[1:3]))] == [0.0, 1000.0]


def test_no_events_make_no_trail() -> None:
    assert trail([]) == ()
