"""The fleet table: what it holds after what was heard, in whatever order it comes."""

from __future__ import annotations

from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.resources import DiskSpec, HostConfig, HostImage
from schemas.telemetry import HostSample
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.model import Placed
from services.scheduler.requests import Demand
from tests.fixtures.scheduler import create, facts, fleet_of, id_of, new_fleet, ranking

VM = id_of(1001)


def assignment() -> VmAssignment:
    placed = decide(create(1), fleet_of(facts("h1")), now=0.0)
    assert isinstance(placed, Placed)
    return placed.assignment


def reserved(fleet: Fleet) -> Demand:
    fleet.apply_facts(facts("h1"), 1)
    return fleet.reserved("h1")


ONE = Demand(cpus=1, memory_mib=512, disk_gib=2)


def test_an_echo_of_an_own_write_changes_nothing() -> None:
    fleet = new_fleet()
    fleet.apply_assignment(assignment(), 5)
    fleet.apply_assignment(assignment(), 5)
    assert reserved(fleet) == ONE


def test_an_older_revision_does_not_undo_a_newer_one() -> None:
    fleet, newer = new_fleet(), replace(assignment(), generation=2, power="stopped")
    fleet.apply_assignment(newer, 6)
    fleet.apply_assignment(assignment(), 5)
    held = fleet.holdings.of(VM)
    assert held is not None
    assert (held.assignment, held.revision) == (newer, 6)


def test_what_was_forgotten_is_not_brought_back_by_a_late_update() -> None:
    fleet = new_fleet()
    fleet.apply_assignment(assignment(), 5)
    fleet.forget_assignment(vm=VM, host="h1", revision=6)
    fleet.apply_assignment(assignment(), 5)
    assert fleet.holdings.of(VM) is None
    assert fleet.holdings.was_forgotten(VM)
    assert reserved(fleet) == Demand()


def test_a_reservation_counts_until_it_is_released() -> None:
    fleet = new_fleet()
    fleet.reserve(assignment())
    assert reserved(fleet) == ONE
    assert fleet.holdings.live_named("web") == (VM,)
    fleet.release(vm=VM, host="h1")
    assert reserved(fleet) == Demand()
    assert fleet.holdings.live_named("web") == ()


def test_a_reservation_that_was_written_stays_when_it_is_released() -> None:
    fleet = new_fleet()
    fleet.reserve(assignment())
    fleet.apply_assignment(assignment(), 5)
    fleet.release(vm=VM, host="h1")
    assert reserved(fleet) == ONE


def test_assignments_heard_before_their_host_are_weighed_when_its_images_are_known() -> None:
    fleet = new_fleet()
    whole_image = DiskSpec(image="tiny", size_gib=0)
    wish = assignment()
    fleet.apply_assignment(replace(wish, spec=replace(wish.spec, disks=(whole_image,))), 5)
    fleet.apply_facts(facts("h1", images=(HostImage(name="tiny", size_gib=7),)), 6)
    assert fleet.reserved("h1") == Demand(cpus=1, memory_mib=512, disk_gib=7)


def test_a_moving_vm_is_the_one_that_has_not_ended_and_counts_on_both_hosts() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"))
    leaving = replace(assignment(), generation=2, ended=True)
    arriving = replace(assignment(), host="h2", generation=2)
    fleet.apply_assignment(leaving, 5)
    fleet.apply_assignment(arriving, 6)
    held = fleet.holdings.of(VM)
    assert held is not None
    assert held.assignment == arriving
    assert [fleet.reserved(host.name) for host in fleet.hosts()] == [ONE, ONE]
    fleet.forget_assignment(vm=VM, host="h1", revision=7)
    assert [fleet.reserved(host.name) for host in fleet.hosts()] == [Demand(), ONE]


def test_a_host_counts_as_registered_only_with_its_facts() -> None:
    fleet = new_fleet()
    fleet.heard_lease("h1", at=1.0, lease_s=10.0)
    fleet.apply_config(HostConfig(host="h1", maintenance=True), 3)
    assert fleet.hosts() == []
    fleet.apply_facts(facts("h1"), 4)
    host = fleet.host("h1")
    assert host is not None
    assert (host.renewed_at, host.config.maintenance) == (1.0, True)


def test_samples_of_nobody_are_dropped() -> None:
    fleet = new_fleet()
    fleet.heard_sample("h1", HostSample(cpu_busy=0.5), at=1.0)
    fleet.apply_facts(facts("h1"), 1)
    fleet.heard_lease("h1", at=1.0, lease_s=10.0)
    (scored,) = ranking(fleet, now=1.0)
    assert sorted(scored.terms) == ["free_cpu", "free_memory"]


def test_a_sample_that_comes_before_the_facts_of_its_host_is_kept() -> None:
    fleet = new_fleet()
    fleet.heard_lease("h1", at=1.0, lease_s=10.0)
    fleet.heard_sample("h1", HostSample(cpu_busy=0.5), at=1.0)
    fleet.apply_facts(facts("h1"), 1)
    (scored,) = ranking(fleet, now=1.0)
    assert scored.terms["idle"] == 0.5


def test_the_newest_assignments_come_oldest_first() -> None:
    fleet = new_fleet()
    for number in (3, 1, 2):
        fleet.apply_assignment(replace(assignment(), vm=id_of(number)), number)
    assert [held.revision for held in fleet.holdings.newest(2)] == [2, 3]
