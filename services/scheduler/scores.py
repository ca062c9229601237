"""The scores that rank hosts: each term from 0 to 1, more is better, as an operation on columns.

NaN is for what is not known of a host: the term is left out of its mean. `HOST_TERMS` follow from the
host's row and the request; `FLEET_TERMS` depend on the rest of the fleet or on chance, so nothing of
them can be kept. The formulas and where they come from are in `docs/scheduling.md`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from schemas.policies import PolicyParameters, Term
from services.scheduler.columns import Bools, Floats, Rows
from services.scheduler.requests import Request
from services.scheduler.rules import storage_gib, tolerated
from services.scheduler.table import Table

HostTerm = Callable[[Table, Request, PolicyParameters, Rows], Floats]
FleetTerm = Callable[[Table, Request, int], Floats]
"""The last argument is chance: 64 random bits."""


def _share(part: Floats, *, of: Floats) -> Floats:
    """`part` ÷ `of`, within 0 and 1; 0 where there is nothing to have a part of."""
    share: Floats = np.divide(part, of, out=np.zeros_like(part), where=of > 0)
    return np.minimum(np.maximum(share, 0.0), 1.0)


def _free_memory(table: Table, request: Request, _: PolicyParameters, at: Rows) -> Floats:
    columns = table.columns
    most = columns.most_memory[at]
    return _share(most - columns.used_memory[at] - request.memory_mib, of=most)


def _free_cpu(table: Table, request: Request, _: PolicyParameters, at: Rows) -> Floats:
    columns = table.columns
    most = columns.most_cpus[at]
    return _share(most - columns.used_cpus[at] - request.cpus, of=most)


def _free_disk(table: Table, request: Request, _: PolicyParameters, at: Rows) -> Floats:
    columns = table.columns
    most = columns.most_disk[at]
    left: Floats = most - columns.used_disk[at]
    for part in request.storage:
        if part.pool is None:
            left = left - storage_gib(table, part, at)
    return _share(left, of=most)


def _packed(table: Table, request: Request, parameters: PolicyParameters, at: Rows) -> Floats:
    """How full the host will be, by the mean of CPU and memory."""
    cpu = _free_cpu(table, request, parameters, at)
    memory = _free_memory(table, request, parameters, at)
    packed: Floats = 1.0 - (cpu + memory) / 2.0
    return packed


def _balanced(table: Table, request: Request, parameters: PolicyParameters, at: Rows) -> Floats:
    """How close the shares of CPU and memory that are left will be."""
    cpu = _free_cpu(table, request, parameters, at)
    memory = _free_memory(table, request, parameters, at)
    balanced: Floats = 1.0 - np.abs(cpu - memory)
    return balanced


def _idle(table: Table, request: Request, _: PolicyParameters, at: Rows) -> Floats:
    columns = table.columns
    return np.where(columns.fresh[at], 1.0 - columns.load[at], np.nan)


def _energy(table: Table, request: Request, parameters: PolicyParameters, at: Rows) -> Floats:
    """The watts that this VM adds: its CPUs' part of the way from idle to full, and what the host
    draws anyway if it has been empty. NaN without a power model."""
    columns = table.columns
    idle, full = columns.idle_watts[at], columns.full_watts[at]
    measured = columns.watts[at]
    at_rest = np.where(columns.fresh[at] & ~np.isnan(measured), measured, idle)
    cpus = np.maximum(columns.cpus[at], 1.0)
    added = (full - idle) * request.cpus / cpus + np.where(columns.vms[at] > 0, 0.0, at_rest)
    score: Floats = 1.0 - np.minimum(np.maximum(added / parameters.watts_scale, 0.0), 1.0)
    return score


def _image_cached(table: Table, request: Request, _: PolicyParameters, at: Rows) -> Floats:
    """The share of the images that lie on the host; 1 where none is asked for."""
    if not request.images:
        return np.ones(len(table.columns))[at]
    there: Floats = np.zeros(len(table.columns))[at]
    for name in request.images:
        there = there + (table.columns.codes("image", name)[at] >= 0)
    share: Floats = there / len(request.images)
    return share


HOST_TERMS: dict[Term, HostTerm] = {
    "free_memory": _free_memory,
    "free_cpu": _free_cpu,
    "free_disk": _free_disk,
    "packed": _packed,
    "balanced": _balanced,
    "idle": _idle,
    "energy": _energy,
    "image_cached": _image_cached,
}
GAPPY: frozenset[Term] = frozenset({"idle", "energy"})
"""Those that are not known of every host."""


# terms that need more than the host's row


def _headroom(table: Table, request: Request, _: int) -> Floats:
    """How easily the others could take all that the host will hold, by the scarcer of CPU and memory:
    one less what it will have promised ÷ what is free on the others."""
    columns, at = table.columns, table.columns.all
    counts = columns.alive[at] & ~columns.maintenance[at]
    cpu = _absorbed(columns.most_cpus[at], columns.used_cpus[at], request.cpus, counts)
    memory = _absorbed(columns.most_memory[at], columns.used_memory[at], request.memory_mib, counts)
    return np.minimum(cpu, memory)


def _absorbed(most: Floats, used: Floats, needs: int, counts: Bools) -> Floats:
    free = np.where(counts, np.maximum(most - used, 0.0), 0.0)
    others = free.sum() - free
    after = used + needs
    burden = np.divide(after, others, out=np.full_like(after, np.inf), where=others > 0)
    absorbed: Floats = np.maximum(1.0 - burden, 0.0)
    return absorbed


def _host_weight(table: Table, request: Request, chance: int) -> Floats:
    """Each host draws u from (0, 1) and scores u^(1/weight): the highest is each one as often as its
    weight says (Efraimidis and Spirakis, 2006)."""
    columns, at = table.columns, table.columns.all
    drawn: Floats = uniform(columns.lot[at] ^ np.uint64(chance)) ** (1.0 / columns.weight[at])
    return drawn


def uniform(bits: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> Floats:
    """Numbers in (0, 1) from 64 bits each, by the finaliser of SplitMix64 (Steele, Lea, Flood, 2014)."""
    mixed = bits + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    drawn: Floats = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return drawn


FLEET_TERMS: dict[Term, FleetTerm] = {"headroom": _headroom, "host_weight": _host_weight}


# what a VM would rather have


def preferred_hosts(table: Table, request: Request, at: Rows) -> Floats:
    """The share, by weight, of its preferences that a host fulfils."""
    found = np.zeros(len(table.columns))[at]
    for chosen, said in request.prefer:
        found = found + said.weight * table.labels.column(chosen)[at].astype(float)
    share: Floats = found / sum(said.weight for _, said in request.prefer)
    return share


def avoided_taints(table: Table, request: Request, at: Rows) -> Floats:
    """1 on a host without a taint to be avoided, halved by each that is not tolerated."""
    score = np.ones(len(table.columns))[at]
    for taint in table.taints():
        if taint.effect == "avoid" and not tolerated(taint, request.spec.on.tolerations):
            score = np.where(table.columns.flags("taint", taint)[at], score / 2.0, score)
    return score
