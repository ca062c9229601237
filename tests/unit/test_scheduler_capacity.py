"""How many more fit: as many as the naive double places one by one, and what stops the next."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.definitions import Project, Quota
from schemas.forecasts import Capacity, MoreHosts, Room, RoomByLabel
from schemas.policies import Policy
from schemas.problems import Problem, not_found
from schemas.queries import CountCapacity
from schemas.resources import DiskSpec, HostConfig, HostFacts, HostTuning, VmSpec
from schemas.rules import Affinity, Hardware, HostRules
from services.scheduler.capacity import capacity
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.model import Limits, Placed, Refused
from services.scheduler.requests import request_of
from services.scheduler.room import concerns_copies
from tests.fixtures.scheduler import create, facts, fleet_of, settled, spec
from tests.fixtures.scheduler_twins import (
    NODES,
    Twins,
    check_compatible,
    check_same,
    known_facts,
    policies,
    steps,
    wishes,
)
from tests.oracle.scheduler import Oracle, OracleVm, whole_disk_gib

MOST = 400
EVERYTHING = Limits(ranking=99, shown_reasons=99)
IN_PARTS = Limits(ranking=99, shown_reasons=99, exact_hosts=2, part_hosts=2)
APART = HostRules(anti_affinity=(Affinity(labels={"app": "db"}),))


def ask(fleet: Fleet, wish: VmSpec | None = None, *, most: int = MOST, **said: Any) -> Capacity:
    asked = CountCapacity(spec=wish, **said)
    found = capacity(fleet.copy(), asked, site="lab", now=1.0, most=most)
    assert isinstance(found, Capacity)
    return found


def one_by_one(
    oracle: Oracle, wish: VmSpec, policy: Policy, *, now: float
) -> tuple[dict[str, int], dict[str, int], int | None]:
    """Copies per host as the double places them, how many hosts each rule excludes at the end, and after
    how many copies the project's quota would have let in no more, if it would."""
    counts, allowed = Counter[str](), None
    while True:
        if allowed is None and oracle.over_quota(wish):
            allowed = counts.total()
        said = oracle.decide(wish, policy, now=now, chance=counts.total())
        if not said.scored:
            return dict(counts), dict(Counter(said.excluded.values())), allowed
        host = said.scored[0][0]
        oracle.hold(f"copy {counts.total()}", OracleVm(wish, host, said.node))
        counts[host] += 1


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(
    policy=policies,
    first=st.lists(known_facts(), min_size=2, max_size=4),
    churn=steps,
    wish=wishes(),
    in_parts=st.booleans(),
)
def test_as_many_fit_as_the_naive_double_places(
    policy: Policy, first: list[HostFacts], churn: list[Any], wish: VmSpec, in_parts: bool
) -> None:
    limits = IN_PARTS if in_parts else EVERYTHING
    twins = Twins(policy, limits, check_compatible if in_parts else check_same)
    for step in [*first, *churn]:
        twins.tell(step)
    asked = CountCapacity(spec=replace(wish, policy="drawn"))
    found = capacity(twins.fleet.copy(), asked, site="lab", now=twins.now, most=MOST)
    assert isinstance(found, Capacity)
    assert found.complete
    counts, excluded, allowed = one_by_one(twins.oracle, wish, policy, now=twins.now)
    if in_parts and concerns_copies(request_of(wish), twins.compiled):
        # Parts are filled in another order, and the order matters to rules about copies.
        assert (not found.hosts) == (not counts)
        return
    room = sum(counts.values())
    assert {one.host: one.count for one in found.hosts} == counts
    assert found.excluded_by == (excluded if found.count == room else {})
    most = room if allowed is None else allowed
    if is_alike_on_every_host(twins.oracle, wish):
        assert (found.count, bool(found.over_quota)) == (most, allowed is not None)
    else:
        # What a copy will take of the quota is said by the largest image.
        assert found.count is not None
        assert found.count <= most


def is_alike_on_every_host(oracle: Oracle, wish: VmSpec) -> bool:
    *_, asked_gib = oracle.asked(wish)
    sizes = {whole_disk_gib(wish, host.images()) for host in oracle.hosts.values()}
    return sizes <= {asked_gib}


