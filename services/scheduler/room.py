"""How many copies of a request fit: exactly as many as could be placed one after the other. Pure.

As long as no rule looks at other copies, hosts do not concern each other, and what fits on each follows
from its columns. Otherwise copies are really placed, by the policy, until none fits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from services.scheduler.choice import Chooser
from services.scheduler.columns import Floats, Rows
from services.scheduler.compiled import CompiledPolicy, judge_fleet, judge_hosts
from services.scheduler.groups import Member
from services.scheduler.placement import best_node
from services.scheduler.requests import Demand, Request, demand_of
from services.scheduler.rules import CODE, FITS, storage_gib
from services.scheduler.table import Table

ImagesOf = Mapping[str, Mapping[str, int]]
"""Host → its images' sizes in GiB."""


class Fill(Struct, frozen=True):
    """Copies per host that has any. Not complete: the bound was reached before the end."""

    counts: dict[str, int]
    complete: bool


def fill(
    table: Table,
    request: Request,
    policy: CompiledPolicy,
    images: ImagesOf,
    *,
    now: float,
    most: int,
) -> Fill:
    """Fill the table with copies of a request. `most` bounds those that are placed one by one."""
    table.settle()
    table.pass_time(now)
    if concerns_copies(request, policy):
        return _one_by_one(table, request, policy, images, now=now, most=most)
    return _by_host(table, request, policy, images)


def concerns_copies(request: Request, policy: CompiledPolicy) -> bool:
    """Whether a copy that is placed may exclude hosts for the next in other ways than by its size."""
    asked = {code for code, _ in policy.fleet_rules}
    wishes = (
        ("affinity", request.near),
        ("anti_affinity", request.away),
        ("spread", request.spread),
    )
    return any(CODE[rule] in asked and _any_required(said) for rule, said in wishes)  # type: ignore[index]


def _any_required(wishes: tuple[tuple[object, object], ...]) -> bool:
    return any(getattr(said, "required", False) for _, said in wishes)


# one by one


def _one_by_one(
    table: Table,
    request: Request,
    policy: CompiledPolicy,
    images: ImagesOf,
    *,
    now: float,
    most: int,
) -> Fill:
    chooser, counts = Chooser(table), dict[str, int]()
    for number in range(most):
        best = chooser.choose(request, policy, chance=number, now=now).best
        if best is None:
            return Fill(counts, complete=True)
        host = table.columns.names[best]
        _put(table, request, host, _place_of(table, request, best), images)
        table.join(("copy", number), host, Member(0, request.spec.labels, request.shuns))
        counts[host] = counts.get(host, 0) + 1
    left = chooser.choose(request, policy, chance=most, now=now).best
    return Fill(counts, complete=left is None)


def _place_of(table: Table, request: Request, row: int) -> int | None:
    """The NUMA node for the next copy, by its place in the host's facts."""
    node = best_node(table, request, row)
    if node is None:
        return None
    places = range(table.nodes)
    return next(place for place in places if table.columns.codes("node", place)[row] == node)


def _put(
    table: Table, request: Request, host: str, node: int | None, images: ImagesOf, count: int = 1
) -> None:
    one = demand_of(request, images[host], node=node)
    table.take(host, one if count == 1 else _times(one, count))


def _times(one: Demand, count: int) -> Demand:
    return replace(
        one,
        cpus=one.cpus * count,
        memory_mib=one.memory_mib * count,
        disk_gib=one.disk_gib * count,
        counted=tuple((key, amount * count) for key, amount in one.counted),
    )


# by host


def _by_host(table: Table, request: Request, policy: CompiledPolicy, images: ImagesOf) -> Fill:
    at = table.columns.all
    judged = judge_fleet(table, request, policy, judge_hosts(table, request, policy, at))
    rows = np.flatnonzero(judged == FITS)
    by_host = _by_sums(table, request, rows)
    nodes = _by_nodes(table, request, rows) if _one_node(table, request, policy) else []
    if nodes:
        free = ~table.columns.has_numa[rows]
        by_host = np.where(free, by_host, np.minimum(by_host, np.sum(nodes, axis=0)))
    counts = dict[str, int]()
    for place, row in enumerate(rows.tolist()):
        host, count = table.columns.names[row], int(by_host[place])
        counts[host] = count
        for node, fitting in enumerate(nodes):
            here = min(count, int(fitting[place]))
            if here:
                _put(table, request, host, node, images, here)
            count -= here
        if count:
            _put(table, request, host, None, images, count)
    return Fill(counts, complete=True)


def _one_node(table: Table, request: Request, policy: CompiledPolicy) -> bool:
    asked = {code for code, _ in policy.host_rules}
    return request.one_node and table.nodes > 0 and CODE["numa"] in asked


def _by_sums(table: Table, request: Request, at: Rows) -> Floats:
    """By all that a host has in one sum. A VM has a CPU at least, so none fits for ever."""
    columns = table.columns
    counts = _times_in(columns.most_cpus[at] - columns.used_cpus[at], request.cpus)
    if request.memory_mib:
        left = columns.most_memory[at] - columns.used_memory[at]
        counts = np.minimum(counts, _times_in(left, request.memory_mib))
    for part in request.storage:
        if part.pool is None:
            left = columns.most_disk[at] - columns.used_disk[at]
        else:
            left = _left(table, ("pool", part.pool), at)
        counts = np.minimum(counts, _times_in(left, storage_gib(table, part, at)))
    classes = [(("device", name), count) for name, count in request.devices]
    if request.huge is not None:
        classes.append((("huge", request.huge[0]), request.huge[1]))  # type: ignore[arg-type]
    for key, count in classes:
        counts = np.minimum(counts, _times_in(_left(table, key, at), count))
    return counts


def _by_nodes(table: Table, request: Request, at: Rows) -> list[Floats]:
    """By each NUMA node, of the rules' own columns."""
    return [_by_node(table, request, node, at) for node in range(table.nodes)]


def _by_node(table: Table, request: Request, node: int, at: Rows) -> Floats:
    columns = table.columns

    def left(of: str, key: object) -> Floats:
        most = columns.amounts(f"node_most_{of}", key)[at]
        rest: Floats = most - columns.amounts(f"node_used_{of}", key)[at]
        return rest

    counts = _times_in(left("cpus", node), request.cpus)
    if request.huge is None:
        counts = np.minimum(counts, _times_in(left("memory", node), request.memory_mib))
    else:
        size_kib, pages = request.huge
        counts = np.minimum(counts, _times_in(left("huge", (node, size_kib)), pages))
    there = columns.codes("node", node)[at] >= 0
    there &= columns.amounts("node_cpus", node)[at] >= request.cpus
    counts[~there] = 0.0
    return counts


def _left(table: Table, key: tuple[str, object], at: Rows) -> Floats:
    left: Floats = table.columns.amounts("most", key)[at] - table.columns.amounts("used", key)[at]
    return left


def _times_in(left: Floats, needs: Floats | int) -> Floats:
    """How often `needs` goes into what is left; without end where nothing is needed."""
    left, needs = np.maximum(left, 0.0), np.broadcast_to(np.asarray(needs, np.float64), left.shape)
    endless = np.full(left.shape, np.inf)
    times: Floats = np.floor(np.divide(left, needs, out=endless, where=needs > 0))
    return times
