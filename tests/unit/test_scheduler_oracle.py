"""The scheduler and its naive double see the same fleet and never differ."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.policies import Policy, PolicyParameters
from schemas.resources import (
    DiskSpec,
    ForeignDomain,
    HostConfig,
    HostFacts,
    HostImage,
    HostPool,
    HostTuning,
    NumaNode,
    Placement,
    VmSpec,
)
from schemas.rules import (
    Affinity,
    DeviceRequest,
    Hardware,
    HostDevice,
    HostPreference,
    HostRules,
    HugePages,
    LabelExpression,
    Spread,
    Taint,
    Toleration,
)
from schemas.telemetry import HostSample
from services.scheduler.fleet import Fleet
from services.scheduler.model import Ask, Limits
from services.scheduler.placement import NoHost
from tests.fixtures.scheduler import facts, id_of, new_fleet
from tests.oracle.scheduler import Decided, Oracle, OracleHost, OracleVm

HOSTS = tuple(f"h{number}" for number in (3, 1, 2, 0, 10, 4))
RACKS = ("a", "b", "c")
TERMS = (
    *("free_memory", "free_cpu", "free_disk", "packed", "balanced", "idle", "energy"),
    *("image_cached", "headroom", "host_weight"),
)
SOFT = ("labels", "taints", "image", "affinity", "anti_affinity", "spread", "numa")

pair = st.sampled_from(({"app": "x"}, {"app": "y"}, {"app": "x", "tier": "1"}, {"tier": "2"}))
expression = st.sampled_from(
    (
        LabelExpression(key="rack", operator="in", values=("a", "b")),
        LabelExpression(key="rack", operator="not_in", values=("a",)),
        LabelExpression(key="tier", operator="exists"),
        LabelExpression(key="app", operator="not_exists"),
        LabelExpression(key="tier", operator="greater", values=("1",)),
        LabelExpression(key="slot", operator="less", values=("3",)),
    )
)
few_expressions = st.lists(expression, max_size=1).map(tuple)
topology = st.sampled_from((None, "rack", "slot"))
affinity = st.builds(
    Affinity,
    labels=pair,
    expressions=few_expressions,
    topology=topology,
    required=st.booleans(),
    weight=st.integers(1, 3),
)
spread = st.builds(
    Spread,
    labels=st.one_of(st.just({}), pair),
    topology=topology,
    max_skew=st.integers(1, 2),
    required=st.booleans(),
)
prefer = st.builds(HostPreference, expressions=few_expressions, weight=st.integers(1, 3))
taint = st.sampled_from(
    (Taint(key="gpu"), Taint(key="gpu", value="1"), Taint(key="old", effect="avoid"))
)
toleration = st.sampled_from(
    (Toleration(), Toleration(key="gpu"), Toleration(key="gpu", value="1"))
)


def often_empty(strategy: Any, most: int = 1) -> Any:
    return st.integers(0, 3).flatmap(
        lambda die: (
            st.just(()) if die < 3 else st.lists(strategy, min_size=1, max_size=most).map(tuple)
        )
    )


@st.composite
def wishes(draw: Any) -> VmSpec:
    disks = st.builds(
        DiskSpec,
        size_gib=st.integers(0, 8),
        image=st.sampled_from((None, "tiny", "tiny", "tiny", "big")),
        pool=st.sampled_from((None,) * 9 + ("fast",)),
    )
    on = HostRules(
        host=draw(st.sampled_from((None,) * 9 + ("h1",))),
        labels=draw(st.sampled_from(({},) * 9 + ({"rack": "a"},))),
        not_on=draw(often_empty(st.sampled_from((*HOSTS, "nobody")))),
        expressions=draw(often_empty(expression) if draw(st.booleans()) else st.just(())),
        tolerations=draw(often_empty(toleration)),
        prefer=draw(often_empty(prefer, 2)),
        affinity=draw(often_empty(affinity)),
        anti_affinity=draw(often_empty(affinity, 2)),
        spread=draw(often_empty(spread)),
    )
    hardware = Hardware(
        numa=draw(st.sampled_from(("one", "any"))),
        huge_page_kib=draw(st.sampled_from((None,) * 9 + (2048,))),
        devices=draw(often_empty(st.builds(DeviceRequest, name=st.just("gpu")))),
    )
    return VmSpec(
        name="vm",
        cpus=draw(st.integers(1, 4)),
        memory_mib=draw(st.integers(32, 1500)),
        disks=tuple(draw(st.lists(disks, min_size=1, max_size=2))),
        labels=draw(st.one_of(st.just({}), pair)),
        on=on,
        hardware=hardware,
    )


@st.composite
def known_facts(draw: Any) -> HostFacts:
    node = st.builds(
        NumaNode,
        id=st.just(0),
        cpus=st.integers(1, 4),
        memory_mib=st.integers(500, 3000),
        huge_pages=often_empty(st.just(HugePages(size_kib=2048, pages=100))),
    )
    numa = [
        replace(one, id=3 * place)
        for place, one in enumerate(
            draw(st.one_of(st.just([]), st.just([]), st.lists(node, max_size=2)))
        )
    ]
    labels = {"rack": draw(st.sampled_from(RACKS)), "slot": draw(st.sampled_from("12345"))}
    other = ForeignDomain(name="x", uuid="u", state="running", cpus=1, memory_mib=100)
    return facts(
        draw(st.sampled_from(HOSTS)),
        cpus=draw(st.integers(2, 12)),
        memory_mib=draw(st.integers(1500, 9000)),
        disk_gib=draw(st.integers(5, 90)),
        domain_type=draw(st.sampled_from(("kvm", "kvm", "kvm", "test"))),
        numa=tuple(numa),
        huge_pages=draw(often_empty(st.just(HugePages(size_kib=2048, pages=200)))),
        pools=draw(often_empty(st.just(HostPool(name="fast", size_gib=30)))),
        devices=draw(often_empty(st.just(HostDevice(name="gpu", address="0000:41:00.0")), 2)),
        images=draw(
            st.sampled_from(
                (
                    (),
                    (HostImage(name="tiny", size_gib=1),),
                    (HostImage(name="tiny", size_gib=1),),
                    (HostImage(name="tiny", size_gib=2), HostImage(name="big", size_gib=9)),
                )
            )
        ),
        foreign=draw(often_empty(st.just(other))),
        labels=draw(st.sampled_from((labels, labels, {"slot": "no"}))),
    )


configs = st.builds(
    HostConfig,
    host=st.sampled_from(HOSTS),
    maintenance=st.sampled_from((False, False, False, True)),
    labels=st.sampled_from(({}, {"rack": "c"})),
    taints=often_empty(taint, 2),
    tuning=st.builds(
        HostTuning,
        cpu_overcommit=st.sampled_from((None, 1.0, 2.5)),
        memory_overcommit=st.sampled_from((None, 1.5)),
        reserve_cpus=st.integers(0, 2),
        reserve_memory_mib=st.sampled_from((None, 0, 100)),
        reserve_disk_gib=st.sampled_from((None, 5)),
        weight=st.sampled_from((1.0, 2.0, 10.0)),
        idle_watts=st.sampled_from((None, 60.0, 100.0)),
        full_watts=st.sampled_from((None, 250.0)),
    ),
)
policies = st.builds(
    Policy,
    name=st.just("drawn"),
    version=st.just(1),
    weights=st.dictionaries(st.sampled_from(TERMS), st.sampled_from((0.0, 1.0, 2.5)), max_size=4),
    rules=st.dictionaries(st.sampled_from(SOFT), st.sampled_from(("preferred", "off")), max_size=2),
    parameters=st.builds(PolicyParameters, preference_weight=st.sampled_from((0.0, 1.0, 2.0))),
)
samples = st.builds(
    HostSample,
    cpu_busy=st.sampled_from((None, 0.1, 0.12, 0.5, 0.9)),
    io_wait=st.sampled_from((None, 0.3)),
    disk_free_bytes=st.sampled_from((None, 2 << 30, 50 << 30)),
    power_watts=st.sampled_from((None, 80.0)),
)
steps = st.lists(
    st.one_of(
        wishes(),
        wishes(),
        wishes(),
        known_facts(),
        configs,
        st.tuples(st.sampled_from(HOSTS), samples),
        st.tuples(st.just("again"), st.integers(0, 99)),
        st.tuples(st.just("wait"), st.sampled_from((1.0, 4.5, 9.0))),
        st.tuples(st.just("renew"), st.sampled_from(HOSTS)),
        st.tuples(st.just("forget"), st.integers(0, 99)),
        st.tuples(st.just("copy"), st.booleans()),
        st.tuples(st.just("take away"), st.sampled_from(HOSTS)),
    ),
    min_size=5,
    max_size=50,
)


class Twins:
    """The fleet and its double, told the same."""

    def __init__(
        self,
        policy: Policy,
        limits: Limits,
        check: Callable[[Placement | NoHost, Decided], None],
    ) -> None:
        self.check = check
        self.fleet: Fleet = new_fleet(limits, policy)
        self.oracle = Oracle()
        self.policy = policy
        self.now = 100.0
        self.revision = 0
        self._held: list[VmAssignment] = []
        self._asked: list[VmSpec] = []
        self._configs: dict[str, HostConfig] = {}

    def tell(self, step: Any) -> None:
        self.revision += 1
        match step:
            case VmSpec():
                self._place(step)
            case HostFacts():
                self._register(step)
            case HostConfig():
                self._configure(step)
            case ("wait", float(seconds)):
                self.now += seconds
            case ("renew", str(host)):
                self._renew(host)
            case ("again", int(which)):
                if self._asked:
                    self._place(self._asked[which % len(self._asked)])
            case ("forget", int(which)):
                self._forget(which)
            case ("copy", bool(keep)):
                self._copy(keep=keep)
            case ("take away", str(host)):
                self._take_away(host)
            case (str(host), HostSample() as sample):
                self._sample(host, sample)

    def _register(self, known: HostFacts) -> None:
        self.fleet.apply_facts(known, self.revision)
        config = self._configs.get(known.host, HostConfig(host=known.host))
        host = self.oracle.hosts.setdefault(known.host, OracleHost(known, config))
        host.facts = known
        self._renew(known.host)

    def _configure(self, config: HostConfig) -> None:
        self.fleet.apply_config(config, self.revision)
        self._configs[config.host] = config
        if config.host in self.oracle.hosts:
            self.oracle.hosts[config.host].config = config

    def _renew(self, host: str) -> None:
        if host in self.oracle.hosts:
            self.fleet.heard_lease(host, at=self.now, lease_s=10.0)
            self.oracle.hosts[host].renewed_at = self.now

    def _sample(self, host: str, sample: HostSample) -> None:
        self.fleet.heard_sample(host, sample, at=self.now)
        if host in self.oracle.hosts:
            parts = [part for part in (sample.cpu_busy, sample.io_wait) if part is not None]
            free = sample.disk_free_bytes
            self.oracle.hosts[host].measure(
                at=self.now,
                load=max(parts) if parts else None,
                free_disk_gib=None if free is None else free / (1 << 30),
                watts=sample.power_watts,
            )

    def _forget(self, which: int) -> None:
        if self._held:
            gone = self._held.pop(which % len(self._held))
            self.fleet.forget_assignment(vm=gone.vm, host=gone.host, revision=self.revision)
            self.oracle.forget(gone.vm)

    def _copy(self, *, keep: bool) -> None:
        """Go on with the fleet or with its copy, while the other is changed beyond recognition."""
        twin = self.fleet.copy()
        self.fleet, wrecked = (self.fleet, twin) if keep else (twin, self.fleet)
        wreck(wrecked, self.revision, self.now)

    def _take_away(self, host: str) -> None:
        gone = self.fleet.take_away_host(host)
        here = [one for one in self._held if one.host == host]
        assert {held.assignment.vm for held in gone} == {one.vm for one in here}
        for one in here:
            self._held.remove(one)
            self.oracle.forget(one.vm)
        self.oracle.hosts.pop(host, None)
        self._configs.pop(host, None)

    def _place(self, wish: VmSpec) -> None:
        self._asked.append(wish)
        chance = self.revision * 0x9E3779B97F4A7C15 % (1 << 64)
        compiled = self.fleet.policy("drawn")
        assert compiled is not None
        said = self.fleet.place(wish, compiled, Ask(now=self.now, chance=chance))
        expected = self.oracle.decide(wish, self.policy, now=self.now, chance=chance)
        self.check(said, expected)
        if isinstance(said, Placement):
            self._hold(wish, said)

    def _hold(self, wish: VmSpec, placement: Placement) -> None:
        vm = id_of(self.revision)
        assignment = VmAssignment(
            vm=vm,
            host=placement.host,
            generation=1,
            spec=wish,
            power="running",
            operation=vm,
            actor="",
            placement=placement,
        )
        self.fleet.apply_assignment(assignment, self.revision)
        self._held.append(assignment)
        self.oracle.hold(vm, OracleVm(wish, placement.host, placement.numa_node))


def wreck(fleet: Fleet, revision: int, now: float) -> None:
    """Change everything that can be changed."""
    for held in fleet.newest(99):
        here = held.assignment
        if held.revision % 2:
            fleet.forget_assignment(vm=here.vm, host=here.host, revision=revision + 1)
        else:
            fleet.apply_assignment(replace(here, spec=replace(here.spec, cpus=9)), revision + 1)
    for place, host in enumerate(fleet.hosts()):
        labels, taints = {"rack": "z", "slot": "9"}, (Taint(key="gpu"), Taint(key="new"))
        fleet.apply_config(HostConfig(host=host.name, labels=labels, taints=taints), revision + 2)
        fleet.apply_facts(facts(host.name, cpus=1, numa=NODES), revision + 3)
        fleet.heard_sample(host.name, HostSample(cpu_busy=1.0), at=now + 1)
        fleet.heard_lease(host.name, at=now + 99, lease_s=10.0)
        if place % 2:
            fleet.take_away_host(host.name)
    fleet.apply_facts(facts("a-first", devices=(HostDevice(name="gpu", address="1"),)), 1)


def check_same(said: Placement | NoHost, expected: Decided) -> None:
    assert {one.host: one.rule for one in said.excluded} == expected.excluded
    assert sum(said.excluded_by.values()) == len(expected.excluded)
    if isinstance(said, NoHost):
        assert expected.scored == []
        return
    assert [one.host for one in said.ranking] == [name for name, _, _ in expected.scored]
    assert (said.host, said.numa_node) == (expected.scored[0][0], expected.node)
    for one, (_, score, terms) in zip(said.ranking, expected.scored, strict=True):
        assert math.isclose(one.score, score, abs_tol=6e-5)
        assert one.terms.keys() == terms.keys()
        for name, value in terms.items():
            assert math.isclose(one.terms[name], value, abs_tol=6e-5), name


def check_compatible(said: Placement | NoHost, expected: Decided) -> None:
    """What a scan of parts must keep: it places where the VM fits, by a true score, and refuses only
    where nobody fits, for the true reasons."""
    if isinstance(said, NoHost):
        assert expected.scored == []
        assert {one.host: one.rule for one in said.excluded} == expected.excluded
        return
    scores = {name: score for name, score, _ in expected.scored}
    assert all(math.isclose(one.score, scores[one.host], abs_tol=6e-5) for one in said.ranking)
    assert all(expected.excluded[one.host] == one.rule for one in said.excluded)


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
NODES = (NumaNode(id=0, cpus=8, memory_mib=3000), NumaNode(id=3, cpus=8, memory_mib=3000))
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
