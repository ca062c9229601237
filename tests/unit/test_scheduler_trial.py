"""What would come of a command is told as it would be decided, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.commands import ConfigureHost, DeleteVm, PauseVm, RebootVm, StartVm, StopVm
from schemas.envelope import Envelope
from schemas.forecasts import Change, Forecast
from schemas.policies import Policy
from schemas.resources import HostFacts
from schemas.rules import HostRules, Taint
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.trial import may_change, placed_by, supposed, told
from tests.fixtures.scheduler import (
    command,
    create,
    facts,
    fleet_of,
    id_of,
    place,
    settled,
    spec,
)

VM = id_of(1)


def foretell(fleet: Fleet, wish: Envelope[Any], *, now: float = 1.0) -> Forecast:
    return told(decide(wish, fleet, now=now), wish, fleet, now=now)


def one_vm(*more: HostFacts) -> Fleet:
    fleet = fleet_of(facts("h1"), *more)
    settled(fleet, 1, host="h1")
    return fleet


def test_a_new_vm_is_told_with_its_place_and_why() -> None:
    fleet = one_vm(facts("h2", memory_mib=8192))
    said = foretell(fleet, create(5, "web"))
    assert (said.command, said.kind, said.target, said.host) == ("vm.create", "vm", "web", "h2")
    assert said.changes == (
        Change(field="host", after="h2"),
        Change(field="power", after="running"),
    )
    assert said.placement == place(fleet, spec("web"))
    assert (fleet.reserved("h2").cpus, fleet.holdings.live_named("web")) == (0, ())


def test_where_no_host_fits_the_rules_are_told_as_values_too() -> None:
    said = foretell(one_vm(facts("h2", networks=())), create(5, memory_mib=9000))
    assert said.problem is not None
    assert said.problem.type == "urn:vireo:problem:unplaceable"
    assert said.excluded_by == {"memory": 1, "network": 1}
    assert [(one.host, one.rule) for one in said.excluded] == [("h1", "memory"), ("h2", "network")]
    assert (said.host, said.placement, said.changes) == (None, None, ())


def test_a_name_that_is_taken_would_be_refused() -> None:
    said = foretell(one_vm(), create(5, "vm1"))
    assert said.problem is not None
    assert said.problem.detail == f"The name 'vm1' is taken by VM {VM}."
    assert said.excluded_by == {}


@pytest.mark.parametrize(
    ("wish", "changes"),
    [
        (PauseVm(vm=VM), {"power": ("running", "paused")}),
        (StartVm(vm=VM), {}),
        (
            StopVm(vm=VM, mode="forced", grace_s=5),
            {
                "power": ("running", "stopped"),
                "stop_mode": ("graceful", "forced"),
                "grace_s": (60, 5),
            },
        ),
        (
            DeleteVm(vm=VM),
            {
                "power": ("running", "stopped"),
                "ended": (False, True),
                "stop_mode": ("graceful", "forced"),
            },
        ),
    ],
)
def test_a_wish_about_a_vm_is_told_as_what_changes(
    wish: Any, changes: dict[str, tuple[Any, Any]]
) -> None:
    said = foretell(one_vm(), command(wish, 5))
    assert {one.field: (one.before, one.after) for one in said.changes} == {
        "generation": (1, 2),
        **changes,
    }
    assert (said.target, said.host) == (VM, "h1")


def test_a_reboot_changes_nothing_that_stays() -> None:
    said = foretell(one_vm(), command(RebootVm(vm=VM), 5))
    assert (said.changes, said.detail) == ((), "done once, graceful; nothing stays changed")


def test_a_hosts_configuration_is_told_before_and_after() -> None:
    wish = ConfigureHost(host="h1", maintenance=True, taints=(Taint(key="gpu"),))
    said = foretell(one_vm(), command(wish, 5))
    assert said.changes == (
        Change(field="maintenance", before=False, after=True),
        Change(field="taints", before=(), after=({"key": "gpu"},)),
    )
    assert (said.kind, said.target, said.host) == ("host", "h1", "h1")


def test_a_configuration_that_is_so_already_changes_nothing() -> None:
    said = foretell(one_vm(), command(ConfigureHost(host="h1", maintenance=False), 5))
    assert (said.changes, said.problem) == ((), None)


def test_another_policy_may_be_tried() -> None:
    """`pack` fills the host that is used already; `spread`, the site's own, takes the other."""
    fleet = one_vm(facts("h2"))
    packing = Policy(name="mine", version=7, weights={"packed": 1.0})
    wish = placed_by(create(5), packing)
    said = foretell(supposed(fleet, policy=packing, without_vm=None), wish)
    assert said.placement is not None
    assert (said.host, said.placement.policy, said.placement.policy_version) == ("h1", "mine", 7)
    assert foretell(fleet, create(5)).host == "h2"
    assert fleet.policy("mine") is None


def test_a_vm_may_be_left_out_of_account() -> None:
    """As for asking where it would be placed now: on the host that it fills itself."""
    fleet = fleet_of(facts("h1"))
    settled(fleet, 1, host="h1", memory_mib=4096)
    wish = create(5, "vm1", memory_mib=4096)
    assert foretell(fleet, wish).problem is not None
    assert foretell(supposed(fleet, policy=None, without_vm=VM), wish).host == "h1"
    assert fleet.reserved("h1").memory_mib == 4096


def test_a_refusal_for_silence_may_change_and_one_for_rules_does_not() -> None:
    silent = fleet_of(facts("h1"), renewed_at=None)
    assert may_change(decide(create(5), silent, now=1.0))
    unknown = create(5, on=HostRules(host="h9"))
    assert may_change(decide(unknown, one_vm(), now=1.0))
    assert not may_change(decide(create(5, memory_mib=9000), one_vm(), now=1.0))
    assert not may_change(decide(create(5), one_vm(), now=1.0))
