"""A copy of the fleet is a value: changed without harm, and quickly made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.resources import Placement
from schemas.rules import Affinity, HostRules
from tests.fixtures.scheduler import facts, fleet_of, id_of, place, settled, spec

APART = HostRules(anti_affinity=(Affinity(labels={"app": "db"}),))


def parts_that_change(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Every container that can be changed in place, with its way from the fleet."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, dict | list | set | np.ndarray):
        yield path, thing
    if isinstance(thing, dict):
        for key, value in thing.items():
            yield from parts_that_change(value, f"{path}[{key!r}]", seen)
    elif type(thing).__module__.startswith("services.scheduler") and hasattr(thing, "__dict__"):
        for name, value in vars(thing).items():
            yield from parts_that_change(value, f"{path}.{name}", seen)


def test_a_copy_shares_nothing_that_can_be_changed() -> None:
    """Compiled selectors are shared, and never changed: they alone may be the same."""
    fleet = fleet_of(facts("h1", labels={"rack": "a"}), facts("h2", labels={"rack": "b"}))
    settled(fleet, 1, host="h1", labels={"app": "db"}, on=APART)
    fleet.forget_assignment(vm=id_of(9), host="h1", revision=9)
    place(fleet, spec(on=HostRules(labels={"rack": "a"})))
    twin = fleet.copy()
    own = {id(part): path for path, part in parts_that_change(fleet, "fleet", set())}
    shared = [
        path
        for path, part in parts_that_change(twin, "fleet", set())
        if id(part) in own and "._cached[" not in path
    ]
    assert shared == []


def test_what_is_decided_on_a_copy_is_what_would_be_decided_on_the_fleet() -> None:
    fleet = fleet_of(facts("h2"), facts("h1", cpus=8), facts("h3"))
    settled(fleet, 1, host="h1", labels={"app": "db"}, on=APART)
    wish = spec(labels={"app": "db"})
    assert place(fleet.copy(), wish) == place(fleet, wish)


def test_a_host_that_is_taken_away_takes_its_vms_along() -> None:
    fleet = fleet_of(facts("h1"), facts("h2"))
    settled(fleet, 1, host="h1")
    settled(fleet, 2, host="h2")
    twin = fleet.copy()
    assert [held.assignment.vm for held in twin.take_away_hosts({"h1"})] == [id_of(1)]
    assert [row.name for row in twin.hosts()] == ["h2"]
    assert (twin.holdings.of(id_of(1)), twin.holdings.live_named("vm1")) == (None, ())
    outcome = place(twin, spec())
    assert isinstance(outcome, Placement)
    assert (outcome.host, outcome.considered) == ("h2", 1)
    assert fleet.reserved("h1").cpus == 1
