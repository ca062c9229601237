"""The scheduler told a second time, as plainly as can be: one host after the other, one VM after the other.

No arrays, nothing kept between questions, nothing taken from the production code but the language of
`schemas`. What it says of a fleet is what the scheduler must say.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from schemas.definitions import Quota
from schemas.policies import Policy
from schemas.resources import HostConfig, HostFacts, NumaNode, VmSpec
from schemas.rules import Affinity, HostPreference, HostRules, LabelExpression, Spread, Taint

CPU_OVERCOMMIT = 4.0
RESERVE_MEMORY_MIB = 512
LEASE_S = 10.0
FRESH_S = 20.0
TAU_S = 30.0
BAND = 0.05


@dataclass
class Load:
    at: float
    average: float
    weighed: float


@dataclass
class OracleHost:
    facts: HostFacts
    config: HostConfig
    renewed_at: float | None = None
    sampled_at: float | None = None
    load: Load | None = None
    free_disk_gib: float | None = None
    watts: float | None = None

    @property
    def name(self) -> str:
        return self.facts.host

    @property
    def labels(self) -> dict[str, str]:
        return {**self.facts.labels, **self.config.labels}

    def images(self) -> dict[str, int]:
        return {image.name: image.size_gib for image in self.facts.images}

    def measure(
        self, *, at: float, load: float | None, free_disk_gib: float | None, watts: float | None
    ) -> None:
        before = self.load
        if load is None:
            self.load = None
        elif before is None:
            self.load = Load(at, load, load)
        else:
            share = 1.0 - math.exp(-(at - (self.sampled_at or at)) / TAU_S)
            average = before.average + share * (load - before.average)
            near = abs(average - before.weighed) < BAND
            self.load = Load(at, average, before.weighed if near else average)
        self.sampled_at, self.free_disk_gib, self.watts = at, free_disk_gib, watts

    def is_alive(self, now: float) -> bool:
        return self.renewed_at is not None and now - self.renewed_at <= LEASE_S

    def is_fresh(self, now: float) -> bool:
        return self.sampled_at is not None and now - self.sampled_at <= FRESH_S


@dataclass
class OracleVm:
    spec: VmSpec
    host: str
    node: int | None


@dataclass
class Oracle:
    """A fleet, and what is decided on it."""

    hosts: dict[str, OracleHost] = field(default_factory=dict)
    vms: dict[str, OracleVm] = field(default_factory=dict)
    projects: dict[str, Quota] = field(default_factory=dict)
    _on: dict[str, dict[str, OracleVm]] = field(default_factory=dict)

    def hold(self, id: str, vm: OracleVm) -> None:
        self.vms[id] = vm
        self._on.setdefault(vm.host, {})[id] = vm

    def forget(self, id: str) -> None:
        del self._on[self.vms.pop(id).host][id]

    def on(self, host: str) -> Iterable[OracleVm]:
        return self._on.get(host, {}).values()

    def taken(self, project: str) -> tuple[int, int, int, int]:
        """VMs, CPUs, memory and disk of a project."""
        mine = [vm for vm in self.vms.values() if vm.spec.project == project]
        return (
            len(mine),
            sum(vm.spec.cpus for vm in mine),
            sum(vm.spec.memory_mib for vm in mine),
            sum(whole_disk_gib(vm.spec, self.hosts[vm.host].images()) for vm in mine),
        )

    def asked(self, spec: VmSpec) -> tuple[int, int, int, int]:
        """The same of one more VM: an image counts as where it is largest."""
        largest: dict[str, int] = {}
        for host in self.hosts.values():
            for image, size_gib in host.images().items():
                largest[image] = max(size_gib, largest.get(image, 0))
        return 1, spec.cpus, spec.memory_mib, whole_disk_gib(spec, largest)

    def over_quota(self, spec: VmSpec) -> bool:
        if spec.project is None:
            return False
        quota = self.projects[spec.project]
        most = (quota.vms, quota.cpus, quota.memory_mib, quota.disk_gib)
        together = zip(most, self.taken(spec.project), self.asked(spec), strict=True)
        return any(limit is not None and have + more > limit for limit, have, more in together)

    def decide(self, spec: VmSpec, policy: Policy, *, now: float, chance: int) -> Decided:
        question = Question(self, spec, policy, now, chance)
        verdicts = {name: question.first_rule(host) for name, host in sorted(self.hosts.items())}
        excluded = {name: rule for name, rule in verdicts.items() if rule is not None}
        scored = [
            (name, *question.score(self.hosts[name])) for name in verdicts if name not in excluded
        ]
        scored.sort(key=lambda one: (-one[1], one[0]))
        node = question.node(self.hosts[scored[0][0]]) if scored else None
        return Decided(scored, excluded, node)


@dataclass
class Decided:
    scored: list[tuple[str, float, dict[str, float]]]
    """Host, score, terms; best first."""
    excluded: dict[str, str]
    node: int | None


@dataclass
class Question:
    """One VM's wish for a place."""

    fleet: Oracle
    spec: VmSpec
    policy: Policy
    now: float
    chance: int
    _shunning: list[tuple[OracleVm, Affinity]] | None = None

    # rules

    def first_rule(self, host: OracleHost) -> str | None:
        for rule, allows in RULES.items():
            if self.policy.rules.get(rule, "required") == "required" and not allows(self, host):  # type: ignore[call-overload]
                return rule
        return None

    def lease(self, host: OracleHost) -> bool:
        return host.is_alive(self.now)

    def maintenance(self, host: OracleHost) -> bool:
        return not host.config.maintenance

    def pinned(self, host: OracleHost) -> bool:
        on = self.spec.on
        return on.host in (None, host.name) and host.name not in on.not_on

    def labels(self, host: OracleHost) -> bool:
        return selects(self.spec.on, host.labels)

    def taints(self, host: OracleHost) -> bool:
        return not any(t.effect == "refuse" and not self.bears(t) for t in host.config.taints)

    def bears(self, taint: Taint) -> bool:
        for one in self.spec.on.tolerations:
            if one.key is not None and one.key != taint.key:
                continue
            if one.value is None or one.value == taint.value:
                return True
        return False

    def image(self, host: OracleHost) -> bool:
        return all(disk.image is None or disk.image in host.images() for disk in self.spec.disks)

    def network(self, host: OracleHost) -> bool:
        return all(nic.network in host.facts.networks for nic in self.spec.nics)

    def cpu(self, host: OracleHost) -> bool:
        if self.spec.cpus > host.facts.cpus:
            return False
        return self.used_cpus(host) + self.spec.cpus <= self.most_cpus(host)

    def memory(self, host: OracleHost) -> bool:
        needs = plain_memory(self.spec)
        return needs == 0 or self.used_memory(host) + needs <= self.most_memory(host)

    def huge_pages(self, host: OracleHost) -> bool:
        size = self.spec.hardware.huge_page_kib
        if size is None:
            return True
        there = sum(one.pages for one in host.facts.huge_pages if one.size_kib == size)
        used = sum(huge_pages(vm.spec, size) for vm in self.on(host))
        return used + huge_pages(self.spec, size) <= there

    def numa(self, host: OracleHost) -> bool:
        if self.spec.hardware.numa == "any" or not nodes(host):
            return True
        return any(self.fits_node(host, node) for node in nodes(host))

    def fits_node(self, host: OracleHost, node: NumaNode) -> bool:
        here = [vm.spec for vm in self.on(host) if vm.node == node.id]
        ratio = host.config.tuning.cpu_overcommit or CPU_OVERCOMMIT
        cpus = sum(spec.cpus for spec in here) + self.spec.cpus
        if self.spec.cpus > node.cpus or cpus > int(node.cpus * ratio):
            return False
        size = self.spec.hardware.huge_page_kib
        if size is not None:
            there = sum(one.pages for one in node.huge_pages if one.size_kib == size)
            return sum(huge_pages(spec, size) for spec in [*here, self.spec]) <= there
        return self.node_memory_left(host, node) >= plain_memory(self.spec)

    def node_memory_left(self, host: OracleHost, node: NumaNode) -> int:
        aside = sum(one.pages * one.size_kib // 1024 for one in node.huge_pages)
        ratio = host.config.tuning.memory_overcommit or 1.0
        used = sum(plain_memory(vm.spec) for vm in self.on(host) if vm.node == node.id)
        return int((node.memory_mib - aside) * ratio) - used

    def node(self, host: OracleHost) -> int | None:
        if self.spec.hardware.numa == "any":
            return None
        fitting = [node for node in nodes(host) if self.fits_node(host, node)]
        left = [(self.node_memory_left(host, node), node.id) for node in fitting]
        return min(left)[1] if left else None

    def disk(self, host: OracleHost) -> bool:
        kept = host.config.tuning.reserve_disk_gib or 0
        if host.is_fresh(self.now) and host.free_disk_gib is not None and host.free_disk_gib < kept:
            return False
        needs = disk_gib(self.spec, host, None)
        return needs <= max(self.most_disk(host) - self.used_disk(host, None), 0)

    def pool(self, host: OracleHost) -> bool:
        for pool in sorted({disk.pool for disk in self.spec.disks if disk.pool is not None}):
            size = sum(one.size_gib for one in host.facts.pools if one.name == pool)
            needs = disk_gib(self.spec, host, pool)
            if size <= 0 or needs > max(size - self.used_disk(host, pool), 0):
                return False
        return True

    def devices(self, host: OracleHost) -> bool:
        for name in sorted({one.name for one in self.spec.hardware.devices}):
            there = sum(1 for device in host.facts.devices if device.name == name)
            used = sum(devices(vm.spec, name) for vm in self.on(host))
            if used + devices(self.spec, name) > there:
                return False
        return True

    def affinity(self, host: OracleHost) -> bool:
        return all(self.is_near(host, one) for one in self.spec.on.affinity if one.required)

    def is_near(self, host: OracleHost, wish: Affinity) -> bool:
        everywhere = [vm for vm in self.fleet.vms.values() if selects(wish, vm.spec.labels)]
        if not everywhere and selects(wish, self.spec.labels):
            return wish.topology is None or wish.topology in host.labels
        return self.holds(host, wish)

    def holds(self, host: OracleHost, wish: Affinity) -> bool:
        return any(selects(wish, vm.spec.labels) for vm in self.in_domain(host, wish.topology))

    def anti_affinity(self, host: OracleHost) -> bool:
        if any(self.holds(host, one) for one in self.spec.on.anti_affinity if one.required):
            return False
        return not any(
            same_domain(host, self.fleet.hosts[vm.host], one.topology)
            for vm, one in self.shunning()
        )

    def shunning(self) -> list[tuple[OracleVm, Affinity]]:
        """The placed VMs that shun this one; the same for every host."""
        if self._shunning is None:
            self._shunning = [
                (vm, one)
                for vm in self.fleet.vms.values()
                for one in vm.spec.on.anti_affinity
                if one.required and selects(one, self.spec.labels)
            ]
        return self._shunning

    def spread(self, host: OracleHost) -> bool:
        for wish in self.spec.on.spread:
            if wish.required:
                skew = self.skew(host, wish)
                if skew is None or skew > wish.max_skew:
                    return False
        return True

    def skew(self, host: OracleHost, wish: Spread) -> int | None:
        """With this VM, how many more the host's domain has than the emptiest possible one."""
        if wish.topology is not None and wish.topology not in host.labels:
            return None
        least = [
            self.selected_near(other, wish)
            for other in self.fleet.hosts.values()
            if self.is_possible(other) and (wish.topology is None or wish.topology in other.labels)
        ]
        own = 1 if selects(wish, self.spec.labels) else 0
        return self.selected_near(host, wish) + own - min(least, default=0)

    def selected_near(self, host: OracleHost, wish: Spread) -> int:
        near = self.in_domain(host, wish.topology)
        return sum(1 for vm in near if selects(wish, vm.spec.labels))

    def is_possible(self, host: OracleHost) -> bool:
        first = self.first_of(host, ("lease", "maintenance", "pinned", "labels", "taints"))
        return first is None

    def first_of(self, host: OracleHost, rules: tuple[str, ...]) -> str | None:
        for rule in rules:
            if self.policy.rules.get(rule, "required") == "required":  # type: ignore[call-overload]  # noqa: SIM102
                if not RULES[rule](self, host):
                    return rule
        return None

    # sums

    def on(self, host: OracleHost) -> Iterable[OracleVm]:
        return self.fleet.on(host.name)

    def in_domain(self, host: OracleHost, topology: str | None) -> Iterator[OracleVm]:
        if topology is None:
            yield from self.on(host)
            return
        for vm in self.fleet.vms.values():
            if same_domain(host, self.fleet.hosts[vm.host], topology):
                yield vm

    def most_cpus(self, host: OracleHost) -> int:
        tuning = host.config.tuning
        ratio = tuning.cpu_overcommit or CPU_OVERCOMMIT
        return int((host.facts.cpus - tuning.reserve_cpus) * ratio) - foreign(host)[0]

    def most_memory(self, host: OracleHost) -> int:
        tuning = host.config.tuning
        aside = sum(one.pages * one.size_kib // 1024 for one in host.facts.huge_pages)
        kept = tuning.reserve_memory_mib
        kept = RESERVE_MEMORY_MIB if kept is None else kept
        there = int((host.facts.memory_mib - aside) * (tuning.memory_overcommit or 1.0))
        return there - kept - foreign(host)[1]

    def most_disk(self, host: OracleHost) -> int:
        tuning = host.config.tuning
        there = int(host.facts.disk_gib * (tuning.disk_overcommit or 1.0))
        return there - (tuning.reserve_disk_gib or 0)

    def used_cpus(self, host: OracleHost) -> int:
        return sum(vm.spec.cpus for vm in self.on(host))

    def used_memory(self, host: OracleHost) -> int:
        return sum(plain_memory(vm.spec) for vm in self.on(host))

    def used_disk(self, host: OracleHost, pool: str | None) -> int:
        return sum(disk_gib(vm.spec, host, pool) for vm in self.on(host))

    # scores

    def score(self, host: OracleHost) -> tuple[float, dict[str, float]]:
        total = weights = 0.0
        terms = {}
        for name, weight, value in self.terms(host):
            if value is not None:
                terms[name] = value
                total += weight * value
                weights += weight
        return (total / weights if weights else 0.0), terms

    def terms(self, host: OracleHost) -> Iterator[tuple[str, float, float | None]]:
        # Those that can be kept come before those of the whole fleet.
        for late in (False, True):
            for term, weight in self.policy.weights.items():
                if weight and late == (term in ("headroom", "host_weight")):
                    yield term, weight, TERMS[term](self, host)
        preference = self.policy.parameters.preference_weight
        if preference:
            for name, value in self.wishes(host):
                yield name, preference, value

    def wishes(self, host: OracleHost) -> Iterator[tuple[str, float]]:
        on, loosened = self.spec.on, self.loosened()
        if on.prefer:
            yield "preferred_hosts", mean([(p.weight, selects(p, host.labels)) for p in on.prefer])
        taints = {taint for other in self.fleet.hosts.values() for taint in other.config.taints}
        if any(taint.effect == "avoid" for taint in taints):
            hard = [t for t in host.config.taints if t.effect == "avoid" and not self.bears(t)]
            yield "avoided_taints", 0.5 ** len(set(hard))
        for rule in ("image", "labels", "numa", "taints"):
            if rule in loosened and self.concerns(rule, taints):
                yield rule, float(RULES[rule](self, host))
        near = [w for w in on.affinity if not w.required or "affinity" in loosened]
        if near:
            yield "affinity", mean([(w.weight, self.is_near(host, w)) for w in near])
        away = [w for w in on.anti_affinity if not w.required or "anti_affinity" in loosened]
        if away:
            yield "anti_affinity", mean([(w.weight, not self.holds(host, w)) for w in away])
        spread = [w for w in on.spread if not w.required or "spread" in loosened]
        if spread:
            yield "spread", mean([(w.weight, self.evenness(host, w)) for w in spread])

    def loosened(self) -> set[str]:
        return {rule for rule, said in self.policy.rules.items() if said == "preferred"}

    def concerns(self, rule: str, taints: set[Taint]) -> bool:
        """Whether the request or the fleet has anything that the rule is about."""
        on = self.spec.on
        if rule == "labels":
            return bool(on.labels or on.expressions)
        if rule == "image":
            return any(disk.image is not None for disk in self.spec.disks)
        if rule == "taints":
            return any(t.effect == "refuse" and not self.bears(t) for t in taints)
        return self.spec.hardware.numa == "one"

    def evenness(self, host: OracleHost, wish: Spread) -> float:
        skew = self.skew(host, wish)
        return 0.0 if skew is None else 1.0 / (1.0 + max(skew - wish.max_skew, 0))

    def free_memory(self, host: OracleHost) -> float:
        most = self.most_memory(host)
        return share(most - self.used_memory(host) - plain_memory(self.spec), most)

    def free_cpu(self, host: OracleHost) -> float:
        most = self.most_cpus(host)
        return share(most - self.used_cpus(host) - self.spec.cpus, most)

    def free_disk(self, host: OracleHost) -> float:
        most = self.most_disk(host)
        return share(most - self.used_disk(host, None) - disk_gib(self.spec, host, None), most)

    def packed(self, host: OracleHost) -> float:
        return 1.0 - (self.free_cpu(host) + self.free_memory(host)) / 2.0

    def balanced(self, host: OracleHost) -> float:
        return 1.0 - abs(self.free_cpu(host) - self.free_memory(host))

    def idle(self, host: OracleHost) -> float | None:
        if not host.is_fresh(self.now) or host.load is None:
            return None
        return 1.0 - host.load.weighed

    def energy(self, host: OracleHost) -> float | None:
        idle, full = host.config.tuning.idle_watts, host.config.tuning.full_watts
        if idle is None or full is None:
            return None
        added = (full - idle) * self.spec.cpus / max(host.facts.cpus, 1)
        if not self.on(host):
            measured = host.is_fresh(self.now) and host.watts is not None
            added += host.watts if measured and host.watts is not None else idle
        return 1.0 - min(max(added / self.policy.parameters.watts_scale, 0.0), 1.0)

    def image_cached(self, host: OracleHost) -> float:
        wanted = {disk.image for disk in self.spec.disks if disk.image is not None}
        return len(wanted & host.images().keys()) / len(wanted) if wanted else 1.0

    def headroom(self, host: OracleHost) -> float:
        cpu = self.absorbed(host, self.most_cpus, self.used_cpus, self.spec.cpus)
        memory = self.absorbed(host, self.most_memory, self.used_memory, plain_memory(self.spec))
        return min(cpu, memory)

    def absorbed(
        self,
        host: OracleHost,
        most: Callable[[OracleHost], int],
        used: Callable[[OracleHost], int],
        needs: int,
    ) -> float:
        others = sum(
            max(most(other) - used(other), 0)
            for other in self.fleet.hosts.values()
            if other is not host and other.is_alive(self.now) and not other.config.maintenance
        )
        return max(1.0 - (used(host) + needs) / others, 0.0) if others > 0 else 0.0

    def host_weight(self, host: OracleHost) -> float:
        lot = int.from_bytes(hashlib.sha256(host.name.encode()).digest()[:8], "big")
        return math.pow(draw(lot ^ self.chance), 1.0 / host.config.tuning.weight)


RULES: dict[str, Callable[[Question, OracleHost], bool]] = {
    "lease": Question.lease,
    "maintenance": Question.maintenance,
    "pinned": Question.pinned,
    "labels": Question.labels,
    "taints": Question.taints,
    "image": Question.image,
    "network": Question.network,
    "cpu": Question.cpu,
    "memory": Question.memory,
    "huge_pages": Question.huge_pages,
    "numa": Question.numa,
    "disk": Question.disk,
    "pool": Question.pool,
    "devices": Question.devices,
    "affinity": Question.affinity,
    "anti_affinity": Question.anti_affinity,
    "spread": Question.spread,
}
TERMS: dict[str, Callable[[Question, OracleHost], float | None]] = {
    "free_memory": Question.free_memory,
    "free_cpu": Question.free_cpu,
    "free_disk": Question.free_disk,
    "packed": Question.packed,
    "balanced": Question.balanced,
    "idle": Question.idle,
    "energy": Question.energy,
    "image_cached": Question.image_cached,
    "headroom": Question.headroom,
    "host_weight": Question.host_weight,
}


def selects(wish: Affinity | Spread | HostPreference | HostRules, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in wish.labels.items()):
        return False
    return all(holds(one, labels) for one in wish.expressions)


def holds(one: LabelExpression, labels: dict[str, str]) -> bool:
    value = labels.get(one.key)
    if one.operator == "exists":
        return value is not None
    if one.operator == "not_exists":
        return value is None
    if one.operator == "in":
        return value in one.values
    if one.operator == "not_in":
        return value not in one.values
    try:
        number = int(value or "")
    except ValueError:
        return False
    bound = int(one.values[0])
    return number > bound if one.operator == "greater" else number < bound


def same_domain(one: OracleHost, other: OracleHost, topology: str | None) -> bool:
    if topology is None:
        return one.name == other.name
    return topology in one.labels and one.labels[topology] == other.labels.get(topology)


def nodes(host: OracleHost) -> tuple[NumaNode, ...]:
    return () if host.facts.domain_type == "test" else host.facts.numa


def foreign(host: OracleHost) -> tuple[int, int]:
    if host.facts.domain_type == "test":
        return 0, 0
    running = [one for one in host.facts.foreign if one.state in ("running", "paused")]
    return sum(one.cpus for one in running), sum(one.memory_mib for one in running)


def plain_memory(spec: VmSpec) -> int:
    return 0 if spec.hardware.huge_page_kib else spec.memory_mib


def huge_pages(spec: VmSpec, size_kib: int) -> int:
    if spec.hardware.huge_page_kib != size_kib:
        return 0
    return math.ceil(spec.memory_mib * 1024 / size_kib)


def disk_gib(spec: VmSpec, host: OracleHost, pool: str | None) -> int:
    images = host.images()
    return sum(
        max(disk.size_gib, images.get(disk.image or "", 0))
        for disk in spec.disks
        if disk.pool == pool
    )


def devices(spec: VmSpec, name: str) -> int:
    return sum(one.count for one in spec.hardware.devices if one.name == name)


def share(part: float, of: float) -> float:
    return min(max(part / of, 0.0), 1.0) if of > 0 else 0.0


def mean(weighted: list[tuple[int, float]]) -> float:
    return sum(weight * value for weight, value in weighted) / sum(w for w, _ in weighted)


def draw(bits: int) -> float:
    """SplitMix64's finaliser, made a number in (0, 1)."""
    mask = (1 << 64) - 1
    mixed = (bits + 0x9E3779B97F4A7C15) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    mixed ^= mixed >> 31
    return ((mixed >> 11) + 0.5) * 2.0**-53


def whole_disk_gib(spec: VmSpec, images: dict[str, int]) -> int:
    """What all disks take, in whichever pool."""
    return sum(max(disk.size_gib, images.get(disk.image or "", 0)) for disk in spec.disks)
