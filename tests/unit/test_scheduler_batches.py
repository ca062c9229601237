"""Several VMs decided together."""

from __future__ import annotations

from schemas.rules import Affinity, HostRules
from services.scheduler.batches import decide_together, release_all
from services.scheduler.model import Placed, Refused
from services.scheduler.requests import Demand
from tests.fixtures.scheduler import create, facts, fleet_of

APART = HostRules(anti_affinity=(Affinity(labels={"app": "db"}),))


def copies(count: int, **changes: object) -> list:  # type: ignore[type-arg]
    return [create(number, f"db{number}", **changes) for number in range(count)]


def test_copies_see_one_another() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"), facts("h3"))
    wishes = copies(4, labels={"app": "db"}, on=APART)
    decisions = decide_together(wishes, fleet, now=0.0)
    hosts = [one.assignment.host for one in decisions if isinstance(one, Placed)]
    assert hosts == ["h1", "h2", "h3"]
    assert isinstance(decisions[3], Refused)


def test_decisions_stand_in_the_order_of_their_commands_whatever_was_grouped() -> None:
    fleet = fleet_of(facts("h1"))
    sizes = (512, 1024, 512, 1024)
    wishes = [create(n, f"vm{n}", memory_mib=size) for n, size in enumerate(sizes)]
    decisions = decide_together(wishes, fleet, now=0.0)
    placed = [one.assignment for one in decisions if isinstance(one, Placed)]
    assert [one.spec.memory_mib for one in placed] == list(sizes)
    assert fleet.reserved("h1").memory_mib == sum(sizes)


def test_a_gang_that_does_not_fit_leaves_nothing_reserved() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"))
    decisions = decide_together(
        copies(3, labels={"app": "db"}, on=APART), fleet, now=0.0, gang=True
    )
    assert all(isinstance(one, Refused) for one in decisions)
    assert [fleet.reserved(host) for host in ("h1", "h2")] == [Demand(), Demand()]
    assert isinstance(decisions[0], Refused)
    assert decisions[0].problem.detail == (
        "It was to be placed with 2 others or not at all, and one of them was refused: "
        "No host of 2 can take 1 CPU and 512 MiB of memory: 2 by anti_affinity."
    )


def test_a_gang_that_fits_is_reserved_as_a_whole_until_it_is_released() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"))
    decisions = decide_together(copies(3), fleet, now=0.0, gang=True)
    assert fleet.reserved("h1").cpus + fleet.reserved("h2").cpus == 3
    release_all(decisions, fleet)
    assert [fleet.reserved(host) for host in ("h1", "h2")] == [Demand(), Demand()]
