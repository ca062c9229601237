"""Plans by example: what is proposed, what is refused and why, and when a plan no longer holds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas.plans import Band, Plan
from schemas.resources import DiskSpec, HostConfig, HostFacts, VmSpec
from schemas.rules import Affinity, HostRules, Spread
from services.scheduler.balance import Taste
from services.scheduler.fleet import Fleet
from services.scheduler.plans import changes, plan_balance, plan_drain
from tests.fixtures.plans import FRAME, NOW, Guest, held, loaded, peopled
from tests.fixtures.scheduler import facts, id_of, spec

BAND = Band(start=0.1, stop=0.05, max_moves=10)
DB = {"app": "db"}


def guest(name: str, host: str = "h1", power: Any = "running", **changes: Any) -> Guest:
    return Guest(spec=spec(name, **changes), host=host, power=power)


def hosts(*names: str, **racks: str) -> list[HostFacts]:
    labelled = [facts(name, labels={"rack": rack}) for name, rack in racks.items()]
    return [facts(name) for name in names] + labelled


def moves(plan: Plan) -> list[tuple[str, str]]:
    return [(move.name, move.to_host) for move in plan.moves]


def balanced(fleet: Fleet, band: Band = BAND, **taste: Any) -> Plan:
    return plan_balance(fleet, band, Taste(**taste), FRAME)


# draining


def test_every_vm_of_a_drained_host_gets_the_host_that_its_policy_would_choose() -> None:
    fleet = peopled(hosts("h1", "h2", "h3"), [guest("a"), guest("b"), guest("c", "h2")])
    plan = plan_drain(fleet, "h1", FRAME)
    assert moves(plan) == [("a", "h3"), ("b", "h2")]
    assert (plan.outcome, plan.detail, plan.stays) == ("reached", "2 moves empty h1", ())
    assert plan.policies == {"spread": 1}
    assert [one.host for one in plan.relies_on] == ["h1", "h2", "h3"]


def test_an_empty_host_needs_no_move() -> None:
    plan = plan_drain(peopled(hosts("h1", "h2"), []), "h1", FRAME)
    assert (plan.outcome, plan.detail, plan.moves) == ("even", "h1 holds no VM", ())


def test_the_largest_goes_first_so_that_all_find_room() -> None:
    """Placed in the order of their names, the small ones would take the place of the large one."""
    small = [guest(f"s{n}", memory_mib=1024) for n in range(4)]
    full = [guest("f", "h3", memory_mib=3072)]
    fleet = peopled(hosts("h1", "h2", "h3"), [*small, guest("z", memory_mib=3072), *full])
    plan = plan_drain(fleet, "h1", FRAME)
    assert plan.outcome == "stuck"
    assert moves(plan)[0] == ("z", "h2")
    assert len(plan.moves) == 3


def test_who_can_go_nowhere_is_named_with_the_rule_that_excludes_each_host() -> None:
    pinned = guest("p", on=HostRules(host="h1"))
    large = guest("l", memory_mib=4096)
    fleet = peopled(hosts("h1", "h2", "h3"), [pinned, large, guest("x", "h2"), guest("y", "h3")])
    plan = plan_drain(fleet, "h1", FRAME)
    stays = {one.name: one for one in plan.stays}
    assert stays["p"].excluded_by == {"maintenance": 1, "pinned": 2}
    assert stays["l"].excluded_by == {"maintenance": 1, "memory": 2}
    assert stays["l"].excluded[0].detail == "needs 4096 MiB, 3584 of 4096 MiB are left"
    assert plan.detail == "0 of 2 VMs of h1 find another host"


def test_those_that_belong_together_leave_together() -> None:
    together = HostRules(affinity=(Affinity(labels=DB),))
    fleet = peopled(
        hosts("h1", "h2", "h3"),
        [guest("db", labels=DB), guest("web", on=together), guest("log", on=together)],
    )
    plan = plan_drain(fleet, "h1", FRAME)
    assert len({move.to_host for move in plan.moves}) == 1
    assert len(plan.moves) == 3


def test_nothing_leaves_that_a_vm_which_has_to_stay_asks_to_be_near() -> None:
    stays = HostRules(host="h1", affinity=(Affinity(labels=DB),))
    fleet = peopled(hosts("h1", "h2"), [guest("db", labels=DB), guest("web", on=stays)])
    plan = plan_drain(fleet, "h1", FRAME)
    assert plan.moves == ()
    assert {one.name for one in plan.stays} == {"db", "web"}


def test_those_that_shun_one_another_are_kept_apart() -> None:
    apart = HostRules(anti_affinity=(Affinity(labels=DB),))
    fleet = peopled(
        hosts("h1", "h2", "h3"),
        [guest("a", labels=DB, on=apart), guest("b", "h2", labels=DB, on=apart)],
    )
    assert moves(plan_drain(fleet, "h1", FRAME)) == [("a", "h3")]


def test_a_spread_that_others_hold_is_not_made_uneven() -> None:
    """`web` may go anywhere by its own rules; in rack a, `even` in rack b would be one too many ahead."""
    even = HostRules(spread=(Spread(labels=DB, topology="rack"),))
    guests = [
        guest("web", labels=DB),
        guest("even1", "h3", labels=DB, on=even),
        guest("even2", "h4", labels=DB, on=even),
    ]
    fleet = peopled(hosts(h1="a", h2="a", h3="b", h4="c"), guests)
    assert moves(plan_drain(fleet, "h1", FRAME)) == [("web", "h2")]


def test_what_has_ended_is_left_to_go_by_itself() -> None:
    gone = Guest(spec=spec("gone"), host="h1", ended=True)
    assert plan_drain(peopled(hosts("h1", "h2"), [gone]), "h1", FRAME).moves == ()


# balancing


def test_the_fewest_moves_take_the_fleet_below_the_band() -> None:
    guests = [guest(name, memory_mib=1024) for name in ("a", "b", "c", "d")]
    plan = balanced(peopled(hosts("h1", "h2"), guests))
    assert (plan.outcome, len(plan.moves)) == ("reached", 2)
    assert plan.before.memory == 0.5
    assert plan.after.total == 0.0
    assert plan.detail == "2 moves take the imbalance from 0.3125 to 0.0000"
    assert plan.cost_mib == 2048


def test_inside_the_band_nothing_is_proposed() -> None:
    fleet = peopled(hosts("h1", "h2"), [guest("a", memory_mib=1024)])
    plan = balanced(fleet, Band(start=0.1, stop=0.0, max_moves=9))
    assert plan.before.total == plan.after.total == 0.078125
    assert (plan.outcome, plan.moves) == ("even", ())
    assert plan.detail == "the imbalance, 0.0781, is not above 0.1"


def test_no_more_moves_are_proposed_than_are_allowed() -> None:
    guests = [guest(name, memory_mib=1024) for name in ("a", "b", "c", "d")]
    plan = balanced(peopled(hosts("h1", "h2"), guests), replace(BAND, max_moves=1))
    assert (plan.outcome, len(plan.moves)) == ("limited", 1)


def test_one_move_of_a_large_vm_is_better_than_many_of_small_ones() -> None:
    small = [guest(f"s{n}", memory_mib=256) for n in range(8)]
    plan = balanced(peopled(hosts("h1", "h2"), [*small, guest("large", memory_mib=2048)]))
    assert moves(plan)[0] == ("large", "h2")


def test_of_equals_the_one_that_is_cheaper_to_copy_is_moved() -> None:
    """A stopped VM costs its disks, a running one its memory."""
    disks = (DiskSpec(image="tiny", size_gib=40),)
    guests = [guest("off", power="stopped", disks=disks), guest("on"), guest("a"), guest("b")]
    plan = balanced(peopled(hosts("h1", "h2"), guests))
    assert all(move.live and move.cost_mib == 512 for move in plan.moves)
    assert "off" not in dict(moves(plan))


def test_a_move_that_is_not_worth_its_cost_is_not_made() -> None:
    guests = [guest(name, memory_mib=1024) for name in ("a", "b", "c", "d")]
    plan = balanced(peopled(hosts("h1", "h2"), guests), cost_per_gib=10.0)
    assert (plan.outcome, plan.moves) == ("stuck", ())


def test_nothing_is_moved_to_hosts_that_are_silent_or_in_maintenance() -> None:
    guests = [guest(name, memory_mib=1024) for name in ("a", "b", "c", "d")]
    kept = HostConfig(host="h2", maintenance=True)
    fleet = peopled(hosts("h1", "h2", "h3", "h4"), guests, kept, silent="h3")
    assert {host for _, host in moves(balanced(fleet))} == {"h4"}


def test_rules_are_kept_even_where_a_move_would_be_worth_most() -> None:
    near = HostRules(affinity=(Affinity(labels=DB),))
    guests = [
        guest("db", labels=DB, memory_mib=2048),
        guest("web", on=near),
        guest("free", memory_mib=1024),
        guest("pinned", memory_mib=1024 - 512, on=HostRules(host="h1")),
    ]
    plan = balanced(peopled(hosts("h1", "h2"), guests))
    assert moves(plan) == [("free", "h2")]
    assert plan.outcome == "stuck"


def test_measured_load_counts_and_goes_with_the_vms_that_make_it() -> None:
    guests = [guest(name, host, memory_mib=512) for name, host in (("a", "h1"), ("b", "h1"))]
    guests += [guest(name, "h2", memory_mib=512) for name in ("c", "d")]
    fleet = loaded(peopled(hosts("h1", "h2"), guests), h1=0.9, h2=0.1)
    plan = balanced(fleet, Band(start=0.1, stop=0.1, max_moves=4))
    assert plan.before.load == 0.4
    assert plan.moves[0].from_host == "h1"
    assert plan.after.total < plan.before.total


def test_a_large_fleet_is_weighed_in_parts_and_no_part_is_forgotten() -> None:
    """The most uneven host's VMs are pinned to it: the move is found among those weighed later."""
    pinned = [guest(f"p{n}", memory_mib=1024, on=HostRules(host="h1")) for n in range(4)]
    fleet = peopled(hosts("h1", "h2", "h3"), [*pinned, guest("a", "h2"), guest("b", "h2")])
    whole = balanced(fleet, Band(start=0.1, stop=0.0, max_moves=9))
    assert balanced(fleet, Band(start=0.1, stop=0.0, max_moves=9), pairs=3) == whole
    assert moves(whole) == [("a", "h3")]