def test_capacity_is_told_per_host_and_by_label_and_what_stops_the_next() -> None:
    fleet = fleet_of(
        facts("h1", labels={"rack": "a"}),
        facts("h2", labels={"rack": "b"}, memory_mib=2560),
        facts("h3", labels={"rack": "a"}, networks=()),
        facts("h4"),
    )
    found = ask(fleet, spec(memory_mib=1024), by="rack")
    assert found.count == 10
    assert found.hosts == (
        Room(host="h1", count=4),
        Room(host="h4", count=4),
        Room(host="h2", count=2),
    )
    assert found.values == (
        RoomByLabel(value="a", hosts=2, count=4),
        RoomByLabel(value=None, hosts=1, count=4),
        RoomByLabel(value="b", hosts=1, count=2),
    )
    assert found.excluded_by == {"network": 1, "memory": 3}
    nearest = found.excluded[0]
    assert (nearest.host, nearest.detail) == ("h1", "needs 1024 MiB, 0 of 4096 MiB are left")


def with_quota(quota: Quota, *hosts: HostFacts) -> Fleet:
    fleet = fleet_of(*hosts)
    fleet.definitions.apply_project("shop", Project(name="shop", quota=quota), 1)
    return fleet


def created(fleet: Fleet, number: int) -> Problem | None:
    """Another VM of the project; or why it was refused."""
    decision = decide(create(number, f"web{number}", project="shop"), fleet, now=1.0)
    if isinstance(decision, Refused):
        return decision.problem
    assert isinstance(decision, Placed)
    fleet.apply_assignment(decision.assignment, number)
    return None


@pytest.mark.parametrize(
    "quota",
    [
        Quota(vms=5),
        Quota(cpus=4, vms=9),
        Quota(memory_mib=2047),
        Quota(disk_gib=6),
        Quota(disk_gib=1),
        Quota(vms=0),
    ],
)
def test_as_many_fit_a_quota_as_are_placed_one_after_the_other(quota: Quota) -> None:
    fleet = with_quota(quota, facts("h1"), facts("h2"))
    founds = [ask(fleet, spec(project="shop"))]
    number = 1
    while (problem := created(fleet, number)) is None:
        founds.append(ask(fleet, spec(project="shop")))
        number += 1
    assert [found.count for found in founds] == list(range(number - 1, -1, -1))
    assert all("; ".join(found.over_quota) in problem.detail for found in founds)
    assert all(found.over_quota and found.complete for found in founds)


def test_a_quota_that_is_broken_already_lets_none_in_even_of_what_takes_nothing_of_it() -> None:
    fleet = with_quota(Quota(), facts("h1"))
    assert created(fleet, 1) is None
    fleet.definitions.apply_project("shop", Project(name="shop", quota=Quota(disk_gib=1)), 2)
    bare = spec(project="shop", disks=(DiskSpec(size_gib=1),))
    assert ask(fleet, bare).count == 0


def test_under_a_quota_hosts_tell_what_they_could_take_and_exclude_nothing() -> None:
    fleet = with_quota(Quota(vms=3), facts("h1", labels={"rack": "a"}), facts("h2"))
    found = ask(fleet, spec(project="shop"), by="rack")
    assert (found.count, found.project, found.excluded_by) == (3, "shop", {})
    assert found.over_quota == ("3 VMs are allowed, 3 are taken, 1 more are asked for",)
    assert found.hosts == (Room(host="h1", count=8), Room(host="h2", count=8))
    assert [(one.value, one.count) for one in found.values] == [("a", 8), (None, 8)]


def test_a_quota_and_hosts_that_stop_the_same_copy_are_both_named() -> None:
    found = ask(with_quota(Quota(vms=8), facts("h1")), spec(project="shop"))
    assert (found.count, len(found.over_quota), found.excluded_by) == (8, 1, {"memory": 1})


def test_a_quota_that_is_wide_enough_says_nothing() -> None:
    found = ask(with_quota(Quota(vms=9), facts("h1")), spec(project="shop"))
    assert (found.count, found.over_quota, found.excluded_by) == (8, (), {"memory": 1})


def test_room_for_vms_of_an_unknown_project_is_not_counted() -> None:
    asked = CountCapacity(spec=spec(project="shop"))
    found = capacity(fleet_of(facts("h1")), asked, site="lab", now=1.0, most=MOST)
    assert found == not_found("project", "shop")


def test_counting_changes_nothing() -> None:
    fleet = fleet_of(facts("h1"))
    assert ask(fleet, spec()).count == ask(fleet, spec()).count == 8
    assert fleet.reserved("h1").cpus == 0


def test_copies_that_shun_each_other_take_a_host_each() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"), facts("h3"))
    found = ask(fleet, spec(labels={"app": "db"}, on=APART))
    assert (found.count, found.excluded_by) == (3, {"anti_affinity": 3})


