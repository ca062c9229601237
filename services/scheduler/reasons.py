"""Why a host is out of the question, in words with numbers. One host at a time; pure.

The rule is known from the columns; here its numbers are read once more for those hosts that are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from schemas.resources import PlacementRule
from schemas.rules import LabelExpression
from services.scheduler.groups import RowCounts
from services.scheduler.requests import Request
from services.scheduler.rules import skew_above, storage_gib, tolerated
from services.scheduler.selectors import Selector, holds
from services.scheduler.table import Table

Teller = Callable[[int], str]
Words = Callable[[Table, Request, int, NDArray[np.int8]], str]

NEVER_HEARD = "its lease was not heard since the scheduler began to listen"
ON_IT = "on it"
CACHED_WORDS = 1024
"""Selectors whose words are kept: they are said again for every host that is shown."""
OPERATORS = {"greater": ">", "less": "<"}


def teller(
    rule: PlacementRule, table: Table, request: Request, verdicts: NDArray[np.int8]
) -> Teller:
    """What says why this rule excludes the host of a row."""
    if rule == "anti_affinity":
        return _apart(table, request)
    return lambda row: WORDS[rule](table, request, row, verdicts)


def lease_words(age_s: float, lease_s: float) -> str:
    return f"it renewed its lease {age_s:.0f} s ago, a lease lasts {lease_s:.0f} s"


def _lease(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    renewed_at = float(table.columns.renewed_at[row])
    if renewed_at == -np.inf:
        return NEVER_HEARD
    return lease_words(table.now - renewed_at, table.limits.lease_s)


def _maintenance(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    return "it is in maintenance"


def _pinned(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    on = request.spec.on
    if table.columns.names[row] in on.not_on:
        return "the VM asks not to be on it"
    return f"the VM asks for host {on.host}"


def _labels(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    labels = table.labels.of(row)
    wrong = [
        _label_words(labels.get(key), f"{key}={value}", key)
        for key, value in request.where.pairs
        if labels.get(key) != value
    ]
    wrong += [
        _label_words(labels.get(one.key), expression_words(one), one.key)
        for one in request.where.expressions
        if not holds(one, labels.get(one.key))
    ]
    return "; ".join(wrong)


def _label_words(found: str | None, asked: str, key: str) -> str:
    if found is None:
        return f"it has no label {key}, asked for is {asked}"
    return f"its label {key} is {found}, asked for is {asked.removeprefix(f'{key}=')}"


def expression_words(one: LabelExpression) -> str:
    """An expression as people write it."""
    match one.operator:
        case "in" | "not_in":
            verb = "in" if one.operator == "in" else "not in"
            return f"{one.key} {verb} ({', '.join(one.values)})"
        case "exists":
            return f"any {one.key}"
        case "not_exists":
            return f"no {one.key}"
    return f"{one.key} {OPERATORS[one.operator]} {one.values[0]}"


@lru_cache(maxsize=CACHED_WORDS)
def selector_words(chosen: Selector) -> str:
    parts = [f"{key}={value}" for key, value in chosen.pairs]
    parts += [expression_words(one) for one in chosen.expressions]
    return ", ".join(parts) or "any labels"


def _taints(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    taints = sorted(
        f"{taint.key}={taint.value}" if taint.value else taint.key
        for taint in table.taints()
        if taint.effect == "refuse"
        and table.columns.flags("taint", taint)[row]
        and not tolerated(taint, request.spec.on.tolerations)
    )
    return f"the VM does not tolerate its taint {', '.join(taints)}"


def _image(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    missing = (name for name in request.images if table.columns.codes("image", name)[row] < 0)
    return f"it has no image {', '.join(missing)}"


def _network(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    flags = table.columns.flags
    missing = (name for name in request.networks if not flags("network", name)[row])
    return f"it has no network {', '.join(missing)}"


def _cpu(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    columns, needs = table.columns, request.cpus
    if needs > columns.cpus[row]:
        return f"needs {needs} CPUs, the host has {columns.cpus[row]:.0f}"
    return _short(needs, float(columns.most_cpus[row]), float(columns.used_cpus[row]), "CPUs")


def _memory(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    columns = table.columns
    most, used = float(columns.most_memory[row]), float(columns.used_memory[row])
    return _short(request.memory_mib, most, used, "MiB")


def _huge_pages(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    size_kib, pages = request.huge or (0, 0)
    most, used = _counted(table, ("huge", size_kib), row)
    return _short(pages, most, used, f"huge pages of {size_kib} KiB")


def _numa(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    memory = f"{request.spec.memory_mib} MiB"
    if request.huge is not None:
        memory = f"{request.huge[1]} huge pages of {request.huge[0]} KiB"
    return f"none of its NUMA nodes has {request.cpus} CPUs and {memory} left"


def _disk(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    columns = table.columns
    needs = _needs(table, request, None, row)
    most, used = float(columns.most_disk[row]), float(columns.used_disk[row])
    if needs > max(most - used, 0):
        return _short(needs, most, used, "GiB")
    free, kept = columns.free_disk[row], columns.kept_disk[row]
    return f"{free:.1f} GiB are free, {kept:.0f} GiB are kept"


def _pool(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    said = []
    for pool in (part.pool for part in request.storage if part.pool is not None):
        most, used = _counted(table, ("pool", pool), row)
        needs = _needs(table, request, pool, row)
        if most <= 0:
            said.append(f"it has no pool {pool}")
        elif needs > max(most - used, 0):
            said.append(f"pool {pool}: {_short(needs, most, used, 'GiB')}")
    return "; ".join(said)


def _devices(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    said = []
    for name, count in request.devices:
        most, used = _counted(table, ("device", name), row)
        if most - used < count:
            said.append(_short(count, most, used, name))
    return "; ".join(said)


def _affinity(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    for chosen, said in request.near:
        counts = table.groups.counts(chosen)
        if said.required and not _is_near(table, counts, said.topology, row):
            return f"no VM with {selector_words(chosen)} is {_place(table, said.topology, row)}"
    return "it is not near the VMs that were asked for"


def _anti_affinity(table: Table, request: Request, row: int, _: NDArray[np.int8]) -> str:
    return _apart(table, request)(row)


def _apart(table: Table, request: Request) -> Teller:
    """Whom the VM shuns first, then who shuns it. What is asked of every row is looked up once, and put
    in words once where it is about the host itself."""
    apart = table.groups.apart(request.spec.labels, request.shuns)
    known = [
        (term, counts, words, words(term.chosen, ON_IT) if term.topology is None else "")
        for found, words in ((apart.shunned, _shunned_words), (apart.shunning, _shunning_words))
        for term, counts in found
    ]

    def tell(row: int) -> str:
        for term, counts, words, here in known:
            if here:
                if counts.has(row):
                    return here
            elif _is_near(table, counts, term.topology, row):
                return words(term.chosen, _place(table, term.topology, row))
        return "a VM that keeps it away is there"

    return tell


@lru_cache(maxsize=CACHED_WORDS)
def _shunned_words(chosen: Selector, place: str) -> str:
    return f"a VM with {selector_words(chosen)} is {place}"


@lru_cache(maxsize=CACHED_WORDS)
def _shunning_words(chosen: Selector, place: str) -> str:
    return f"a VM {place} keeps VMs with {selector_words(chosen)} away"


def _is_near(table: Table, counts: RowCounts, topology: str | None, row: int) -> bool:
    if topology is None:
        return counts.has(row)
    domain, _ = table.labels.domains(topology)
    return bool(domain[row] >= 0 and (domain[counts.rows] == domain[row]).any())


def _place(table: Table, topology: str | None, row: int) -> str:
    if topology is None:
        return ON_IT
    return f"in its {topology} {table.labels.of(row).get(topology, '')}".rstrip()


def _spread(table: Table, request: Request, row: int, verdicts: NDArray[np.int8]) -> str:
    for chosen, said in request.spread:
        if not said.required:
            continue
        skew = float(skew_above(table, request, chosen, said, verdicts)[row])
        if np.isnan(skew):
            return f"it has no label {said.topology} to spread over"
        if skew > said.max_skew:
            there = "it" if said.topology is None else _place(table, said.topology, row)[3:]
            return (
                f"{there} would hold {skew:.0f} more VMs with {selector_words(chosen)} than the "
                f"emptiest, {said.max_skew} is allowed"
            )
    return "the VMs would be spread unevenly"


def _counted(table: Table, key: tuple[str, object], row: int) -> tuple[float, float]:
    columns = table.columns
    return float(columns.amounts("most", key)[row]), float(columns.amounts("used", key)[row])


def _needs(table: Table, request: Request, pool: str | None, row: int) -> int:
    at = np.array([row])
    sizes: Iterable[float] = (
        float(np.max(storage_gib(table, part, at))) for part in request.storage if part.pool == pool
    )
    return int(sum(sizes))


def _short(needs: int, most: float, used: float, unit: str) -> str:
    left = max(most - used, 0)
    return f"needs {needs} {unit}, {left:.0f} of {max(most, 0):.0f} {unit} are left"


WORDS: dict[PlacementRule, Words] = {
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
    "affinity": _affinity,
    "anti_affinity": _anti_affinity,
    "spread": _spread,
}