# whether a plan still holds


@pytest.fixture
def fleet() -> Fleet:
    return peopled(hosts("h1", "h2", "h3"), [guest("a", memory_mib=2048), guest("b", "h2")])


@pytest.fixture
def plan(fleet: Fleet) -> Plan:
    return plan_drain(fleet, "h1", FRAME)


def changed(plan: Plan, fleet: Fleet, now: float = NOW) -> dict[str, str]:
    return changes(plan, fleet, now=now)


def test_a_plan_holds_while_nothing_changes_and_survives_being_saved(
    plan: Plan, fleet: Fleet
) -> None:
    saved = msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
    assert saved == plan
    assert changed(saved, fleet) == {}


def test_a_plan_does_not_hold_when_its_vm_has_changed(plan: Plan, fleet: Fleet) -> None:
    assignment = held(0, guest("a", memory_mib=2048))
    fleet.apply_assignment(replace(assignment, generation=2, power="stopped"), 500)
    assert changed(plan, fleet) == {"vm a": "its assignment has changed"}


def test_a_plan_does_not_hold_when_its_vm_is_gone(plan: Plan, fleet: Fleet) -> None:
    fleet.forget_assignment(vm=id_of(0), host="h1", revision=500)
    assert changed(plan, fleet) == {
        "vm a": "it is not on h1 any more",
        "host h1": "VMs have come or gone",
    }