def test_counting_one_by_one_stops_at_its_bound_and_says_so() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"), facts("h3"))
    found = ask(fleet, spec(labels={"app": "db"}, on=APART), most=2)
    assert (found.count, found.complete, found.excluded_by) == (2, False, {})
    assert ask(fleet, spec(labels={"app": "db"}, on=APART), most=3).complete


def test_what_is_counted_by_host_knows_no_bound() -> None:
    found = ask(fleet_of(facts("h1", cpus=400, memory_mib=400_000)), spec(memory_mib=32), most=2)
    assert (found.count, found.complete) == (50, True)


def test_guests_of_one_node_are_counted_by_node() -> None:
    fleet = fleet_of(facts("h1", cpus=16, memory_mib=7000, numa=NODES))
    assert ask(fleet, spec(memory_mib=1600)).count == 2
    assert ask(fleet, spec(memory_mib=1600, hardware=Hardware(numa="any"))).count == 4


# what if


def test_what_would_fit_without_a_host() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"))
    found = ask(fleet, spec(memory_mib=1024), without=("h2",))
    assert (found.count, [room.host for room in found.hosts]) == (4, ["h1"])
    assert found.displaced is not None
    assert (found.displaced.vms, found.displaced.stuck) == (0, ())


def test_the_vms_of_a_host_that_is_taken_away_move_first() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"))
    settled(fleet, 1, host="h2", memory_mib=1024)
    settled(fleet, 2, host="h2", memory_mib=2048, on=HostRules(host="h2"))
    settled(fleet, 3, host="h1", memory_mib=1024)
    found = ask(fleet, spec(memory_mib=1024), without=("h2",))
    assert found.count == 2
    assert found.displaced is not None
    assert (found.displaced.vms, found.displaced.placed) == (2, 1)
    (stuck,) = found.displaced.stuck
    assert (stuck.name, stuck.host, stuck.excluded_by) == ("vm2", "h2", {"pinned": 1})
    assert fleet.reserved("h2").cpus == 2


def test_would_it_still_fit_is_answered_without_a_spec() -> None:
    found = ask(fleet_of(facts("h1"), facts("h2")), without=("h1",))
    assert (found.count, found.hosts, found.excluded_by) == (None, (), {})


def test_what_would_fit_with_more_hosts_like_one() -> None:
    fleet = fleet_of(facts("h1", cpus=8, memory_mib=8704, labels={"rack": "a"}), facts("h2"))
    fleet.apply_config(HostConfig(host="h1", tuning=HostTuning(reserve_memory_mib=4608)), 9)
    more = MoreHosts(count=2, like="h1", labels={"rack": "b"})
    found = ask(fleet, spec(memory_mib=1024), add=(more,), by="rack")
    assert {room.host: room.count for room in found.hosts} == {
        "h1": 4,
        "h1-more-1": 4,
        "h1-more-2": 4,
        "h2": 4,
    }
    assert found.values[0] == RoomByLabel(value="b", hosts=2, count=8)


def test_what_would_fit_with_a_host_of_a_size() -> None:
    more = MoreHosts(cpus=8, memory_mib=8192 + 512, disk_gib=100)
    found = ask(fleet_of(facts("h1")), spec(memory_mib=1024), add=(more,))
    assert {room.host: room.count for room in found.hosts} == {"h1": 4, "more-1": 8}


def test_a_host_can_be_replaced_by_others_like_it() -> None:
    fleet = fleet_of(facts("h1"))
    found = ask(fleet, spec(), without=("h1",), add=(MoreHosts(count=2, like="h1"),))
    assert found.count == 16


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ({"without": ("h9",)}, "There is no host 'h9'."),
        ({"add": (MoreHosts(like="h9"),)}, "There is no host 'h9'."),
        ({"spec": spec(policy="mine")}, "There is no policy 'mine'."),
    ],
)
def test_what_is_not_known_is_said(said: dict[str, Any], detail: str) -> None:
    asked = CountCapacity(**said)
    found = capacity(fleet_of(facts("h1")), asked, site="lab", now=1.0, most=MOST)
    assert isinstance(found, Problem)
    assert (found.status, found.detail) == (404, detail)


def test_a_policy_may_be_given_whole() -> None:
    fleet = fleet_of(facts("h1", images=()))
    strict, loose = (
        Policy(name="mine", version=3, rules={"image": said}) for said in ("required", "off")
    )
    assert ask(fleet, spec(), policy=strict).count == 0
    found = ask(fleet, spec(), policy=loose)
    assert (found.count, found.policy, found.policy_version) == (8, "mine", 3)
