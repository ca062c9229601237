"""The table that is decided on: columns, labels and groups of VMs, kept true together.

Pure: time comes in. What a column means stands here; which hosts a rule excludes and what a score is
stands in `rules.py` and `scores.py`. Every change of a row is noted, so that what was worked out for a
request can be brought up to date by the rows that changed.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from schemas.resources import HostConfig, HostFacts
from schemas.rules import Taint
from schemas.telemetry import HostSample
from services.scheduler.columns import NO_VALUE, Columns
from services.scheduler.groups import Groups, Member
from services.scheduler.model import Limits
from services.scheduler.requests import KIB_PER_MIB, Demand
from services.scheduler.selectors import HostLabels

BYTES_PER_GIB = 1 << 30
MOST_GIB = 2**31 - 1
NOTES_LIMIT = 65_536
"""Changes noted before everybody has to begin anew."""


class Table:
    """One per fleet. Hosts are named; rows are its own business, and move when hosts are added."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.columns = Columns()
        self.labels = HostLabels(self.columns)
        self.groups = Groups()
        self.notes: list[int] = []
        """Rows that changed since `epoch` began, oldest first."""
        self.epoch = 0
        self.cursor = 0
        """Where the next scan of a part of a very large fleet begins."""
        self.nodes = 0
        """The most NUMA nodes that a host has."""
        self._taints: dict[str, frozenset[Taint]] = {}
        self._tainted: Counter[Taint] = Counter()
        self.now = -math.inf
        """The moment that `alive` and `fresh` are told for."""
        self._stale = True
        self._stays_until = -math.inf
        """Before this moment no lease and no telemetry grows too old."""

    def copy(self) -> Table:
        """The same, to be changed without harm; nothing that was worked out for requests goes along."""
        twin = Table(self.limits)
        twin.columns = self.columns.copy()
        twin.labels = self.labels.copy(twin.columns)
        twin.groups = self.groups.copy()
        twin.cursor, twin.nodes, twin.now = self.cursor, self.nodes, self.now
        twin._taints, twin._tainted = self._taints.copy(), self._tainted.copy()
        twin._stale, twin._stays_until = self._stale, self._stays_until
        return twin

    # hosts

    def put_host(
        self, facts: HostFacts, config: HostConfig, labels: Mapping[str, str], foreign: Demand
    ) -> None:
        """A host, new or changed. What is promised of it already stays counted."""
        columns = self.columns
        row = columns.row_of.get(facts.host)
        if row is None:
            row = columns.add(facts.host)
            digest = hashlib.sha256(facts.host.encode()).digest()
            columns.lot[row] = int.from_bytes(digest[:8], "big")
            self._begin_anew()
        columns.maintenance[row] = config.maintenance
        self._put_sizes(row, facts, config, foreign)
        self._put_nodes(row, facts, config)
        self._put_lists(row, facts, config)
        self._put_taints(facts.host, config.taints)
        self.labels.put(row, labels)
        self._note(row)

    def _put_sizes(self, row: int, facts: HostFacts, config: HostConfig, foreign: Demand) -> None:
        """What may be promised: what there is, less the reserve for CPUs, by the overcommit ratios,
        less the reserve, what is set aside for huge pages, and what domains take that are not ours."""
        columns, limits, tuning = self.columns, self.limits, config.tuning
        huge_mib = sum(one.pages * one.size_kib // KIB_PER_MIB for one in facts.huge_pages)
        columns.cpus[row] = facts.cpus
        columns.most_cpus[row] = (
            int(
                (facts.cpus - tuning.reserve_cpus)
                * (tuning.cpu_overcommit or limits.cpu_overcommit)
            )
            - foreign.cpus
        )
        columns.most_memory[row] = (
            int(
                (facts.memory_mib - huge_mib)
                * (tuning.memory_overcommit or limits.memory_overcommit)
            )
            - _or(tuning.reserve_memory_mib, limits.reserve_memory_mib)
            - foreign.memory_mib
        )
        kept_disk = _or(tuning.reserve_disk_gib, limits.reserve_disk_gib)
        columns.kept_disk[row] = kept_disk
        columns.most_disk[row] = (
            int(facts.disk_gib * (tuning.disk_overcommit or limits.disk_overcommit)) - kept_disk
        )
        columns.weight[row] = tuning.weight
        columns.idle_watts[row] = _or(tuning.idle_watts, math.nan)
        columns.full_watts[row] = _or(tuning.full_watts, math.nan)

    def _put_nodes(self, row: int, facts: HostFacts, config: HostConfig) -> None:
        """The test driver's nodes are as make-believe as its domains."""
        columns, limits, tuning = self.columns, self.limits, config.tuning
        nodes = () if facts.domain_type == "test" else facts.numa
        columns.has_numa[row] = bool(nodes)
        pages: dict[Any, int] = {}
        for place in range(len(nodes), self.nodes):
            columns.writable("codes", "node", place)[row] = NO_VALUE
        self.nodes = max(self.nodes, len(nodes))
        for place, node in enumerate(nodes):
            huge = {(place, one.size_kib): one.pages for one in node.huge_pages}
            huge_mib = sum(one.pages * one.size_kib // KIB_PER_MIB for one in node.huge_pages)
            cpu_ratio = tuning.cpu_overcommit or limits.cpu_overcommit
            memory_ratio = tuning.memory_overcommit or limits.memory_overcommit
            columns.writable("codes", "node", place)[row] = node.id
            columns.writable("amounts", "node_cpus", place)[row] = node.cpus
            columns.writable("amounts", "node_most_cpus", place)[row] = int(node.cpus * cpu_ratio)
            columns.writable("amounts", "node_most_memory", place)[row] = int(
                (node.memory_mib - huge_mib) * memory_ratio
            )
            pages |= huge
        columns.put(row, "amounts", "node_most_huge", pages)

    def _put_lists(self, row: int, facts: HostFacts, config: HostConfig) -> None:
        columns = self.columns
        columns.put(row, "flags", "network", dict.fromkeys(facts.networks, True))
        columns.put(row, "flags", "taint", dict.fromkeys(config.taints, True))
        images = {image.name: min(image.size_gib, MOST_GIB) for image in facts.images}
        columns.put(row, "codes", "image", images)
        most: dict[Any, int] = {}
        for pool in facts.pools:
            most["pool", pool.name] = pool.size_gib
        for huge in facts.huge_pages:
            most["huge", huge.size_kib] = huge.pages
        for device in facts.devices:
            most["device", device.name] = most.get(("device", device.name), 0) + 1
        columns.put(row, "amounts", "most", most)

    def _put_taints(self, host: str, taints: tuple[Taint, ...]) -> None:
        """A taint that is new to the fleet, or gone from it, may matter to every score."""
        before = set(self._tainted)
        for taint in self._taints.pop(host, ()):
            self._tainted[taint] -= 1
        if taints:
            self._taints[host] = frozenset(taints)
        for taint in self._taints.get(host, ()):
            self._tainted[taint] += 1
        self._tainted = Counter({taint: n for taint, n in self._tainted.items() if n})
        if set(self._tainted) != before:
            self._begin_anew()

    def remove_hosts(self, hosts: Set[str]) -> None:
        """Hosts that hold no VM are no more."""
        for host in hosts:
            self._put_taints(host, ())
        self.groups.move(self.columns.remove(hosts))
        self._begin_anew()

    def taints(self) -> list[Taint]:
        """Every taint that a host has now."""
        return list(self._tainted)

    # what hosts say of themselves, and time

    def heard(self, host: str, *, at: float) -> None:
        """The host renewed its lease."""
        row = self.columns.row_of[host]
        self.columns.renewed_at[row] = at
        self._stays_until = min(self._stays_until, at + self.limits.lease_s)
        if not self.columns.alive[row]:
            self._stale = True

    def sampled(self, host: str, sample: HostSample, *, at: float) -> None:
        """What was measured, smoothed: the average follows with `load_tau_s`, and what is weighed
        follows the average when they are `load_band` apart, so that noise moves no decision."""
        columns, row = self.columns, self.columns.row_of[host]
        elapsed_s = max(at - float(columns.sampled_at[row]), 0.0)
        columns.sampled_at[row] = at
        self._stays_until = min(self._stays_until, at + self.limits.telemetry_fresh_s)
        if not columns.fresh[row]:
            self._stale = True
        before = self._measured(row)
        self._put_load(row, load_of(sample), elapsed_s)
        free, watts = sample.disk_free_bytes, sample.power_watts
        columns.free_disk[row] = math.nan if free is None else free / BYTES_PER_GIB
        columns.watts[row] = math.nan if watts is None else watts
        if self._measured(row) != before:
            self._note(row)

    def _measured(self, row: int) -> tuple[str, str, bool]:
        """What rules and scores make of a host's telemetry; NaN, in words, equals itself."""
        columns = self.columns
        is_full = bool(columns.free_disk[row] < columns.kept_disk[row])
        return str(columns.load[row]), str(columns.watts[row]), is_full

    def _put_load(self, row: int, load: float | None, elapsed_s: float) -> None:
        columns = self.columns
        if load is None:
            columns.average[row] = columns.load[row] = math.nan
            return
        before = float(columns.average[row])
        share = 1.0 - math.exp(-elapsed_s / self.limits.load_tau_s)
        average = load if math.isnan(before) else before + share * (load - before)
        columns.average[row] = average
        if not abs(average - float(columns.load[row])) < self.limits.load_band:
            columns.load[row] = average

    def pass_time(self, now: float) -> None:
        """Bring `alive` and `fresh` to this moment."""
        unchanged = not self._stale and self.now <= now < self._stays_until
        self.now = now
        if unchanged:
            return
        columns, at = self.columns, self.columns.all
        alive = now - columns.renewed_at[at] <= self.limits.lease_s
        fresh = now - columns.sampled_at[at] <= self.limits.telemetry_fresh_s
        for row in np.flatnonzero((alive != columns.alive[at]) | (fresh != columns.fresh[at])):
            self._note(int(row))
        columns.alive[at], columns.fresh[at] = alive, fresh
        ends = (
            columns.renewed_at[at][alive] + self.limits.lease_s,
            columns.sampled_at[at][fresh] + self.limits.telemetry_fresh_s,
        )
        self._stays_until = min((float(end.min()) for end in ends if len(end)), default=math.inf)
        self._stale = False

    # VMs

    def take(self, host: str, demand: Demand) -> None:
        """A host promises this."""
        self._promise(self.columns.row_of[host], demand, 1)

    def give_back(self, host: str, demand: Demand) -> None:
        self._promise(self.columns.row_of[host], demand, -1)

    def promised(self, host: str) -> Demand:
        """What a host has promised, in all, of CPUs, memory and disk."""
        columns, row = self.columns, self.columns.row_of[host]
        return Demand(
            cpus=int(columns.used_cpus[row]),
            memory_mib=int(columns.used_memory[row]),
            disk_gib=int(columns.used_disk[row]),
        )

    def _promise(self, row: int, demand: Demand, sign: int) -> None:
        columns = self.columns
        columns.used_cpus[row] += sign * demand.cpus
        columns.used_memory[row] += sign * demand.memory_mib
        columns.used_disk[row] += sign * demand.disk_gib
        columns.vms[row] += sign
        for key, count in demand.counted:
            columns.writable("amounts", "used", key)[row] += sign * count
        if demand.node is not None:
            node = demand.node
            columns.writable("amounts", "node_used_cpus", node)[row] += sign * demand.cpus
            columns.writable("amounts", "node_used_memory", node)[row] += sign * demand.memory_mib
            for (kind, size_kib), count in demand.counted:
                if kind == "huge":
                    used = columns.writable("amounts", "node_used_huge", (node, size_kib))
                    used[row] += sign * count
        self._note(row)

    def join(self, key: Any, host: str, member: Member) -> None:
        """A VM is on a host: rules about other VMs see it."""
        self.groups.add(key, Member(self.columns.row_of[host], member.labels, member.keeps_away))

    def leave(self, key: Any) -> None:
        self.groups.remove(key)

    # changes

    def settle(self) -> None:
        """Put rows in order. To be called before rows are spoken of."""
        moved = self.columns.sort()
        if moved is not None:
            self.groups.move(moved)
            self._begin_anew()

    def _note(self, row: int) -> None:
        self.notes.append(row)
        if len(self.notes) > NOTES_LIMIT:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self.epoch += 1
        self.notes.clear()
        self.labels.forget_cached()
        self._stale = True


def load_of(sample: HostSample) -> float | None:
    """How loaded a host is, 0 to 1: by the scarcest of its CPUs, its memory and its disks' time."""
    parts = [part for part in (sample.cpu_busy, sample.io_wait) if part is not None]
    if sample.memory_total_mib and sample.memory_available_mib is not None:
        parts.append(1.0 - sample.memory_available_mib / sample.memory_total_mib)
    return min(max(*parts, 0.0), 1.0) if parts else None


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
