"""A site simulated from a seed: hosts, arrivals, departures, deaths, on the production decisions.

The clock is a number. VMs arrive and leave at random, hosts fall silent and return, maintenance comes
and goes. After every decision the naive double is asked whether it was right; sums are told anew from
the VMs themselves. `VIREO_SIMULATION_SEED` plays another run.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

import pytest

from schemas.assignments import VmAssignment
from schemas.resources import DiskSpec, HostConfig, VmSpec
from schemas.rules import Affinity, HostRules, Spread
from schemas.shipped import shipped
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.model import Limits, Placed, Refused
from services.scheduler.requests import Demand
from tests.fixtures.scheduler import create, facts, new_fleet
from tests.oracle.scheduler import Oracle, OracleHost, OracleVm, Question

HOSTS = 2_000
ARRIVALS = 600
RENEWAL_S = 3.0
POLICIES = shipped()


@dataclass
class Site:
    seed: int
    fleet: Fleet = field(default_factory=lambda: new_fleet(Limits(reasons=HOSTS)))
    naive: Oracle = field(default_factory=Oracle)
    now: float = 0.0
    revision: int = 0
    silent: set[str] = field(default_factory=set)
    live: list[VmAssignment] = field(default_factory=list)
    leaving: list[tuple[float, int, VmAssignment]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        for number in range(HOSTS):
            known = facts(
                f"h{number:04d}",
                cpus=self.random.choice((1, 2, 4)),
                memory_mib=self.random.choice((1024, 2048, 4608)),
                labels={"rack": f"r{number % 20}", "class": self.random.choice("aab")},
            )
            self.revision += 1
            self.fleet.apply_facts(known, self.revision)
            config = HostConfig(host=known.host)
            self.naive.hosts[known.host] = OracleHost(known, config)
        self.renew()

    def renew(self) -> None:
        for name, host in self.naive.hosts.items():
            if name not in self.silent:
                self.fleet.heard_lease(name, at=self.now, lease_s=10.0)
                host.renewed_at = self.now

    def pass_time(self, seconds: float) -> None:
        before = self.now
        self.now += seconds
        if before // RENEWAL_S != self.now // RENEWAL_S:
            self.renew()
        while self.leaving and self.leaving[0][0] <= self.now:
            self.leave(heappop(self.leaving)[2])

    def leave(self, gone: VmAssignment) -> None:
        self.revision += 1
        self.fleet.forget_assignment(vm=gone.vm, host=gone.host, revision=self.revision)
        self.naive.forget(gone.vm)
        self.live.remove(gone)

    def trouble(self) -> None:
        """A host falls silent, another returns; an operator changes something."""
        name = self.random.choice(sorted(self.naive.hosts))
        if self.random.random() < 0.5:
            self.silent.symmetric_difference_update({name})
        else:
            self.revision += 1
            on = not self.naive.hosts[name].config.maintenance
            config = HostConfig(host=name, maintenance=on)
            self.fleet.apply_config(config, self.revision)
            self.naive.hosts[name].config = config

    def wish(self) -> VmSpec:
        labels = {"app": f"a{self.random.randrange(12)}"}
        kind = self.random.random()
        on = HostRules()
        if kind < 0.3:
            on = HostRules(anti_affinity=(Affinity(labels=labels, topology="rack"),))
        elif kind < 0.4:
            on = HostRules(spread=(Spread(labels=labels, topology="rack", max_skew=2),))
        elif kind < 0.5:
            on = HostRules(labels={"class": "b"}, affinity=(Affinity(labels=labels),))
        return VmSpec(
            name=f"vm{self.revision}",
            cpus=self.random.choice((1, 1, 2, 4, 5)),
            memory_mib=self.random.choice((256, 512, 1500, 4096)),
            disks=(DiskSpec(image="tiny", size_gib=5),),
            labels=labels,
            on=on,
            policy=self.random.choice(("spread", "pack", "balanced", "weighted-random")),
        )

    def arrive(self) -> None:
        self.revision += 1
        wish = self.wish()
        command = create(self.revision, wish.name)
        data = type(command.data)(vm=command.data.vm, spec=wish)
        command = type(command)(
            **{name: getattr(command, name) for name in command.__struct_fields__} | {"data": data}
        )
        decision = decide(command, self.fleet, now=self.now)
        question = Question(self.naive, wish, POLICIES[wish.policy or ""], self.now, 0)
        if isinstance(decision, Refused):
            self.seen["refused"] += 1
            told = {host: why.partition(":")[0] for host, why in decision.problem.reasons.items()}
            true = {name: question.first_rule(host) for name, host in self.naive.hosts.items()}
            assert told == true
            return
        assert isinstance(decision, Placed)
        self.seen["placed"] += 1
        here = decision.assignment
        assert question.first_rule(self.naive.hosts[here.host]) is None
        self.fleet.reserve(here)
        self.fleet.apply_assignment(here, self.revision)
        self.naive.hold(here.vm, OracleVm(wish, here.host, None))
        self.live.append(here)
        heappush(self.leaving, (self.now + self.random.expovariate(1 / 90), self.revision, here))

    def check_sums(self) -> None:
        """No host has promised more than it may, and each knows what it has promised."""
        for name, host in self.naive.hosts.items():
            specs = [vm.spec for vm in self.naive.on(name)]
            told = Demand(
                cpus=sum(spec.cpus for spec in specs),
                memory_mib=sum(spec.memory_mib for spec in specs),
                disk_gib=sum(spec.disks[0].size_gib for spec in specs),
            )
            assert self.fleet.reserved(name) == told
            assert told.cpus <= 4 * host.facts.cpus
            assert told.memory_mib <= host.facts.memory_mib - 512
            assert told.disk_gib <= host.facts.disk_gib


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


SEEDS = [int(os.environ.get("VIREO_SIMULATION_SEED", "20260101"))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_simulated_site_keeps_its_promises(seed: int) -> None:
    site = Site(seed)
    try:
        for number in range(ARRIVALS):
            site.pass_time(site.random.expovariate(10))
            if site.random.random() < 0.2:
                site.trouble()
            site.arrive()
            if number % 100 == 0:
                site.check_sums()
        assert site.seen["placed"] > ARRIVALS / 2
        assert site.seen["refused"] > 10
        while site.live:
            site.leave(site.live[0])
        assert all(site.fleet.reserved(name) == Demand() for name in site.naive.hosts)
    except AssertionError as error:
        error.add_note(f"seed {seed}, commit {commit()}, at {site.now:.3f} s")
        raise
