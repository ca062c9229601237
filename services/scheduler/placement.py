"""Where a new VM goes: filters that exclude hosts with a reason, scores that rank the rest.

Pure. `FILTERS` and `SCORES` are the whole policy, as tables of named functions of an `Ask` and a
`HostRow`; nothing else in here knows a resource by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from schemas.problems import Problem
from schemas.resources import Excluded, Placement, PlacementRule, Scored, VmSpec
from services.scheduler.fleet import demand_of
from services.scheduler.model import Ask, Demand, HostRow, Limits

POLICY = "spread"

Filter = Callable[[Ask, HostRow], str | None]
Score = Callable[[Ask, HostRow], float | None]

BYTES_PER_GIB = 1 << 30


class NoHost(Struct, frozen=True, kw_only=True):
    """No host fits; `excluded` says why, those that came nearest to fitting first."""

    problem: Problem
    excluded: tuple[Excluded, ...]


def place(ask: Ask, hosts: Iterable[HostRow]) -> Placement | NoHost:
    """The host for a new VM with the reasons, or why there is none."""
    rows = list(hosts)
    excluded: list[Excluded] = []
    scored: list[Scored] = []
    for host in rows:
        reason = exclude(ask, host)
        if reason is not None:
            excluded.append(reason)
        else:
            scored.append(score(ask, host))
    excluded.sort(key=lambda reason: (-_RANK[reason.rule], reason.host))
    if not scored:
        return NoHost(problem=unplaceable(ask, excluded), excluded=tuple(excluded))
    scored.sort(key=lambda host: (-host.score, host.host))
    return Placement(
        host=scored[0].host,
        policy=POLICY,
        considered=len(rows),
        ranking=tuple(scored[: ask.limits.ranking]),
        excluded=tuple(excluded[: ask.limits.reasons]),
    )


def exclude(ask: Ask, host: HostRow) -> Excluded | None:
    """The first rule that excludes a host, or None if it fits."""
    for rule, test in FILTERS.items():
        detail = test(ask, host)
        if detail is not None:
            return Excluded(host=host.name, rule=rule, detail=detail)
    return None


def score(ask: Ask, host: HostRow) -> Scored:
    """The weighted mean of the terms that are known of a host, each from 0 to 1."""
    known = {name: term(ask, host) for name, (term, _) in SCORES.items()}
    terms = {name: round(value, 4) for name, value in known.items() if value is not None}
    weight = sum(SCORES[name][1] for name in terms)
    total = sum(value * SCORES[name][1] for name, value in terms.items())
    return Scored(host=host.name, score=round(total / weight, 4), terms=terms)


def capacity(host: HostRow, limits: Limits) -> Demand:
    """What may be promised of a host: what it has, by the overcommit ratios, less the reserve and
    what domains take that are not Vireo's."""
    if host.facts is None:
        return Demand()
    return Demand(
        cpus=int(host.facts.cpus * limits.cpu_overcommit) - host.foreign.cpus,
        memory_mib=int(host.facts.memory_mib * limits.memory_overcommit)
        - limits.reserve_memory_mib
        - host.foreign.memory_mib,
        disk_gib=int(host.facts.disk_gib * limits.disk_overcommit) - limits.reserve_disk_gib,
    )


def unplaceable(ask: Ask, excluded: Sequence[Excluded]) -> Problem:
    """The refusal of what fits nowhere, with the reason per host."""
    shown = excluded[: ask.limits.reasons]
    return Problem(
        type="urn:vireo:problem:unplaceable",
        title="No host fits",
        status=409,
        detail=_in_short(ask.spec, excluded),
        reasons={reason.host: f"{reason.rule}: {reason.detail}" for reason in shown},
    )


def _in_short(spec: VmSpec, excluded: Sequence[Excluded]) -> str:
    cpus = "1 CPU" if spec.cpus == 1 else f"{spec.cpus} CPUs"
    wish = f"{cpus} and {spec.memory_mib} MiB of memory"
    if not excluded:
        return f"No host has registered that could offer {wish}."
    counts = Counter(reason.rule for reason in excluded)
    by_rule = ", ".join(f"{counts[rule]} by {rule}" for rule in FILTERS if counts[rule])
    return f"No host of {len(excluded)} can take {wish}: {by_rule}."


# filters: in words why not, or None


def _lease(ask: Ask, host: HostRow) -> str | None:
    return lease_problem(host, limits=ask.limits, now=ask.now)


def lease_problem(host: HostRow, *, limits: Limits, now: float) -> str | None:
    """In words, why a host does not count as alive now; None if it does."""
    if host.renewed_at is None:
        return "its lease was not heard since the scheduler began to listen"
    age_s = now - host.renewed_at
    if age_s <= limits.lease_s:
        return None
    return f"it renewed its lease {age_s:.0f} s ago, a lease lasts {limits.lease_s:.0f} s"


def _maintenance(ask: Ask, host: HostRow) -> str | None:
    return "it is in maintenance" if host.config.maintenance else None


