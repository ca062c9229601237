"""What comes of each command, given the fleet as it stands."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.cloud_init import CloudInit
from schemas.commands import (
    ConfigureHost,
    DeleteVm,
    PauseVm,
    RebootVm,
    ResumeVm,
    StartVm,
    StopVm,
)
from schemas.problems import conflict, not_found, unavailable
from schemas.resources import HostConfig, HostTuning, PowerState
from schemas.rules import Taint
from services.scheduler.decide import decide, overtaken
from services.scheduler.fleet import Fleet
from services.scheduler.messages import Voice, said_of
from services.scheduler.model import (
    TRANSITIONS,
    Acted,
    Changed,
    Configured,
    Decision,
    Placed,
    Refused,
    Repeated,
)
from tests.fixtures.scheduler import START, command, create, facts, fleet_of, id_of, on

VM = id_of(1001)
CREATED = id_of(1)


def decided(data: Any, fleet: Fleet, *, number: int = 2, now: float = 0.0) -> Decision:
    return decide(command(data, number), fleet, now=now)


def fleet_with_vm(power: PowerState = "running", **changes: Any) -> tuple[Fleet, VmAssignment]:
    """A fleet of one host with VM `VM`, made by operation `CREATED`, at revision 10."""
    fleet = fleet_of(facts("h1"))
    placed = decide(create(1), fleet, now=0.0)
    assert isinstance(placed, Placed)
    assignment = replace(placed.assignment, power=power, **changes)
    fleet.apply_assignment(assignment, 10)
    return fleet, assignment


def test_a_new_vm_gets_its_first_generation() -> None:
    wish = create(1, power="stopped")
    decision = decide(wish, fleet_of(facts("h1")), now=0.0)
    assert isinstance(decision, Placed)
    assert decision.assignment == VmAssignment(
        vm=VM,
        host="h1",
        generation=1,
        spec=wish.data.spec,
        power="stopped",
        operation=CREATED,
        actor="ann",
        placement=decision.assignment.placement,
    )


def test_a_create_that_was_carried_out_is_repeated_not_placed_again() -> None:
    fleet, assignment = fleet_with_vm()
    assert decide(create(1), fleet, now=0.0) == Repeated(assignment=assignment)


def test_a_name_belongs_to_one_living_vm() -> None:
    fleet, _ = fleet_with_vm()
    assert decide(create(2), fleet, now=0.0) == Refused(
        problem=conflict(f"The name 'web' is taken by VM {VM}.")
    )


def test_a_name_is_free_again_when_the_end_of_its_vm_is_decided() -> None:
    fleet, _ = fleet_with_vm(ended=True)
    assert isinstance(decide(create(2), fleet, now=0.0), Placed)


def test_an_id_is_given_once_even_when_its_vm_is_gone() -> None:
    fleet, _ = fleet_with_vm()
    fleet.forget_assignment(vm=VM, host="h1", revision=11)
    again = replace(create(2), data=create(1).data)
    assert decide(again, fleet, now=0.0) == Refused(
        problem=conflict(f"The VM id {VM} was given before.")
    )


POWERS: tuple[PowerState, ...] = get_args(PowerState)
WISHES = (StartVm, StopVm, PauseVm, ResumeVm)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_follows_the_table_or_is_refused(power: PowerState, wish: Any) -> None:
    fleet, before = fleet_with_vm(power)
    decision = decided(wish(vm=VM), fleet)
    target = TRANSITIONS.get((power, wish))
    if target is None:
        verb = {PauseVm: "vm.pause", ResumeVm: "vm.resume", StartVm: "vm.start"}[wish]
        assert decision == Refused(problem=conflict(f"VM {VM} is {power}: {verb} makes no sense."))
    else:
        after = replace(before, generation=2, power=target, operation=id_of(2), supersedes=CREATED)
        assert decision == Changed(assignment=after, revision=10)


def test_the_table_of_transitions_is_what_people_expect() -> None:
    words = {(power, wish.__name__): after for (power, wish), after in TRANSITIONS.items()}
    assert words == {
        ("running", "StartVm"): "running",
        ("stopped", "StartVm"): "running",
        ("running", "StopVm"): "stopped",
        ("stopped", "StopVm"): "stopped",
        ("paused", "StopVm"): "stopped",
        ("running", "PauseVm"): "paused",
        ("paused", "PauseVm"): "paused",
        ("running", "ResumeVm"): "running",
        ("paused", "ResumeVm"): "running",
        ("running", "RebootVm"): "running",
    }


def test_a_stop_carries_how_to_stop() -> None:
    fleet, _ = fleet_with_vm()
    decision = decided(StopVm(vm=VM, mode="forced", grace_s=5), fleet)
    assert isinstance(decision, Changed)
    assert (decision.assignment.stop_mode, decision.assignment.grace_s) == ("forced", 5)


def test_a_delete_ends_the_assignment_and_keeps_its_place_until_confirmed() -> None:
    fleet, before = fleet_with_vm()
    decision = decided(DeleteVm(vm=VM, mode="graceful", grace_s=7), fleet)
    after = replace(
        before,
        generation=2,
        power="stopped",
        ended=True,
        operation=id_of(2),
        supersedes=CREATED,
        stop_mode="graceful",
        grace_s=7,
    )
    assert decision == Changed(assignment=after, revision=10)
    reserved = fleet.reserved("h1")
    fleet.apply_assignment(after, 11)
    assert fleet.reserved("h1") == reserved


def test_what_is_for_cloud_init_is_in_every_assignment_until_the_end_and_in_no_event() -> None:
    given = CloudInit(user_data="password: 4711")
    wish = create(1, seeded=True)
    wish = replace(wish, data=replace(wish.data, cloud_init=given))
    fleet = fleet_of(facts("h1"))
    placed = decide(wish, fleet, now=0.0)
    assert isinstance(placed, Placed)
    fleet.apply_assignment(placed.assignment, 10)
    stopped = decided(StopVm(vm=VM), fleet)
    deleted = decided(DeleteVm(vm=VM), fleet)

    assert isinstance(stopped, Changed)
    assert isinstance(deleted, Changed)
    made = (placed.assignment, stopped.assignment, deleted.assignment)
    assert [one.cloud_init for one in made] == [given, given, None]
    voice = Voice(site="main", at=START)
    assert [b"4711" in said_of(one, voice).data for one in made] == [False] * 3


def test_a_vm_that_ends_takes_no_more_wishes() -> None:
    fleet, _ = fleet_with_vm(ended=True, stop_mode="forced")
    assert decided(StartVm(vm=VM), fleet) == Refused(problem=conflict(f"VM {VM} is being deleted."))
    assert decided(DeleteVm(vm=VM), fleet) == Refused(
        problem=conflict(f"VM {VM} is being deleted already.")
    )


def test_a_delete_that_waits_for_the_guest_may_be_forced() -> None:
    fleet, before = fleet_with_vm(ended=True, stop_mode="graceful")
    decision = decided(DeleteVm(vm=VM, mode="forced"), fleet)
    assert isinstance(decision, Changed)
    assert decision.assignment.generation == before.generation + 1
    assert (decision.assignment.ended, decision.assignment.stop_mode) == (True, "forced")
    assert decided(DeleteVm(vm=VM, mode="graceful"), fleet) == Refused(
        problem=conflict(f"VM {VM} is being deleted already.")
    )


@pytest.mark.parametrize("wish", [*WISHES, RebootVm, DeleteVm])
def test_what_is_not_there_is_not_found(wish: Any) -> None:
    assert decided(wish(vm=VM), fleet_of(facts("h1"))) == Refused(problem=not_found("vm", VM))


def test_a_reboot_is_an_action_for_the_host_that_holds_the_vm() -> None:
    fleet, _ = fleet_with_vm()
    assert decided(RebootVm(vm=VM, mode="forced"), fleet) == Acted(vm=VM, host="h1", mode="forced")


def test_a_stopped_vm_is_not_rebooted() -> None:
    fleet, _ = fleet_with_vm("stopped")
    assert decided(RebootVm(vm=VM), fleet) == Refused(
        problem=conflict(f"VM {VM} is stopped: vm.reboot makes no sense.")
    )


def test_a_reboot_is_refused_while_its_host_is_away_but_a_stop_waits_for_it() -> None:
    fleet, _ = fleet_with_vm()
    assert decided(RebootVm(vm=VM), fleet, now=20.0) == Refused(
        problem=unavailable(
            "Host h1 does not answer: it renewed its lease 20 s ago, a lease lasts 10 s."
        ),
        unheard=True,
    )
    assert isinstance(decided(StopVm(vm=VM), fleet, now=20.0), Changed)


def test_a_command_that_was_carried_out_is_repeated() -> None:
    fleet, assignment = fleet_with_vm(operation=id_of(2), generation=2)
    assert decided(StopVm(vm=VM), fleet) == Repeated(assignment=assignment)


def test_an_earlier_command_that_comes_again_is_void_once_a_later_one_was_decided() -> None:
    fleet, _ = fleet_with_vm(operation=id_of(5), generation=2, power="stopped")
    held = fleet.holdings.of(VM)
    assert overtaken(command(StartVm(vm=VM), 4), held) == Refused(
        problem=conflict(
            f"Superseded by generation 2 (power stopped, operation {id_of(5)}) "
            "before host h1 had confirmed it."
        )
    )
    assert overtaken(command(StartVm(vm=VM), 6), held) is None
    assert overtaken(command(StartVm(vm=VM), 6), None) is None


def test_a_host_is_configured_by_what_is_given_and_keeps_the_rest() -> None:
    fleet = fleet_of(facts("h1"))
    fleet.apply_config(HostConfig(host="h1", generation=3, labels={"zone": "a"}), 7)
    assert decided(ConfigureHost(host="h1", maintenance=True), fleet) == Configured(
        config=HostConfig(host="h1", generation=4, maintenance=True, labels={"zone": "a"}),
        revision=7,
    )
    assert decided(ConfigureHost(host="h1", labels={}), fleet) == Configured(
        config=HostConfig(host="h1", generation=4), revision=7
    )


def test_a_host_that_is_so_already_gets_no_new_generation() -> None:
    fleet = fleet_of(facts("h1"))
    assert decided(ConfigureHost(host="h1", maintenance=False), fleet) == Configured(
        config=HostConfig(host="h1"), revision=None
    )


def test_what_was_made_from_an_older_configuration_overwrites_nothing() -> None:
    fleet = fleet_of(facts("h1"))
    fleet.apply_config(HostConfig(host="h1", generation=3, labels={"zone": "a"}), 7)
    mine = ConfigureHost(host="h1", labels={"rack": "b"}, generation=2)
    refused = decided(mine, fleet)
    assert isinstance(refused, Refused)
    assert refused.problem.type == "urn:vireo:problem:conflict"
    assert "made from generation 2, it is at 3" in refused.problem.detail
    assert isinstance(decided(replace(mine, generation=3), fleet), Configured)


def test_what_is_so_already_is_no_conflict_so_that_a_command_may_come_twice() -> None:
    fleet = fleet_of(facts("h1"))
    wish = ConfigureHost(host="h1", labels={"rack": "b"}, generation=0)
    first = decided(wish, fleet)
    assert isinstance(first, Configured)
    fleet.apply_config(first.config, 7)
    assert decided(wish, fleet) == Configured(config=first.config, revision=None)


def test_an_unknown_host_is_not_found() -> None:
    assert decided(ConfigureHost(host="h9"), fleet_of(facts("h1"))) == Refused(
        problem=not_found("host", "h9")
    )


def test_a_pinned_vm_goes_where_it_is_pinned() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"))
    decision = decide(create(1, on=on("h2")), fleet, now=0.0)
    assert isinstance(decision, Placed)
    assert decision.assignment.host == "h2"


def test_a_policy_that_nobody_knows_is_refused() -> None:
    decision = decide(create(1, policy="best"), fleet_of(facts("h1")), now=0.0)
    assert decision == Refused(problem=not_found("policy", "best"), rests_on="policy.best")


def test_a_placement_says_by_which_policy_it_was_made() -> None:
    decision = decide(create(1, policy="pack"), fleet_of(facts("h1")), now=0.0)
    assert isinstance(decision, Placed)
    placement = decision.assignment.placement
    assert (placement.policy, placement.policy_version) == ("pack", 1)


def test_deciding_twice_by_lot_is_deciding_once() -> None:
    hosts = [facts(f"h{number}") for number in range(20)]
    wish = create(7, policy="weighted-random")
    assert decide(wish, fleet_of(*hosts), now=0.0) == decide(wish, fleet_of(*hosts), now=0.0)


def test_taints_and_tuning_are_set_as_they_are_given_and_else_stay() -> None:
    fleet = fleet_of(facts("h1"))
    taints, tuning = (Taint(key="gpu"),), HostTuning(weight=10.0)
    first = decided(ConfigureHost(host="h1", taints=taints, tuning=tuning), fleet)
    assert isinstance(first, Configured)
    assert first.config == HostConfig(host="h1", generation=1, taints=taints, tuning=tuning)
    fleet.apply_config(first.config, 9)
    second = decided(ConfigureHost(host="h1", maintenance=True), fleet)
    assert second == Configured(
        config=replace(first.config, generation=2, maintenance=True), revision=9
    )
