"""The fleet: hosts, assignments and policies by name, and the table of numbers that is decided on.

Pure: no clock, no bus. `Fleet` is the one thing with an identity; what comes out of it are frozen values.
The numbers and what follows from them are the table's (`table.py`), which is fed here; who holds what is
found by `holdings.py`.
Every `apply_…` ignores a revision that is not newer than the one it holds, so own writes may be applied
at once and arrive again with the bucket's own updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.definitions import Amounts
from schemas.policies import Policy
from schemas.resources import HostConfig, HostFacts, Placement, VmSpec
from schemas.telemetry import HostSample
from services.scheduler.choice import Choice, Chooser
from services.scheduler.compiled import CompiledPolicy
from services.scheduler.definitions import Definitions, amounts_of
from services.scheduler.groups import Member
from services.scheduler.holdings import Holdings
from services.scheduler.model import Ask, Held, HostRow, Limits
from services.scheduler.placement import NoHost, place
from services.scheduler.requests import (
    Demand,
    Request,
    Requests,
    demand_of,
    foreign_demand,
)
from services.scheduler.table import Table


class Fleet:
    """What the scheduler knows. One per process, changed only by the methods below."""

    def __init__(
        self, limits: Limits, policies: Mapping[str, Policy], *, policy: str = "spread"
    ) -> None:
        """`policy` is the one for requests that name none."""
        self.limits = limits
        self.table = Table(limits)
        self._chooser = Chooser(self.table)
        self.definitions = Definitions(policies, policy=policy)
        self._requests = Requests()
        self._largest: dict[str, int] = {}
        """Of images that projects with quotas ask for, the largest size on any host."""
        self._hosts: dict[str, HostRow] = {}
        self._early: dict[str, tuple[HostSample, float]] = {}
        """The newest sample, and when it came, of hosts that have a lease and no facts yet."""
        self.holdings = Holdings()

    def copy(self) -> Fleet:
        """The same, to be changed without harm: for asking what would be. What is decided on it is what
        would be decided here. Takes milliseconds for thousands of hosts; values are shared."""
        twin = Fleet(self.limits, {})
        twin.definitions = self.definitions.copy()
        twin.table = self.table.copy()
        twin._chooser = Chooser(twin.table)
        twin._hosts, twin._early = self._hosts.copy(), self._early.copy()
        twin.holdings = self.holdings.copy()
        return twin

    # reading

    def host(self, name: str) -> HostRow | None:
        """A host that has registered, or None."""
        row = self._hosts.get(name)
        return row if row is not None and row.facts is not None else None

    def hosts(self) -> list[HostRow]:
        """Every host that has registered."""
        return [row for row in self._hosts.values() if row.facts is not None]

    def reserved(self, host: str) -> Demand:
        """What the VMs assigned to a registered host take, running or not, decisions in flight
        included."""
        return self.table.promised(host)

    def policy(self, name: str | None) -> CompiledPolicy | None:
        """The policy of this name, or the site's own."""
        return self.definitions.policy(name)

    def policy_of(self, spec: VmSpec) -> CompiledPolicy | None:
        """The policy that a VM is placed by: the one it names, its project's, the site's."""
        return self.definitions.policy(self.definitions.policy_for(spec))

    def asks_for(self, spec: VmSpec) -> Amounts:
        """What a VM would take of its project's quota, wherever it goes: of an image, the largest."""
        request = self.request(spec)
        for image in request.images:
            if image not in self._largest:
                sizes = (row.images.get(image, 0) for row in self._hosts.values())
                self._largest[image] = max(sizes, default=0)
        return amounts_of(spec, demand_of(request, self._largest))

    def request(self, spec: VmSpec) -> Request:
        """A wish, compiled."""
        return self._requests.of(spec)

    def choose(self, spec: VmSpec, policy: CompiledPolicy, ask: Ask) -> Choice:
        """Every host judged and scored for a VM, without words."""
        return self._chooser.choose(self.request(spec), policy, chance=ask.chance, now=ask.now)

    def place(self, spec: VmSpec, policy: CompiledPolicy, ask: Ask) -> Placement | NoHost:
        """The host for a new VM. Nothing is reserved yet."""
        return place(self._chooser, self.request(spec), policy, ask)

    # what FLEET says

    def apply_facts(self, facts: HostFacts, revision: int) -> None:
        row = self._row(facts.host)
        if revision <= row.facts_revision:
            return
        images = {image.name: image.size_gib for image in facts.images}
        new = replace(
            row,
            facts=facts,
            facts_revision=revision,
            labels={**facts.labels, **row.config.labels},
            images=images,
            foreign=foreign_demand(facts),
        )
        self._put(new)
        if images != row.images:
            self._largest.clear()
        if row.facts is None:
            self._enter(new)
        else:
            self._show(new)
            if images != row.images or facts.numa != row.facts.numa:
                self._weigh_again(facts.host)

    def apply_config(self, config: HostConfig, revision: int) -> None:
        row = self._row(config.host)
        if revision <= row.config_revision:
            return
        own = row.facts.labels if row.facts else {}
        labels = {**own, **config.labels}
        new = replace(row, config=config, config_revision=revision, labels=labels)
        self._put(new)
        if new.facts is not None:
            self._show(new)

    def apply_assignment(self, assignment: VmAssignment, revision: int) -> None:
        vm, host = assignment.vm, assignment.host
        held = self.holdings.at(vm, host)
        if held is not None and not held.revision and held.assignment == assignment:
            # Reserved before: it is counted already.
            self.holdings.put(replace(held, revision=revision))
        elif self.holdings.is_news(vm=vm, host=host, revision=revision):
            self._hold(assignment, revision)

    def forget_assignment(self, *, vm: str, host: str, revision: int) -> None:
        """The key was purged at `revision`."""
        if revision > self.holdings.revision(vm, host):
            self._drop(vm, host)
            self.holdings.remember_gone(vm=vm, host=host, revision=revision)

    # decisions in flight

    def reserve(self, assignment: VmAssignment) -> None:
        """Count a placement before it is written, so that the next decision sees it."""
        self._hold(assignment, 0)

    def release(self, *, vm: str, host: str) -> None:
        """Take a reservation back, unless it was written in the meantime."""
        held = self.holdings.at(vm, host)
        if held is not None and held.revision == 0:
            self._drop(vm, host)

    # what if: for copies

    def put_policy(self, policy: Policy) -> None:
        """A policy that is new, or in place of the one of its name."""
        self.definitions.put_policy(policy)

    def lift(self, vm: str, host: str) -> None:
        """As if this host did not hold the VM."""
        self._drop(vm, host)

    def take_away_vm(self, vm: str) -> None:
        """As if there were no such VM."""
        for host in self.holdings.hosts_of(vm):
            self._drop(vm, host)

    def take_away_hosts(self, hosts: Set[str]) -> list[Held]:
        """As if there were no such hosts. Answers the assignments that go with them, by host and VM."""
        gone = [held for host in sorted(hosts) for held in self.holdings.on(host)]
        for held in gone:
            self._drop(held.assignment.vm, held.assignment.host)
        registered = {host for host in hosts if self.host(host) is not None}
        for host in hosts:
            self._hosts.pop(host, None)
            self._early.pop(host, None)
        self._largest.clear()
        self.table.remove_hosts(registered)
        return gone

    # what hosts say of themselves

    def heard_lease(self, host: str, *, at: float, lease_s: float) -> None:
        row = self._row(host)
        unbroken = row.renewed_at is not None and at - row.renewed_at <= lease_s
        since = row.renewing_since if unbroken and row.renewing_since is not None else at
        self._put(replace(row, renewed_at=at, renewing_since=since))
        if row.facts is not None:
            self.table.heard(host, at=at)

    def heard_sample(self, host: str, sample: HostSample, *, at: float) -> None:
        """A frame of an unknown host is dropped: what anybody may send must not fill the table. That of
        a host with a lease waits for the host's facts, which take longer to come."""
        row = self._hosts.get(host)
        if row is None:
            return
        if row.facts is None:
            self._early[host] = (sample, at)
        else:
            self.table.sampled(host, sample, at=at)

    def hear_anew(self) -> None:
        """The bus was away: no run of renewals reaches back beyond this moment."""
        for row in list(self._hosts.values()):
            self._put(replace(row, renewing_since=None))

    # parts

    def _row(self, host: str) -> HostRow:
        return self._hosts.get(host) or HostRow(name=host, config=HostConfig(host=host))

    def _put(self, row: HostRow) -> None:
        self._hosts[row.name] = row

    def _hold(self, assignment: VmAssignment, revision: int) -> None:
        vm, host = assignment.vm, assignment.host
        self._drop(vm, host)
        row = self._row(host)
        self._put(row)
        held = Held(assignment=assignment, revision=revision, demand=self._demand(assignment, row))
        self.holdings.put(held)
        self._charge(held, 1)
        if row.facts is not None:
            self._count(held)

    def _drop(self, vm: str, host: str) -> None:
        held = self.holdings.take_out(vm, host)
        if held is None:
            return
        self._charge(held, -1)
        if self._row(host).facts is not None:
            self.table.give_back(host, held.demand)
            self.table.leave((vm, host))

    # the table

    def _enter(self, row: HostRow) -> None:
        """A host has registered: it counts from now, with all that was heard of it before."""
        self._show(row)
        if row.renewed_at is not None:
            self.table.heard(row.name, at=row.renewed_at)
        if early := self._early.pop(row.name, None):
            sample, at = early
            self.table.sampled(row.name, sample, at=at)
        for held in self.holdings.on(row.name):
            self._count(self._recharge(held, self._demand(held.assignment, row)))

    def _show(self, row: HostRow) -> None:
        if row.facts is not None:
            self.table.put_host(row.facts, row.config, row.labels, row.foreign)

    def _count(self, held: Held) -> None:
        here = held.assignment
        self.table.take(here.host, held.demand)
        shuns = self.request(here.spec).shuns
        self.table.join((here.vm, here.host), here.host, Member(0, here.spec.labels, shuns))

    def _charge(self, held: Held, sign: int) -> None:
        """Count an assignment against its project's quota, or no longer."""
        spec = held.assignment.spec
        if spec.project is not None:
            self.definitions.count(spec.project, amounts_of(spec, held.demand), sign)

    def _recharge(self, held: Held, demand: Demand) -> Held:
        new = replace(held, demand=demand)
        self._charge(held, -1)
        self._charge(new, 1)
        self.holdings.put(new)
        return new

    def _demand(self, assignment: VmAssignment, row: HostRow) -> Demand:
        nodes = () if row.facts is None else row.facts.numa
        ids = [node.id for node in nodes]
        promised = assignment.placement.numa_node
        node = ids.index(promised) if promised in ids else None
        return demand_of(self.request(assignment.spec), row.images, node=node)

    def _weigh_again(self, host: str) -> None:
        """A disk as large as its image takes what the image takes: new images, new sums."""
        row = self._row(host)
        for held in self.holdings.on(host):
            demand = self._demand(held.assignment, row)
            self.table.give_back(host, held.demand)
            self.table.take(host, demand)
            self._recharge(held, demand)
