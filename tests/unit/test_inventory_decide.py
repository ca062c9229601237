"""What follows from events: rows of VMs, operations and hosts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import events
from schemas.problems import Problem
from schemas.resources import GuestFacts, HostConfig
from services.inventory.decide import fact, project_all
from services.inventory.model import Fact, OperationRow, Tables, VmRow, position_of
from tests.fixtures.inventory import (
    CREATE,
    CREATED,
    DEFINED,
    DELETE,
    FACTS,
    LIFE,
    PLACEMENT,
    SCHEDULED,
    SITE,
    SPEC,
    STARTED,
    STOP,
    SUCCEEDED,
    VM,
    Told,
    at,
    envelopes,
    progressed,
    reassigned,
)


def story(*told: Told) -> list[Fact]:
    """Facts in order, a second apart."""
    said = enumerate(envelopes(*told), start=1)
    return [fact(each, position_of(0, number)) for number, each in said]


def after(facts: Iterable[Fact], before: Tables | None = None) -> Tables:
    return project_all(before or Tables(), facts)


def vm_after(*told: Told) -> VmRow:
    return after(story(*told)).vms[VM]


def operation_after(*told: Told) -> OperationRow:
    return after(story(*told)).operations[CREATE]


def test_a_created_vm_runs_with_all_that_was_told_of_it() -> None:
    assert vm_after(*CREATED) == VmRow(
        id=VM,
        site=SITE,
        created_at=at(2),
        updated_at=at(5),
        position=5,
        state_position=5,
        name="web-1",
        host="h1",
        state="running",
        power="running",
        generation=1,
        cpus=2,
        memory_mib=1024,
        disk_gib=10,
        unsized='["tiny"]',
        labels='{"tier":"web"}',
        spec=msgspec.json.encode(SPEC).decode(),
        placement=msgspec.json.encode(PLACEMENT).decode(),
        operation=CREATE,
    )


def test_the_operation_of_a_create_succeeds_with_its_placement() -> None:
    assert operation_after(*CREATED) == OperationRow(
        id=CREATE,
        command="vm.create",
        kind="vm",
        target=VM,
        phase="succeeded",
        actor="token/admin",
        created_at=at(1),
        updated_at=at(7),
        position=7,
        progress=1.0,
        detail="done",
        host="h1",
        placement=msgspec.json.encode(PLACEMENT).decode(),
    )


@pytest.mark.parametrize(
    ("told", "phase"), [(1, "accepted"), (2, "scheduled"), (3, "running"), (7, "succeeded")]
)
def test_an_operation_goes_through_its_phases(told: int, phase: str) -> None:
    assert operation_after(*CREATED[:told]).phase == phase


@pytest.mark.parametrize(
    ("told", "state"), [(2, "scheduled"), (3, "creating"), (4, "creating"), (5, "running")]
)
def test_a_vm_goes_through_its_states(told: int, state: str) -> None:
    assert vm_after(*CREATED[:told]).state == state


@given(st.permutations(story(*LIFE)), st.integers(0, len(LIFE)))
def test_a_finished_life_reads_the_same_in_whatever_order_it_was_told(
    facts: list[Fact], cut: int
) -> None:
    first = after(facts[:cut])
    second = after(facts[cut:], first)
    merged = Tables(
        vms=first.vms | second.vms, operations=first.operations | second.operations, hosts={}
    )
    assert merged == after(story(*LIFE))


BOOTED: tuple[Told, ...] = (
    *CREATED,
    (CREATE, events.VmGuestChanged(vm=VM, host="h1", guest=GuestFacts(hostname="web"))),
)
"""What a guest says first is told under the operation that made it."""


@given(st.permutations(story(*BOOTED)))
def test_a_vm_that_was_made_runs_in_whatever_order_it_was_told(facts: list[Fact]) -> None:
    assert after(facts).vms[VM].state == "running"


def test_a_vm_runs_though_its_guest_was_heard_before_its_start() -> None:
    """What an inventory that was killed had in hand comes last."""
    facts = story(*BOOTED)
    late = [facts[4], facts[6]]
    tables = Tables()
    for each in [one for one in facts if one not in late] + late:
        changed = after([each], tables)
        tables = Tables(
            vms=tables.vms | changed.vms,
            operations=tables.operations | changed.operations,
            hosts={},
        )
    assert tables.vms[VM].state == "running"


def test_a_story_told_twice_is_the_story() -> None:
    once = after(story(*LIFE))
    assert after(story(*LIFE), once) == once


def test_a_vm_that_is_made_to_be_stopped_is_stopped_when_its_operation_succeeds() -> None:
    spec = msgspec.structs.replace(SPEC, power="stopped")
    scheduled = msgspec.structs.replace(SCHEDULED, spec=spec)
    told = (CREATED[0], (CREATE, scheduled), (CREATE, DEFINED), (CREATE, SUCCEEDED))
    assert vm_after(*told).state == "stopped"


def test_a_deleted_vm_stays_deleted_and_frees_its_name() -> None:
    row = vm_after(*LIFE)
    assert (row.state, row.deleted) == ("deleted", True)


def test_a_vm_that_ends_is_not_brought_back_by_what_its_host_says_of_it() -> None:
    ending = (*CREATED, (DELETE, reassigned(2, "stopped", ended=True)))
    assert vm_after(*ending, (None, STARTED)).state == "deleting"


def test_a_crash_is_a_state_with_a_reason_until_the_vm_runs_again() -> None:
    crash = events.VmCrashed(vm=VM, host="h1", generation=1, detail="panicked")
    crashed = vm_after(*CREATED, (None, crash))
    mended = vm_after(*CREATED, (None, crash), (None, STARTED))
    assert [(row.state, row.problem) for row in (crashed, mended)] == [
        ("crashed", "panicked"),
        ("running", ""),
    ]


def test_drift_is_a_problem_until_it_is_mended() -> None:
    stopped = events.VmStopped(vm=VM, host="h1", generation=1, reason="guest")
    drift = events.VmDrifted(vm=VM, host="h1", generation=1, expected="running", found="stopped")
    drifted = vm_after(*CREATED, (CREATE, stopped), (CREATE, drift))
    mended = vm_after(*CREATED, (CREATE, stopped), (CREATE, drift), (CREATE, STARTED))
    assert [(row.state, row.problem) for row in (drifted, mended)] == [
        ("stopped", "Found stopped, expected running."),
        ("running", ""),
    ]


def test_what_befalls_a_vm_later_does_not_touch_the_operation_that_made_it() -> None:
    crash = events.VmCrashed(vm=VM, host="h1", generation=1, detail="panicked")
    later = operation_after(*CREATED, (CREATE, crash), (CREATE, STARTED))
    assert msgspec.structs.replace(later, position=7) == operation_after(*CREATED)


def test_a_vm_that_could_not_be_made_failed_with_the_reason() -> None:
    failed = events.VmFailed(vm=VM, host="h1", generation=1, detail="no such network")
    row = vm_after(*CREATED[:3], (CREATE, failed))
    assert (row.state, row.problem) == ("failed", "no such network")


def test_a_running_vm_on_which_a_wish_failed_still_runs() -> None:
    failed = events.VmFailed(vm=VM, host="h1", generation=2, detail="cannot pause")
    row = vm_after(*CREATED, (STOP, failed))
    assert (row.state, row.problem) == ("running", "cannot pause")


def test_what_a_guest_says_is_kept_and_older_sayings_are_not() -> None:
    old, new = GuestFacts(hostname="old"), GuestFacts(hostname="new", addresses=("10.0.0.2",))
    facts = story(
        *CREATED,
        (None, events.VmGuestChanged(vm=VM, host="h1", guest=old)),
        (None, events.VmGuestChanged(vm=VM, host="h1", guest=new)),
    )
    row = after([*facts[:7], facts[8], facts[7]]).vms[VM]
    assert row.guest == '{"hostname":"new","addresses":["10.0.0.2"]}'


def test_a_vm_is_unknown_until_it_was_scheduled() -> None:
    assert vm_after((None, STARTED)).spec is None


def test_a_refused_operation_fails_with_the_problem_and_makes_no_vm() -> None:
    problem = Problem(type="urn:vireo:problem:unplaceable", title="No host fits", status=409)
    tables = after(story(CREATED[0], (CREATE, events.OperationFailed(problem=problem))))
    row = tables.operations[CREATE]
    assert (row.phase, row.problem, row.detail, tables.vms) == (
        "failed",
        msgspec.json.encode(problem).decode(),
        "No host fits",
        {},
    )


def test_an_operation_that_ended_never_goes_back() -> None:
    problem = Problem(type="urn:vireo:problem:internal", title="late", status=500)
    late = ((CREATE, events.OperationFailed(problem=problem)), (CREATE, progressed(1, 9)))
    assert operation_after(*CREATED, *late).phase == "succeeded"
    assert operation_after(*CREATED, *late).problem is None


def test_an_operation_of_which_the_acceptance_was_lost_is_known_by_what_was_done() -> None:
    row = operation_after(*CREATED[1:])
    assert (row.command, row.target, row.phase, row.actor) == (
        "vm.create",
        VM,
        "succeeded",
        "token/admin",
    )


@pytest.mark.parametrize(
    ("said", "command"),
    [
        (reassigned(2, "running"), "vm.start"),
        (reassigned(2, "stopped"), "vm.stop"),
        (reassigned(2, "paused"), "vm.pause"),
        (reassigned(2, "stopped", ended=True), "vm.delete"),
    ],
)
def test_a_new_generation_tells_the_command(said: events.VmReassigned, command: str) -> None:
    assert operation_after((CREATE, said)).command == command


def test_progress_only_grows() -> None:
    facts = story(CREATED[0], (CREATE, progressed(3, 4)), (CREATE, progressed(1, 4)))
    assert after(facts).operations[CREATE].progress == 0.75


def test_text_that_postgres_cannot_hold_is_made_fit() -> None:
    crash = events.VmCrashed(vm=VM, host="h1", generation=1, detail="a\0b")
    spec = msgspec.structs.replace(SPEC, labels={"a": "b\0c"})
    scheduled = msgspec.structs.replace(SCHEDULED, spec=spec)
    row = vm_after((CREATE, scheduled), (None, crash))
    assert (row.problem, row.labels) == ("a\ufffdb", '{"a":"b\ufffdc"}')


def host_after(*told: Any) -> Any:
    return after(story(*((None, data) for data in told))).hosts["h1"]


def test_a_host_has_the_labels_of_its_operators_over_its_own() -> None:
    config = HostConfig(host="h1", generation=1, labels={"rack": "b"})
    row = host_after(
        events.HostRegistered(facts=FACTS),
        events.HostConfigured(config=config),
        events.HostRegistered(facts=FACTS),
    )
    assert (row.labels, row.config, row.registered_at, row.updated_at) == (
        '{"disk":"ssd","rack":"b"}',
        msgspec.json.encode(config).decode(),
        at(1),
        at(3),
    )


def test_a_host_is_silent_until_it_returns() -> None:
    told = (events.HostRegistered(facts=FACTS), events.HostSilent(host="h1", silent_s=12))
    returned = events.HostReturned(host="h1")
    assert (host_after(*told).state, host_after(*told, returned).state) == ("silent", "online")


def test_an_older_configuration_does_not_replace_a_newer_one() -> None:
    new = HostConfig(host="h1", generation=2, maintenance=True)
    old = HostConfig(host="h1", generation=1)
    row = host_after(events.HostConfigured(config=new), events.HostConfigured(config=old))
    assert row.config_generation == 2


def test_what_a_new_stream_says_is_newer_than_what_the_lost_one_said() -> None:
    assert position_of(1, 1) > position_of(0, (1 << 48) - 1)
