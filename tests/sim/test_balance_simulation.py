"""A churning site that is evened out and drained by plans: every rule holds, and it comes to rest.

VMs arrive and leave at random, hosts fall silent, operators change things; meanwhile plans are made, kept
for a while, checked, and their moves made. The naive double makes each move, too, and is asked whether a
rule was broken. `VIREO_SIMULATION_SEED` plays another run.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.plans import Band, Move, Plan
from schemas.resources import DiskSpec, HostConfig, VmSpec
from schemas.rules import Affinity, HostRules, Spread
from services.scheduler.balance import Taste
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.model import Placed
from services.scheduler.plans import Frame, changes, plan_balance, plan_drain
from services.scheduler.requests import Demand
from tests.fixtures.plans import Double
from tests.fixtures.scheduler import SITE, START, create, facts, id_of, new_fleet
from tests.oracle.scheduler import OracleVm

HOSTS = 24
STEPS = 400
BAND = Band(start=0.06, stop=0.03, max_moves=8)


@dataclass
class Site:
    seed: int
    fleet: Fleet = field(default_factory=new_fleet)
    now: float = 0.0
    revision: int = 0
    silent: set[str] = field(default_factory=set)
    live: dict[str, VmAssignment] = field(default_factory=dict)
    kept: Plan | None = None
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        hosts = [
            facts(f"h{n:02d}", cpus=4, memory_mib=4608, labels={"rack": f"r{n % 4}"})
            for n in range(HOSTS)
        ]
        self.double = Double(hosts, [])
        for known in hosts:
            self.fleet.apply_facts(known, self.next())
        self.renew()

    def next(self) -> int:
        self.revision += 1
        return self.revision

    def renew(self) -> None:
        for name, host in self.double.oracle.hosts.items():
            if name not in self.silent:
                self.fleet.heard_lease(name, at=self.now, lease_s=10.0)
                host.renewed_at = self.now

    def step(self) -> None:
        self.now += 1.0
        self.double.now = self.now
        self.renew()
        die = self.random.random()
        if die < 0.4:
            self.arrive()
        elif die < 0.6 and self.live:
            self.leave(self.random.choice(sorted(self.live)))
        elif die < 0.68:
            self.trouble()
        elif die < 0.84:
            self.plan()
        elif die > 0.92 and self.kept is not None:
            self.carry_out(self.kept)
            self.kept = None

    def arrive(self) -> None:
        number = self.next()
        labels = {"app": f"a{self.random.randrange(8)}"}
        on = self.random.choice(
            (
                *(HostRules(), HostRules()),
                HostRules(anti_affinity=(Affinity(labels=labels),)),
                HostRules(affinity=(Affinity(labels=labels, topology="rack"),)),
                HostRules(spread=(Spread(labels=labels, topology="rack", max_skew=2),)),
            )
        )
        wish = VmSpec(
            name=f"vm{number}",
            cpus=self.random.choice((1, 1, 2, 4)),
            memory_mib=self.random.choice((256, 512, 1024, 2048)),
            disks=(DiskSpec(image="tiny", size_gib=5),),
            labels=labels,
            on=on,
            policy=self.random.choice(("spread", "pack", "pack")),
        )
        command = create(number)
        command = replace(command, data=replace(command.data, spec=wish))
        decision = decide(command, self.fleet, now=self.now)
        if isinstance(decision, Placed):
            self.put(decision.assignment)

    def put(self, here: VmAssignment) -> None:
        self.fleet.apply_assignment(here, self.next())
        self.double.oracle.hold(here.vm, OracleVm(here.spec, here.host, None))
        self.live[here.vm] = here

    def leave(self, vm: str) -> None:
        gone = self.live.pop(vm)
        self.fleet.forget_assignment(vm=vm, host=gone.host, revision=self.next())
        self.double.oracle.forget(vm)

    def trouble(self) -> None:
        name = self.random.choice(sorted(self.double.oracle.hosts))
        if self.random.random() < 0.5:
            self.silent.symmetric_difference_update({name})
        else:
            self.configure(name, maintenance=not self.double.oracle.hosts[name].config.maintenance)

    def configure(self, name: str, *, maintenance: bool) -> None:
        config = HostConfig(host=name, maintenance=maintenance)
        self.fleet.apply_config(config, self.next())
        self.double.oracle.hosts[name].config = config

    def frame(self) -> Frame:
        return Frame(id=id_of(self.next()), site=SITE, at=START, now=self.now)

    def plan(self) -> None:
        if self.random.random() < 0.3:
            host = self.random.choice(sorted(self.double.oracle.hosts))
            self.kept = plan_drain(self.fleet, host, self.frame())
        else:
            self.kept = plan_balance(self.fleet, BAND, Taste(), self.frame())
        if self.random.random() < 0.4:
            self.carry_out(self.kept)
            self.kept = None

    def carry_out(self, plan: Plan) -> None:
        """Make the moves of a plan that still holds; one that does not is left."""
        if changes(plan, self.fleet, now=self.now):
            self.seen["refused"] += 1
            return
        self.seen[plan.kind] += bool(plan.moves)
        self.seen["moves"] += len(plan.moves)
        if plan.kind == "drain":
            self.configure(plan.host or "", maintenance=True)
        movers = {move.vm for move in plan.moves}
        before = self.double.whole()
        for move in plan.moves:
            self.check(plan, move)
            self.move(move)
        lost = before - self.double.whole()
        assert not lost, f"{plan.kind}: {sorted(lost)} of {len(movers)} moves"
        if plan.kind == "drain":
            self.configure(plan.host or "", maintenance=False)

    def check(self, plan: Plan, move: Move) -> None:
        """Of a drain's VMs some belong together, and are only when all have moved."""
        if plan.kind == "balance":
            assert self.double.broken_by(move) == []
        else:
            assert self.double.host_rule_broken_by(move) is None

    def move(self, move: Move) -> None:
        """The double has made it already."""
        old = self.live[move.vm]
        placement = replace(old.placement, host=move.to_host)
        new = replace(old, host=move.to_host, placement=placement)
        self.fleet.forget_assignment(vm=old.vm, host=old.host, revision=self.next())
        self.fleet.apply_assignment(new, self.next())
        self.live[move.vm] = new

    def check_sums(self) -> None:
        for name in self.double.oracle.hosts:
            specs = [vm.spec for vm in self.double.oracle.on(name)]
            told = Demand(
                cpus=sum(spec.cpus for spec in specs),
                memory_mib=sum(spec.memory_mib for spec in specs),
                disk_gib=sum(spec.disks[0].size_gib for spec in specs),
            )
            assert self.fleet.reserved(name) == told
            assert told.cpus <= 16
            assert told.memory_mib <= 4096

    def come_to_rest(self) -> None:
        """Nobody comes or goes any more: a few plans, and then none has a move left."""
        for _ in range(20):
            plan = plan_balance(self.fleet, BAND, Taste(), self.frame())
            if not plan.moves:
                break
            self.carry_out(plan)
        assert plan.outcome in ("even", "stuck")
        again = plan_balance(self.fleet, BAND, Taste(), self.frame())
        assert (again.moves, again.before) == ((), plan.before)


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


SEEDS = [int(os.environ.get("VIREO_SIMULATION_SEED", "20260101"))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_site_that_is_evened_out_keeps_its_rules_and_comes_to_rest(seed: int) -> None:
    site = Site(seed)
    try:
        for number in range(STEPS):
            site.step()
            if number % 20 == 0:
                site.check_sums()
        site.come_to_rest()
        site.check_sums()
        assert site.seen["balance"] > 5
        assert site.seen["drain"] > 0
        assert site.seen["refused"] > 0
    except AssertionError as error:
        error.add_note(f"seed {seed}, commit {commit()}, at {site.now:.0f} s, {dict(site.seen)}")
        raise