def _pinned(ask: Ask, host: HostRow) -> str | None:
    wanted = ask.spec.on.host
    return None if wanted in (None, host.name) else f"the VM asks for host {wanted}"


def _labels(ask: Ask, host: HostRow) -> str | None:
    wanted = sorted(ask.spec.on.labels.items())
    wrong = [(key, value) for key, value in wanted if host.labels.get(key) != value]
    if not wrong:
        return None
    return "; ".join(_label_in_words(host, key=key, wanted=value) for key, value in wrong)


def _label_in_words(host: HostRow, *, key: str, wanted: str) -> str:
    if key not in host.labels:
        return f"it has no label {key}, asked for is {key}={wanted}"
    return f"its label {key} is {host.labels[key]}, asked for is {wanted}"


def _image(ask: Ask, host: HostRow) -> str | None:
    """libvirt's test driver boots nothing and needs no image."""
    if host.facts is not None and host.facts.domain_type == "test":
        return None
    wanted = {disk.image for disk in ask.spec.disks if disk.image is not None}
    missing = sorted(wanted - host.images.keys())
    return f"it has no image {', '.join(missing)}" if missing else None


def _network(ask: Ask, host: HostRow) -> str | None:
    there = host.facts.networks if host.facts else ()
    missing = sorted({nic.network for nic in ask.spec.nics} - set(there))
    return f"it has no network {', '.join(missing)}" if missing else None


def _cpu(ask: Ask, host: HostRow) -> str | None:
    """Overcommit shares CPUs among VMs; one VM alone never gets more than there are."""
    there = host.facts.cpus if host.facts else 0
    if ask.spec.cpus > there:
        return f"needs {ask.spec.cpus} CPUs, the host has {there}"
    most = capacity(host, ask.limits).cpus
    return _short_of(ask.spec.cpus, left=most - host.reserved.cpus, most=most, unit="CPUs")


def _memory(ask: Ask, host: HostRow) -> str | None:
    most = capacity(host, ask.limits).memory_mib
    left = most - host.reserved.memory_mib
    return _short_of(ask.spec.memory_mib, left=left, most=most, unit="MiB")


def _disk(ask: Ask, host: HostRow) -> str | None:
    """By promise, and by what the file system has left where that was measured."""
    needs = demand_of(ask.spec, host.images).disk_gib
    most = capacity(host, ask.limits).disk_gib
    short = _short_of(needs, left=most - host.reserved.disk_gib, most=most, unit="GiB")
    if short is not None or not _fresh(ask, host) or host.sample is None:
        return short
    free = host.sample.disk_free_bytes
    if free is None or free >= BYTES_PER_GIB * ask.limits.reserve_disk_gib:
        return None
    return f"{free / BYTES_PER_GIB:.1f} GiB are free, {ask.limits.reserve_disk_gib} GiB are kept"


def _short_of(needs: int, *, left: int, most: int, unit: str) -> str | None:
    if needs <= max(left, 0):
        return None
    return f"needs {needs} {unit}, {max(left, 0)} of {max(most, 0)} {unit} are left"


FILTERS: dict[PlacementRule, Filter] = {
    "lease": _lease,
    "maintenance": _maintenance,
    "pinned": _pinned,
    "labels": _labels,
    "image": _image,
    "network": _network,
    "cpu": _cpu,
    "memory": _memory,
    "disk": _disk,
}
"""In this order: the first that excludes a host is its reason."""

_RANK = {rule: place for place, rule in enumerate(FILTERS)}


# scores: 0 to 1, more is better, None where it is not known


def _free_memory(ask: Ask, host: HostRow) -> float | None:
    most = capacity(host, ask.limits).memory_mib
    return _share(most - host.reserved.memory_mib - ask.spec.memory_mib, of=most)


def _free_cpu(ask: Ask, host: HostRow) -> float | None:
    most = capacity(host, ask.limits).cpus
    return _share(most - host.reserved.cpus - ask.spec.cpus, of=most)


def _available_memory(ask: Ask, host: HostRow) -> float | None:
    if not _fresh(ask, host) or host.sample is None:
        return None
    total, available = host.sample.memory_total_mib, host.sample.memory_available_mib
    return None if not total or available is None else _share(available, of=total)


def _idle_cpu(ask: Ask, host: HostRow) -> float | None:
    if not _fresh(ask, host) or host.sample is None or host.sample.cpu_busy is None:
        return None
    return _share(1.0 - host.sample.cpu_busy, of=1.0)


def _share(part: float, *, of: float) -> float:
    return min(max(part / of, 0.0), 1.0) if of > 0 else 0.0


def _fresh(ask: Ask, host: HostRow) -> bool:
    return host.sample is not None and ask.now - host.sampled_at <= ask.limits.telemetry_fresh_s


SCORES: dict[str, tuple[Score, float]] = {
    "free_memory": (_free_memory, 2.0),
    "free_cpu": (_free_cpu, 1.0),
    "available_memory": (_available_memory, 1.0),
    "idle_cpu": (_idle_cpu, 1.0),
}
"""Term → its function and weight. The first two are shares left after this VM, by promise; the last
two are as measured, left out of the mean when telemetry is old."""