def test_a_plan_does_not_hold_when_its_hosts_have_changed(plan: Plan, fleet: Fleet) -> None:
    fleet.apply_assignment(held(7, guest("new", "h3")), 500)
    fleet.apply_config(HostConfig(host="h3", labels={"x": "y"}), 501)
    fleet.apply_facts(facts("h1", cpus=2), 502)
    assert changed(plan, fleet) == {
        "host h1": "its facts have changed",
        "host h3": "its configuration has changed; VMs have come or gone",
    }


def test_what_happens_on_hosts_that_are_not_in_the_plan_is_nothing_to_it(
    plan: Plan, fleet: Fleet
) -> None:
    fleet.apply_assignment(held(7, guest("new", "h2")), 500)
    assert changed(plan, fleet) == {}


def test_a_plan_does_not_hold_when_a_lease_has_run_out(plan: Plan, fleet: Fleet) -> None:
    assert changed(plan, fleet, now=60.0) == {"vm a": "h3 does not take it any more: lease"}


def test_a_plan_does_not_hold_when_a_rule_elsewhere_is_in_its_way() -> None:
    """Nothing in the plan changed; but a VM that shuns this one has come to the same rack."""
    fleet = peopled(hosts(h1="a", h2="b", h3="b"), [guest("a", labels=DB)])
    plan = plan_drain(fleet, "h1", FRAME)
    assert moves(plan) == [("a", "h2")]
    shuns = HostRules(anti_affinity=(Affinity(labels=DB, topology="rack"),))
    fleet.apply_assignment(held(7, guest("new", "h3", on=shuns)), 500)
    assert changed(plan, fleet) == {"vm a": "h2 does not take it any more: anti_affinity"}


def test_a_plan_does_not_hold_under_another_version_of_its_policy(plan: Plan, fleet: Fleet) -> None:
    policy = fleet.policy(None)
    assert policy is not None
    fleet.put_policy(replace(policy.policy, version=2))
    assert changed(plan, fleet) == {"policy spread": "it was version 1, it is version 2"}


def test_a_plan_that_somebody_wrote_by_hand_is_checked_by_the_rules(
    plan: Plan, fleet: Fleet
) -> None:
    forged = replace(plan, moves=(replace(plan.moves[0], to_host="h9"),))
    assert changed(forged, fleet) == {"host h9": "there is no such host"}
    forged = replace(plan, moves=plan.moves * 2)
    assert changed(forged, fleet) == {"vm a": "the plan moves it twice"}
    spec = VmSpec(name="huge", memory_mib=4000, disks=(DiskSpec(image="tiny"),))
    full = peopled(hosts("h1", "h2"), [guest("a", memory_mib=2048), Guest(spec=spec, host="h2")])
    old = plan_drain(peopled(hosts("h1", "h2"), [guest("a", memory_mib=2048)]), "h1", FRAME)
    forged = replace(old, relies_on=())
    assert changed(forged, full) == {"vm a": "h2 does not take it any more: memory"}
