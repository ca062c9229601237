"""What is planned for one VM, and that every plan ends where it was meant to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas import events
from schemas.assignments import VmAssignment
from schemas.cloud_init import CloudInit
from services.hostagent.model import (
    NOTHING,
    PATHS,
    AskToStop,
    CreateDisk,
    Define,
    Destroy,
    Observed,
    Pause,
    Plan,
    Record,
    RemoveDisks,
    Resume,
    Say,
    Stamp,
    Start,
    Step,
    Undefine,
    WriteSeed,
    state_of,
    target_of,
)
from services.hostagent.plan import give_up, plan, restart_delay_s
from tests.fixtures.hostagent import VM, assignment_of, spec_of


def seen(state: str = "running", **changes: Any) -> Observed:
    fields: dict[str, Any] = {
        "vm": VM,
        "state": state,
        "generation": 1,
        "spec": spec_of(),
        "cpus": 1,
        "memory_mib": 128,
        **changes,
    }
    return Observed(**fields)


def settled(known: str = "running", generation: int = 1, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "vm": VM,
        "generation": generation,
        "pending": generation,
        "known": known,
        **changes,
    }
    return Record(**fields)


def effects(planned: Plan) -> list[str]:
    return [type(step).__name__ for step in planned.steps if not isinstance(step, Say)]


def said(planned: Plan) -> list[str]:
    return [one.name for step in planned.steps if isinstance(step, Say) for one in step.utterances]


def test_a_new_vm_is_made_step_by_step_and_each_step_is_told() -> None:
    planned = plan(assignment_of(), Record(vm=VM), None)

    assert effects(planned) == ["CreateDisk", "Define", "Start"]
    assert said(planned) == [
        "operation.progressed/disks",
        "vm.defined",
        "vm.started",
        "operation.succeeded",
    ]


def test_what_cloud_init_is_to_find_is_written_before_the_domain_is_defined() -> None:
    wish = assignment_of(spec=spec_of(seeded=True), cloud_init=CloudInit(user_data="#!/bin/sh"))

    assert effects(plan(wish, Record(vm=VM), None)) == [
        "CreateDisk",
        "WriteSeed",
        "Define",
        "Start",
    ]


def test_what_stands_already_is_given_no_seed_again() -> None:
    wish = assignment_of(2, spec=spec_of(seeded=True), cloud_init=CloudInit(), power="stopped")

    assert "WriteSeed" not in effects(plan(wish, settled(), seen(spec=wish.spec)))


def test_a_vm_that_is_as_assigned_needs_nothing() -> None:
    assert plan(assignment_of(), settled(), seen()) == NOTHING


@pytest.mark.parametrize(
    ("state", "wish", "expected"),
    [
        ("stopped", {"power": "running"}, ["Define", "Start"]),
        ("stopped", {"power": "paused"}, ["Define", "Start", "Pause"]),
        ("stopped", {"power": "stopped"}, ["Stamp"]),
        ("running", {"power": "running"}, ["Stamp"]),
        ("running", {"power": "stopped", "stop_mode": "forced"}, ["Stamp", "Destroy"]),
    ],
)
def test_a_definition_that_is_out_of_date_is_made_anew_when_the_guest_is_to_start(
    state: str, wish: dict[str, Any], expected: list[str]
) -> None:
    planned = plan(assignment_of(2, **wish), settled(state), seen(state, outdated=True))

    assert effects(planned) == expected


def test_a_guest_that_runs_on_an_older_definition_is_left_alone_until_it_starts_again() -> None:
    assert plan(assignment_of(), settled(), seen(outdated=True)) == NOTHING

    fallen = plan(assignment_of(), settled(), seen("stopped", outdated=True))
    assert effects(fallen) == ["Define", "Start"]


def test_an_older_generation_is_ignored() -> None:
    assert plan(assignment_of(2, power="stopped"), settled(generation=3), seen()) == NOTHING


@pytest.mark.parametrize(
    ("known", "changes", "expected"),
    [
        ("running", {"power": "stopped"}, ["Stamp", "AskToStop", "Destroy"]),
        ("running", {"power": "stopped", "stop_mode": "forced"}, ["Stamp", "Destroy"]),
        ("running", {"power": "paused"}, ["Stamp", "Pause"]),
        ("running", {"power": "running"}, ["Stamp"]),
        ("paused", {"power": "running"}, ["Stamp", "Resume"]),
        ("paused", {"power": "stopped"}, ["Stamp", "Resume", "AskToStop", "Destroy"]),
        ("stopped", {"power": "running"}, ["Stamp", "Start"]),
        ("stopped", {"power": "paused"}, ["Stamp", "Start", "Pause"]),
        ("stopped", {"ended": True}, ["Undefine", "RemoveDisks"]),
        ("running", {"ended": True, "stop_mode": "forced"}, ["Destroy", "Undefine", "RemoveDisks"]),
    ],
)
def test_a_new_generation_leads_from_the_known_state_to_the_wished_one(
    known: str, changes: dict[str, Any], expected: list[str]
) -> None:
    planned = plan(assignment_of(2, **changes), settled(known), seen(known))

    assert effects(planned) == expected
    # Whether a guest did as it was asked has to be seen first.
    assert said(planned)[-1:] == ([] if "AskToStop" in expected else ["operation.succeeded"])


@pytest.mark.parametrize(
    ("cause", "mode", "detail"),
    [
        ("guest", "graceful", "guest shut down"),
        ("host", "graceful", "guest cut off: it had not shut down within 10 s"),
        ("crashed", "graceful", "guest stopped"),
        ("host", "forced", "guest stopped"),
    ],
)
def test_how_a_guest_stopped_is_told(cause: str, mode: str, detail: str) -> None:
    wish = assignment_of(2, power="stopped", stop_mode=mode)
    begun = settled(pending=2, origin="running")

    planned = plan(wish, begun, seen("stopped", generation=2, cause=cause))

    assert effects(planned) == []
    assert said(planned) == ["vm.stopped", "operation.succeeded"]
    last = planned.steps[-1]
    assert isinstance(last, Say)
    assert last.utterances[-1].data == events.OperationSucceeded(detail=detail)


def test_a_changed_spec_is_defined_anew() -> None:
    planned = plan(assignment_of(2, spec=spec_of(cpus=2)), settled(), seen())

    assert effects(planned) == ["Define"]


def test_a_guest_that_shut_itself_down_is_told_and_started_again() -> None:
    planned = plan(assignment_of(), settled(), seen("stopped", cause="guest"))

    assert effects(planned) == ["Start"]
    assert said(planned) == ["vm.stopped/1", "vm.drifted/1", "vm.mended/started/1"]
    assert planned.mends


def test_a_guest_that_crashed_is_told_as_crashed() -> None:
    planned = plan(assignment_of(), settled(), seen("stopped", cause="crashed"))

    first = planned.steps[0]
    assert isinstance(first, Say)
    assert isinstance(first.utterances[0].data, events.VmCrashed)


def test_what_was_stopped_by_hand_waits_its_turn_but_is_told_at_once() -> None:
    planned = plan(assignment_of(), settled(), seen("stopped"), mend_in_s=4.0)

    assert effects(planned) == []
    assert said(planned) == ["vm.stopped/1", "vm.drifted/1"]
    assert planned.again_in_s == 4.0


def test_a_drift_is_told_once() -> None:
    planned = plan(assignment_of(), settled("stopped", incidents=1), seen("stopped"))

    assert said(planned) == ["vm.mended/started/1"]


def test_a_domain_undefined_by_hand_is_defined_again_on_the_same_disks() -> None:
    planned = plan(assignment_of(), settled(), None)

    assert effects(planned) == ["Define", "Start"]


def test_a_running_domain_whose_definition_was_removed_is_defined_under_the_guest() -> None:
    planned = plan(assignment_of(), settled(), seen(persistent=False))

    assert effects(planned) == ["Define"]
    assert said(planned) == ["vm.drifted/1"]


def test_a_definition_changed_by_hand_is_told_and_mended() -> None:
    planned = plan(assignment_of(), settled(), seen(cpus=4))

    drift = planned.steps[0]
    assert isinstance(drift, Say)
    assert drift.utterances[0].data == events.VmDrifted(
        vm=VM,
        host="h1",
        generation=1,
        expected="defined with 1 CPUs and 128 MiB",
        found="defined with 4 CPUs and 128 MiB",
    )
    assert effects(planned) == ["Define"]


def test_a_domain_that_vireo_did_not_make_is_refused_and_never_touched() -> None:
    for ended in (False, True):
        planned = plan(assignment_of(ended=ended), Record(vm=VM), seen(ours=False))

        assert effects(planned) == []
        assert said(planned) == ["vm.failed", "operation.failed"]


def test_what_comes_back_under_the_id_of_a_deleted_vm_is_left_alone() -> None:
    assignment = assignment_of(2, ended=True)

    assert plan(assignment, settled("absent", generation=2), seen()) == NOTHING


def test_a_deletion_that_failed_is_taken_up_again() -> None:
    planned = plan(assignment_of(2, ended=True), settled("stopped", 2), seen("stopped"))

    assert effects(planned) == ["Undefine", "RemoveDisks"]
    assert said(planned) == ["vm.mended/deleted"]


def test_nothing_is_done_to_a_domain_that_the_hypervisor_is_busy_with() -> None:
    planned = plan(assignment_of(2, ended=True), settled(), seen("paused", busy="migrating"))

    assert effects(planned) == []
    assert planned.again_in_s


def test_giving_up_removes_disks_only_of_a_vm_that_never_was() -> None:
    new = replace(Record(vm=VM), pending=1)

    assert effects(give_up(assignment_of(), new, "no", undo=True)) == ["RemoveDisks"]
    assert effects(give_up(assignment_of(), new, "no", undo=False)) == []
    assert effects(give_up(assignment_of(2), settled(), "no", undo=True)) == []


def test_what_was_given_up_is_left_until_something_changes() -> None:
    record = settled("stopped", failed="no such network")

    assert plan(assignment_of(), record, seen("stopped")) == NOTHING


def test_the_first_mending_comes_at_once_and_the_next_ones_ever_later() -> None:
    delays = [restart_delay_s(n, base_s=1, longest_s=300) for n in (0, 1, 2, 3, 50)]

    assert delays == [0.0, 1.0, 2.0, 4.0, 300.0]


def test_there_is_a_path_between_any_two_states() -> None:
    states = ("absent", "stopped", "running", "paused")

    assert sorted(PATHS) == sorted((a, b) for a in states for b in states)


# any plan, cut short anywhere and made anew from what is then seen, ends in the wished state


def act(step: Step, at: Observed | None, record: Record) -> tuple[Observed | None, Record]:
    """What a step does to the one domain of a make-believe host."""
    match step:
        case Say():
            return at, step.record
        case Define(assignment) | Stamp(assignment):
            before = at or seen("stopped")
            marks = {"generation": assignment.generation, "spec": assignment.spec}
            spec = assignment.spec
            sizes = {"cpus": spec.cpus, "memory_mib": spec.memory_mib}
            return replace(before, ours=True, persistent=True, **marks, **sizes), record
        case Start() | Resume():
            assert at is not None
            return replace(at, state="running"), record
        case Pause():
            assert at is not None
            return replace(at, state="paused"), record
        case AskToStop():
            return at, record
        case Destroy():
            assert at is not None
            return replace(at, state="stopped"), record
        case Undefine():
            assert at is None or at.state == "stopped", "undefined while it ran"
            return None, record
        case CreateDisk() | WriteSeed() | RemoveDisks():
            return at, record


known_states = st.sampled_from(["stopped", "running", "paused"])
wishes = st.builds(
    assignment_of,
    st.just(2),
    power=known_states,
    ended=st.booleans(),
    stop_mode=st.sampled_from(["graceful", "forced"]),
    spec=st.sampled_from([spec_of(), spec_of(cpus=2)]),
)
sights = st.one_of(
    st.none(),
    st.builds(seen, known_states, persistent=st.booleans(), cpus=st.sampled_from([1, 3])),
)
records = st.builds(settled, known_states, st.sampled_from([1, 2]))


@settings(max_examples=400)
@given(wishes, records, sights, st.lists(st.integers(0, 6), max_size=5))
def test_however_often_it_is_cut_short_it_ends_as_assigned(
    assignment: VmAssignment, record: Record, at: Observed | None, cuts: list[int]
) -> None:
    told: dict[str, Any] = {}
    pending = record.generation < assignment.generation
    for cut in [*cuts, None, None, None]:
        for step in plan(assignment, record, at).steps[:cut]:
            at, record = act(step, at, record)
            for one in step.utterances if isinstance(step, Say) else ():
                assert told.setdefault(one.name, one.data) == one.data, "one id, two events"

    if not (assignment.ended and at is not None and record.known == "absent"):
        assert state_of(at) == target_of(assignment) == record.known
    assert ("operation.succeeded" in told) == pending
    assert plan(assignment, record, at) == NOTHING


@given(wishes, records, sights)
def test_no_plan_ends_a_guest_or_replaces_a_disk_without_an_order(
    assignment: VmAssignment, record: Record, at: Observed | None
) -> None:
    steps = plan(assignment, record, at).steps

    if not assignment.ended:
        assert not [step for step in steps if isinstance(step, Undefine | RemoveDisks)]
    assert not [step for step in steps if isinstance(step, CreateDisk)], "its disks exist"
    if not assignment.ended and assignment.power != "stopped":
        assert not [step for step in steps if isinstance(step, Destroy | AskToStop)]
