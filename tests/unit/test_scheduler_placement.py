"""Where a new VM goes, and why not elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.assignments import VmAssignment
from schemas.problems import Problem
from schemas.resources import (
    DiskSpec,
    Excluded,
    ForeignDomain,
    HostConfig,
    HostFacts,
    HostImage,
    NicSpec,
    Placement,
    Scored,
    VmSpec,
)
from schemas.telemetry import HostSample
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.model import Limits, Placed, Refused
from services.scheduler.placement import NoHost
from services.scheduler.requests import Demand
from tests.fixtures.scheduler import create, facts, fleet_of, new_fleet, on, place, spec, why_not


def fill(
    fleet: Fleet, host: str, *, cpus: int = 1, memory_mib: int = 32, number: int = 900
) -> None:
    placed = decide(
        create(number, f"fill{number}", cpus=cpus, memory_mib=memory_mib, on=on(host)),
        fleet,
        now=0.0,
    )
    assert isinstance(placed, Placed)
    fleet.apply_assignment(placed.assignment, number)


def test_a_host_is_chosen_with_what_was_weighed_and_who_was_excluded() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"), facts("h3", images=()))
    fill(fleet, "h1", memory_mib=2048)
    assert place(fleet, spec(memory_mib=1024)) == Placement(
        host="h2",
        policy="spread",
        policy_version=1,
        considered=3,
        ranking=(
            Scored(host="h2", score=0.8125, terms={"free_memory": 0.75, "free_cpu": 0.9375}),
            Scored(host="h1", score=0.4583, terms={"free_memory": 0.25, "free_cpu": 0.875}),
        ),
        excluded=(Excluded(host="h3", rule="image", detail="it has no image tiny"),),
        excluded_by={"image": 1},
    )


def test_what_is_measured_counts_as_long_as_it_is_fresh() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"), renewed_at=30.0)
    busy = HostSample(cpu_busy=0.9, memory_total_mib=4608, memory_available_mib=461)
    idle = HostSample(cpu_busy=0.1, memory_total_mib=4608, memory_available_mib=4147)
    fleet.heard_sample("h1", busy, at=10.0)
    fleet.heard_sample("h2", idle, at=10.0)
    fresh = place(fleet, spec(), now=30.0)
    stale = place(fleet, spec(), now=30.1)
    assert isinstance(fresh, Placement)
    assert isinstance(stale, Placement)
    assert fresh.host == "h2"
    assert fresh.ranking[1].terms == {
        "free_memory": 0.875,
        "free_cpu": 0.9375,
        "idle": 0.1,
    }
    assert stale.host == "h1"
    assert sorted(stale.ranking[0].terms) == ["free_cpu", "free_memory"]


def test_the_ranking_shows_the_best_five() -> None:
    fleet = fleet_of(*(facts(f"h{number}") for number in range(9)))
    placement = place(fleet, spec())
    assert isinstance(placement, Placement)
    assert [scored.host for scored in placement.ranking] == ["h0", "h1", "h2", "h3", "h4"]


@pytest.mark.parametrize(
    ("host", "wish", "rule", "detail"),
    [
        (facts("h1"), spec(on=on("h2")), "pinned", "the VM asks for host h2"),
        (
            facts("h1"),
            spec(on=on(zone="a")),
            "labels",
            "it has no label zone, asked for is zone=a",
        ),
        (
            facts("h1", labels={"zone": "b"}),
            spec(on=on(zone="a")),
            "labels",
            "its label zone is b, asked for is a",
        ),
        (
            facts("h1"),
            spec(disks=(DiskSpec(image="debian-13"), DiskSpec(name="data", size_gib=1))),
            "image",
            "it has no image debian-13",
        ),
        (
            facts("h1"),
            spec(nics=(NicSpec(), NicSpec(network="storage"), NicSpec(network="dmz"))),
            "network",
            "it has no network dmz, storage",
        ),
        (facts("h1"), spec(cpus=5), "cpu", "needs 5 CPUs, the host has 4"),
        (
            facts(
                "h1",
                foreign=(
                    ForeignDomain(name="x", uuid="u", state="running", cpus=14, memory_mib=64),
                    ForeignDomain(name="y", uuid="v", state="stopped", cpus=99, memory_mib=99999),
                ),
            ),
            spec(cpus=3),
            "cpu",
            "needs 3 CPUs, 2 of 2 CPUs are left",
        ),
        (
            facts("h1"),
            spec(memory_mib=4097),
            "memory",
            "needs 4097 MiB, 4096 of 4096 MiB are left",
        ),
        (
            facts("h1", memory_mib=256),
            spec(memory_mib=64),
            "memory",
            "needs 64 MiB, 0 of 0 MiB are left",
        ),
        (
            facts("h1", images=(HostImage(name="tiny", size_gib=101),)),
            spec(),
            "disk",
            "needs 101 GiB, 100 of 100 GiB are left",
        ),
    ],
)
def test_an_excluded_host_says_which_rule_and_the_numbers(
    host: HostFacts, wish: VmSpec, rule: str, detail: str
) -> None:
    assert why_not(fleet_of(host), wish) == Excluded(host="h1", rule=rule, detail=detail)  # type: ignore[arg-type]


def test_a_host_in_maintenance_gets_no_new_vm() -> None:
    fleet = fleet_of(facts("h1"))
    fleet.apply_config(HostConfig(host="h1", maintenance=True), 9)
    assert why_not(fleet, spec()) == Excluded(
        host="h1", rule="maintenance", detail="it is in maintenance"
    )


def test_the_operators_labels_win_over_the_hosts_own() -> None:
    fleet = fleet_of(facts("h1", labels={"zone": "a", "disk": "ssd"}))
    fleet.apply_config(HostConfig(host="h1", labels={"zone": "b"}), 9)
    assert why_not(fleet, spec(on=on(zone="b", disk="ssd"))) is None


def test_a_host_whose_lease_ran_out_gets_no_new_vm() -> None:
    fleet = fleet_of(facts("h1"), renewed_at=5.0)
    assert why_not(fleet, spec(), now=15.0) is None
    assert why_not(fleet, spec(), now=16.0) == Excluded(
        host="h1", rule="lease", detail="it renewed its lease 11 s ago, a lease lasts 10 s"
    )


def test_a_host_that_was_never_heard_gets_no_new_vm() -> None:
    assert why_not(fleet_of(facts("h1"), renewed_at=None), spec()) == Excluded(
        host="h1",
        rule="lease",
        detail="its lease was not heard since the scheduler began to listen",
    )


def test_the_test_drivers_own_domains_count_nothing() -> None:
    huge = ForeignDomain(name="test", uuid="u", state="running", cpus=99, memory_mib=99999)
    assert why_not(fleet_of(facts("h1", domain_type="test", foreign=(huge,))), spec()) is None


def test_an_image_must_lie_on_the_test_drivers_hosts_too() -> None:
    refusal = why_not(fleet_of(facts("h1", domain_type="test", images=())), spec())
    assert refusal is not None
    assert refusal.rule == "image"


def test_a_measured_full_file_system_excludes_where_a_reserve_is_set() -> None:
    fleet = fleet_of(facts("h1"), limits=Limits(reserve_disk_gib=2))
    fleet.heard_sample("h1", HostSample(disk_free_bytes=3 << 29), at=1.0)
    assert why_not(fleet, spec()) == Excluded(
        host="h1", rule="disk", detail="1.5 GiB are free, 2 GiB are kept"
    )


def test_what_fits_nowhere_is_refused_with_the_reason_per_host_nearest_first() -> None:
    fleet = fleet_of(facts("h1"), facts("h2", images=()), facts("h3", cpus=1))
    assert place(fleet, spec(cpus=2, memory_mib=8192)) == NoHost(
        problem=Problem(
            type="urn:vireo:problem:unplaceable",
            title="No host fits",
            status=409,
            detail="No host of 3 can take 2 CPUs and 8192 MiB of memory: "
            "1 by image, 1 by cpu, 1 by memory.",
            reasons={
                "h1": "memory: needs 8192 MiB, 4096 of 4096 MiB are left",
                "h3": "cpu: needs 2 CPUs, the host has 1",
                "h2": "image: it has no image tiny",
            },
        ),
        excluded=(
            Excluded(host="h1", rule="memory", detail="needs 8192 MiB, 4096 of 4096 MiB are left"),
            Excluded(host="h3", rule="cpu", detail="needs 2 CPUs, the host has 1"),
            Excluded(host="h2", rule="image", detail="it has no image tiny"),
        ),
        excluded_by={"image": 1, "cpu": 1, "memory": 1},
    )


def test_an_empty_fleet_is_a_refusal_too() -> None:
    outcome = place(new_fleet(), spec())
    assert isinstance(outcome, NoHost)
    assert outcome.problem.detail == (
        "No host has registered that could offer 1 CPU and 512 MiB of memory."
    )


def test_a_pin_to_an_unknown_host_says_that_nobody_knows_it() -> None:
    decision = decide(create(1, on=on("h9")), fleet_of(facts("h1")), now=0.0)
    assert isinstance(decision, Refused)
    assert decision.problem.reasons == {
        "h9": "pinned: no host of this name has registered",
        "h1": "pinned: the VM asks for host h9",
    }
    assert (decision.unheard, decision.unregistered) == (False, "h9")


HOSTS = st.lists(
    st.tuples(st.integers(1, 8), st.integers(512, 6000), st.integers(1, 40)),
    min_size=0,
    max_size=5,
)
WISHES = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(1, 6),
        st.integers(32, 3000),
        st.integers(0, 20),
        st.integers(0, 9),
    ),
    max_size=40,
)


@given(hosts=HOSTS, wishes=WISHES)
def test_no_host_is_ever_over_its_limits_and_every_refusal_is_true(
    hosts: list[tuple[int, int, int]], wishes: list[tuple[bool, int, int, int, int]]
) -> None:
    fleet = fleet_of(
        *(
            facts(f"h{number}", cpus=cpus, memory_mib=memory, disk_gib=disk)
            for number, (cpus, memory, disk) in enumerate(hosts)
        )
    )
    live: list[VmAssignment] = []
    for number, (leaves, cpus, memory, disk, which) in enumerate(wishes, start=100):
        if leaves and live:
            gone = live.pop(which % len(live))
            fleet.forget_assignment(vm=gone.vm, host=gone.host, revision=number)
            continue
        wish = create(
            number,
            f"vm{number}",
            cpus=cpus,
            memory_mib=memory,
            disks=(DiskSpec(image="tiny", size_gib=disk),),
        )
        decision = decide(wish, fleet, now=0.0)
        needs = Demand(cpus=cpus, memory_mib=memory, disk_gib=max(disk, 1))
        if isinstance(decision, Placed):
            fleet.apply_assignment(decision.assignment, number)
            live.append(decision.assignment)
        else:
            assert isinstance(decision, Refused)
            assert not any(_would_fit(fleet, host.name, needs) for host in fleet.hosts())
        _check_sums(fleet, live)


def _would_fit(fleet: Fleet, name: str, needs: Demand) -> bool:
    """Told anew in the plainest way, beside the filters."""
    cpus, most = _most(fleet, name)
    here = fleet.reserved(name)
    return (
        needs.cpus <= cpus
        and here.cpus + needs.cpus <= most.cpus
        and here.memory_mib + needs.memory_mib <= most.memory_mib
        and here.disk_gib + needs.disk_gib <= most.disk_gib
    )


def _most(fleet: Fleet, name: str) -> tuple[int, Demand]:
    """CPUs, and what may be promised."""
    host = fleet.host(name)
    assert host is not None
    assert host.facts is not None
    return host.facts.cpus, Demand(
        cpus=4 * host.facts.cpus,
        memory_mib=host.facts.memory_mib - 512,
        disk_gib=host.facts.disk_gib,
    )


def _check_sums(fleet: Fleet, live: list[VmAssignment]) -> None:
    for host in fleet.hosts():
        here = [vm.spec for vm in live if vm.host == host.name]
        assert fleet.reserved(host.name) == Demand(
            cpus=sum(vm.cpus for vm in here),
            memory_mib=sum(vm.memory_mib for vm in here),
            disk_gib=sum(max(vm.disks[0].size_gib, 1) for vm in here),
        )
        _, most = _most(fleet, host.name)
        assert not here or (
            fleet.reserved(host.name).cpus <= most.cpus
            and fleet.reserved(host.name).memory_mib <= most.memory_mib
            and fleet.reserved(host.name).disk_gib <= most.disk_gib
        )
