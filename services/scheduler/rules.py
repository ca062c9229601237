"""The rules that exclude hosts, in the order in which they are asked, each as an operation on columns.

A rule of the host alone (`HOST_RULES`) says for given rows which of them it lets through, or None when
the request does not touch it. A rule about other VMs (`FLEET_RULES`) looks at the whole fleet and says
which rows it excludes. Words for people are in `reasons.py`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from schemas.resources import PlacementRule
from schemas.rules import Spread, Taint, Toleration
from services.scheduler.columns import Bools, Floats, Rows
from services.scheduler.groups import RowNumbers
from services.scheduler.requests import Request, Storage
from services.scheduler.selectors import Selector, matches
from services.scheduler.table import Table

HostRule = Callable[[Table, Request, Rows], Bools | None]
Excluded = NDArray[Any]
"""Booleans for every host, or the rows of some."""
FleetRule = Callable[[Table, Request, NDArray[np.int8]], list[Excluded]]

ORDER: tuple[PlacementRule, ...] = get_args(PlacementRule)
CODE: dict[PlacementRule, int] = {rule: code for code, rule in enumerate(ORDER, start=1)}
"""What stands in a column of verdicts for the rule that excluded a host; 0 is for a host that fits."""
FITS = 0
UNSEEN = 127
"""Not looked at: the scan of a very large fleet ended before."""


def _lease(table: Table, request: Request, at: Rows) -> Bools | None:
    return table.columns.alive[at]


def _maintenance(table: Table, request: Request, at: Rows) -> Bools | None:
    return ~table.columns.maintenance[at]


def _pinned(table: Table, request: Request, at: Rows) -> Bools | None:
    on = request.spec.on
    if on.host is None and not on.not_on:
        return None
    row_of, count = table.columns.row_of, len(table.columns)
    fits = np.full(count, on.host is None, np.bool_)
    if on.host in row_of:
        fits[row_of[on.host]] = True
    fits[[row_of[name] for name in on.not_on if name in row_of]] = False
    return fits[at]


def _labels(table: Table, request: Request, at: Rows) -> Bools | None:
    if not request.where.pairs and not request.where.expressions:
        return None
    return table.labels.column(request.where)[at]


def _taints(table: Table, request: Request, at: Rows) -> Bools | None:
    unbearable = [
        taint
        for taint in table.taints()
        if taint.effect == "refuse" and not tolerated(taint, request.spec.on.tolerations)
    ]
    return _none_of([table.columns.flags("taint", taint)[at] for taint in unbearable])


def tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    return any(
        one.key in (None, taint.key) and one.value in (None, taint.value) for one in tolerations
    )


def _image(table: Table, request: Request, at: Rows) -> Bools | None:
    return _all_of([table.columns.codes("image", name)[at] >= 0 for name in request.images])


def _network(table: Table, request: Request, at: Rows) -> Bools | None:
    return _all_of([table.columns.flags("network", name)[at] for name in request.networks])


def _cpu(table: Table, request: Request, at: Rows) -> Bools | None:
    """Overcommit shares CPUs among VMs; one VM alone never gets more than there are."""
    columns, needs = table.columns, request.cpus
    fits: Bools = columns.most_cpus[at] - columns.used_cpus[at] >= needs
    fits &= columns.cpus[at] >= needs
    return fits


def _memory(table: Table, request: Request, at: Rows) -> Bools | None:
    columns, needs = table.columns, request.memory_mib
    if needs == 0:
        return None
    fits: Bools = columns.most_memory[at] - columns.used_memory[at] >= needs
    return fits


def _huge_pages(table: Table, request: Request, at: Rows) -> Bools | None:
    if request.huge is None:
        return None
    size_kib, pages = request.huge
    return _left(table, ("huge", size_kib), at) >= pages


def _numa(table: Table, request: Request, at: Rows) -> Bools | None:
    if not request.one_node or table.nodes == 0:
        return None
    fits = ~table.columns.has_numa[at]
    for node in range(table.nodes):
        fits |= node_fits(table, request, node, at)
    return fits


def node_fits(table: Table, request: Request, node: int, at: Rows) -> Bools:
    """Where the guest fits the NUMA node of this place; exact, as are all columns."""
    columns = table.columns
    left_cpus = columns.amounts("node_most_cpus", node) - columns.amounts("node_used_cpus", node)
    fits: Bools = columns.codes("node", node)[at] >= 0
    fits &= columns.amounts("node_cpus", node)[at] >= request.cpus
    fits &= left_cpus[at] >= request.cpus
    if request.huge is None:
        most = columns.amounts("node_most_memory", node)[at]
        fits &= most - columns.amounts("node_used_memory", node)[at] >= request.memory_mib
    else:
        size_kib, pages = request.huge
        most = columns.amounts("node_most_huge", (node, size_kib))[at]
        fits &= most - columns.amounts("node_used_huge", (node, size_kib))[at] >= pages
    return fits


def _disk(table: Table, request: Request, at: Rows) -> Bools | None:
    """By promise, and by what the file system has left where that was measured."""
    columns = table.columns
    kept = columns.kept_disk[at]
    full = columns.fresh[at] & (columns.free_disk[at] < kept)
    fits: Bools = ~full
    for part in request.storage:
        if part.pool is None:
            left = columns.most_disk[at] - columns.used_disk[at]
            fits &= storage_gib(table, part, at) <= np.maximum(left, 0.0)
    return fits


def storage_gib(table: Table, part: Storage, at: Rows) -> Floats:
    """What the disks of one pool take on each host."""
    size: Floats = np.full(len(table.columns), float(part.blank_gib))[at]
    for name, asked_gib in part.images:
        size = size + np.maximum(table.columns.codes("image", name)[at], asked_gib)
    return size


def _pool(table: Table, request: Request, at: Rows) -> Bools | None:
    """A pool that the host does not have has no room, not even for nothing."""
    there = []
    for part in request.storage:
        if part.pool is not None:
            key = ("pool", part.pool)
            there.append(table.columns.amounts("most", key)[at] > 0)
            left = np.maximum(_left(table, key, at), 0.0)
            there.append(storage_gib(table, part, at) <= left)
    return _all_of(there)


def _devices(table: Table, request: Request, at: Rows) -> Bools | None:
    return _all_of([_left(table, ("device", name), at) >= count for name, count in request.devices])


def _left(table: Table, key: tuple[str, Any], at: Rows) -> Floats:
    left: Floats = table.columns.amounts("most", key)[at] - table.columns.amounts("used", key)[at]
    return left


def _all_of(columns: list[Any]) -> Bools | None:
    fits: Bools | None = None
    for column in columns:
        fits = column if fits is None else fits & column
    return fits


def _none_of(columns: list[Bools]) -> Bools | None:
    return _all_of([~column for column in columns])


HOST_RULES: dict[PlacementRule, HostRule] = {
    "lease": _lease,
    "maintenance": _maintenance,
    "pinned": _pinned,
    "labels": _labels,
    "taints": _taints,
    "image": _image,
    "network": _network,
    "cpu": _cpu,
    "memory": _memory,
    "huge_pages": _huge_pages,
    "numa": _numa,
    "disk": _disk,
    "pool": _pool,
    "devices": _devices,
}


# rules about other VMs


def _affinity(table: Table, request: Request, verdicts: NDArray[np.int8]) -> list[Excluded]:
    """The first of a group may go anywhere: it satisfies its own affinity."""
    return [
        ~near(table, request, chosen, said.topology)
        for chosen, said in request.near
        if said.required
    ]


def near(table: Table, request: Request, chosen: Selector, topology: str | None) -> Bools:
    """The hosts near a VM of the selector, or that may be the first of it."""
    first = not len(table.groups.counts(chosen).rows) and matches(chosen, request.spec.labels)
    if not first:
        return holds_near(table, chosen, topology)
    if topology is None:
        return np.full(len(table.columns), True)
    has_domain: Bools = table.labels.domains(topology)[0] >= 0
    return has_domain


def holds_near(table: Table, chosen: Selector, topology: str | None) -> Bools:
    """The hosts that hold a VM of the selector, themselves or in their domain."""
    if topology is None:
        return on_host(table, chosen) > 0
    return in_domain(table, chosen, topology) > 0


def _anti_affinity(table: Table, request: Request, verdicts: NDArray[np.int8]) -> list[Excluded]:
    """Both ways: whom this VM shuns, and the VMs that are placed and shun it."""
    found, rows = list[Excluded](), list[RowNumbers]()
    apart = table.groups.apart(request.spec.labels, request.shuns)
    for term, counts in (*apart.shunned, *apart.shunning):
        if term.topology is None:
            rows.append(counts.rows)
        else:
            found.append(_summed(table, counts, term.topology) > 0)
    if rows:
        found.append(rows[0] if len(rows) == 1 else np.concatenate(rows))
    return found


def _spread(table: Table, request: Request, verdicts: NDArray[np.int8]) -> list[Excluded]:
    return [
        ~(skew_above(table, request, chosen, said, verdicts) <= said.max_skew)
        for chosen, said in request.spread
        if said.required
    ]


def skew_above(
    table: Table, request: Request, chosen: Selector, said: Spread, verdicts: NDArray[np.int8]
) -> Floats:
    """How far above the emptiest domain a host's domain would be with this VM; NaN without a domain.

    Only domains count that have a host where the VM could ever be: one that no rule up to `taints`
    excludes.
    """
    possible = (verdicts == FITS) | (verdicts > CODE["taints"])
    if said.topology is None:
        counts, here = on_host(table, chosen), np.full(len(table.columns), True)
    else:
        counts = in_domain(table, chosen, said.topology)
        here = table.labels.domains(said.topology)[0] >= 0
    there = counts[possible & here]
    least = float(there.min()) if len(there) else 0.0
    own = 1.0 if matches(chosen, request.spec.labels) else 0.0
    skew: Floats = np.where(here, counts + (own - least), np.nan)
    return skew


def on_host(table: Table, chosen: Selector) -> Floats:
    """How many VMs of a selector each host holds."""
    counts = table.groups.counts(chosen)
    dense = np.zeros(len(table.columns))
    dense[counts.rows] = counts.counts
    return dense


def in_domain(table: Table, chosen: Selector, topology: str) -> Floats:
    """How many VMs of a selector each host's domain holds; none where it has no domain."""
    return _summed(table, table.groups.counts(chosen), topology)


def _summed(table: Table, counts: Any, topology: str) -> Floats:
    domain, domains = table.labels.domains(topology)
    # One place more: what stands for no domain (-1) is the last, and is emptied.
    sums = np.zeros(domains + 1)
    np.add.at(sums, domain[counts.rows], counts.counts)
    sums[-1] = 0.0
    found: Floats = sums[domain]
    return found


FLEET_RULES: dict[PlacementRule, FleetRule] = {
    "affinity": _affinity,
    "anti_affinity": _anti_affinity,
    "spread": _spread,
}
