"""The scheduler and its naive double see the same fleet and never differ."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.policies import Policy
from schemas.resources import DiskSpec, HostConfig, HostFacts, HostImage, HostTuning, VmSpec
from schemas.rules import Hardware
from schemas.telemetry import HostSample
from services.scheduler.model import Limits
from tests.fixtures.scheduler import facts
from tests.fixtures.scheduler_twins import (
    NODES,
    Twins,
    check_compatible,
    check_same,
    known_facts,
    policies,
    steps,
)

EVERYTHING = Limits(ranking=99, shown_reasons=99)
IN_PARTS = Limits(ranking=99, shown_reasons=99, exact_hosts=2, part_hosts=2)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(policy=policies, first=st.lists(known_facts(), min_size=3, max_size=6), churn=steps)
def test_the_scheduler_and_its_naive_double_never_differ(
    policy: Policy, first: list[HostFacts], churn: list[Any]
) -> None:
    twins = Twins(policy, EVERYTHING, check_same)
    for step in [*first, *churn]:
        twins.tell(step)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(policy=policies, first=st.lists(known_facts(), min_size=3, max_size=6), churn=steps)
def test_a_scan_in_parts_tells_no_lies(
    policy: Policy, first: list[HostFacts], churn: list[Any]
) -> None:
    twins = Twins(policy, IN_PARTS, check_compatible)
    for step in [*first, *churn]:
        twins.tell(step)


KEPT = Policy(
    name="drawn", version=1, weights={"free_memory": 2.0, "packed": 1.0, "idle": 3.0, "energy": 1.0}
)
FLEET = tuple(f"h{number}" for number in range(16))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_of_earlier_scans_follows_every_change(seed: int) -> None:
    """Few kinds of requests on many hosts: nearly every decision rests on an earlier scan."""
    random, twins = Random(seed), Twins(KEPT, EVERYTHING, check_same)
    kinds = [
        VmSpec(
            name="vm",
            cpus=cpus,
            memory_mib=memory_mib,
            disks=(DiskSpec(image="tiny", size_gib=1),),
            hardware=hardware,
        )
        for cpus, memory_mib, hardware in (
            (1, 300, Hardware()),
            (2, 900, Hardware()),
            (3, 500, Hardware(numa="any")),
        )
    ]

    def registered(name: str) -> HostFacts:
        images = (HostImage(name="tiny", size_gib=random.choice((1, 1, 5))),)
        numa = random.choice(((), NODES[:1], NODES, NODES[::-1]))
        return facts(name, cpus=16, memory_mib=7000, images=images, numa=numa)

    for name in FLEET:
        twins.tell(registered(name))
        twins.tell(HostConfig(host=name, tuning=HostTuning(idle_watts=60.0, full_watts=200.0)))
    for _ in range(250):
        name, die = random.choice(FLEET), random.random()
        if die < 0.6:
            twins.tell(random.choice(kinds))
        elif die < 0.75:
            twins.tell(("forget", random.randrange(99)))
        elif die < 0.9:
            sample = HostSample(
                cpu_busy=random.choice((None, 0.1, 0.5, 0.9)),
                power_watts=random.choice((None, 80.0, 120.0)),
            )
            twins.tell((name, sample))
        elif die < 0.95:
            twins.tell(registered(name))
        else:
            twins.tell(("wait", 4.5))
            for one in FLEET[: random.choice((14, 16))]:
                twins.tell(("renew", one))
