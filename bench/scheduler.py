"""The scheduler's pure core: decisions a second, packing, memory; against the naive version and Ganeti.

A decision is everything up to the `Placement` with its ranking and reasons; the reservation in the
table is part of what is timed. All rounds are interleaved, so that a drift of the machine's speed hits
everybody.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from msgspec import Struct

from bench.report import Row, Target, quantile, row
from bench.scheduler_fleet import (
    CPUS,
    DISK_GIB,
    LIMITS,
    MEMORY_MIB,
    crowded,
    decide,
    facts,
    fleet,
    mixed,
    oracle,
    reserve,
    tell,
    wishes,
)
from bench.scheduler_peers import (
    MISSING,
    hail_s,
    have_hail,
    have_hspace,
    hspace_count,
    write_cluster,
    write_request,
)
from schemas.resources import DiskSpec, VmSpec
from schemas.shipped import shipped
from services.scheduler.fleet import Fleet
from services.scheduler.plans import Frame, plan_drain

ROUNDS = 5
HOSTS, MANY_HOSTS, HUGE_HOSTS = 1_000, 10_000, 100_000
FILL, DECISIONS, NAIVE_DECISIONS = 1_000, 1_000, 15
PACK_HOSTS, SPACE_HOSTS = 50, 100
EVACUATED = 1_000
FRAME = Frame(
    id="01890a5d-ac96-774b-bcce-b302099a8057",
    site="bench",
    at=datetime(2026, 1, 1, tzinfo=UTC),
    now=1.0,
)
SIZE = {"cpus": 2, "memory_mib": 4096, "disk_gib": 20}
KIB = 1024


class Round(Struct):
    """One round: rates are decisions a second, times are seconds."""

    naive: float
    same: bool
    rate: float
    rate_plain: float
    rate_many: float
    p99: float
    numpy_pass: float
    warm: float
    cold: float = 0.0
    hail: float = 0.0


def run(directory: Path) -> Iterator[Row]:
    cluster, request = directory / "cluster.data", directory / "request.json"
    write_cluster(cluster, HOSTS)
    write_request(request, **SIZE)
    rounds = [one_round(number, cluster, request) for number in range(ROUNDS)]
    yield from speed(rounds)
    yield from against_hail(rounds)
    yield packing()
    yield space(directory / "space.data")
    yield from evacuation()
    yield copying()
    yield memory()


def one_round(number: int, cluster: Path, request: Path) -> Round:
    trace = list(wishes(FILL + DECISIONS, anti_affinity=0.5, seed=number))
    plain = list(wishes(FILL + DECISIONS, seed=number))
    naive, same = naive_rate(trace)
    many, times = filled(MANY_HOSTS, trace)
    made = Round(
        naive=naive,
        same=same,
        rate=_rate(filled(HOSTS, trace)[1]),
        rate_plain=_rate(filled(HOSTS, plain)[1]),
        rate_many=_rate(times),
        p99=quantile(times, 0.99),
        numpy_pass=numpy_pass(many, trace[-1]),
        warm=median(filled(HOSTS, plain)[1]),
    )
    if have_hail():
        made.hail = hail_s(cluster, request)
        made.cold = cold_s()
    return made


def filled(hosts: int, trace: Sequence[VmSpec]) -> tuple[Fleet, list[float]]:
    """A fleet with the whole trace on it, and the time of each decision after the first thousand.

    The search for cyclic garbage begins from nothing there: a full one looks at every fleet that is
    alive, takes as long as a third of the decisions, and fell due now in one row's time, now in
    another's. What the decisions themselves make due stays in their time.
    """
    made, times = fleet(hosts), []
    for number, wish in enumerate(trace):
        if number == FILL:
            gc.collect()
        began = time.perf_counter()
        placement = decide(made, wish, number)
        assert placement is not None
        reserve(made, wish, placement, number)
        times.append(time.perf_counter() - began)
    return made, times[FILL:]


def naive_rate(trace: Sequence[VmSpec]) -> tuple[float, bool]:
    """The naive version's rate on the same fleet, equally full, and whether both chose alike."""
    ours, naive, policy = fleet(HOSTS), oracle(HOSTS), shipped()["spread"]
    spent, same = 0.0, True
    for number, wish in enumerate(islice(trace, FILL + NAIVE_DECISIONS)):
        placement = decide(ours, wish, number)
        assert placement is not None
        if number >= FILL:
            began = time.perf_counter()
            expected = naive.decide(wish, policy, now=1.0, chance=number)
            spent += time.perf_counter() - began
            best = [name for name, _, _ in expected.scored[: LIMITS.ranking]]
            same = same and best == [one.host for one in placement.ranking]
        reserve(ours, wish, placement, number)
        tell(naive, wish, placement, number)
    return NAIVE_DECISIONS / spent, same


def numpy_pass(full: Fleet, wish: VmSpec) -> float:
    """Seconds of the same filters and scores over the same columns, written down in plain NumPy."""
    columns = full.table.columns
    at, times = columns.all, []
    for _ in range(200):
        began = time.perf_counter()
        cpu = columns.most_cpus[at] - columns.used_cpus[at] - wish.cpus
        memory = columns.most_memory[at] - columns.used_memory[at] - wish.memory_mib
        image = columns.codes("image", "tiny")[at]
        disk = columns.most_disk[at] - columns.used_disk[at] - np.maximum(image, 20)
        fits = columns.alive[at] & ~columns.maintenance[at] & (image >= 0)
        fits &= columns.flags("network", "default")[at] & (columns.cpus[at] >= wish.cpus)
        fits &= (cpu >= 0) & (memory >= 0) & (disk >= 0)
        idle = np.where(columns.fresh[at], 1.0 - columns.load[at], np.nan)
        there = ~np.isnan(idle)
        score = 2 * memory / columns.most_memory[at] + cpu / columns.most_cpus[at]
        score = (score + np.where(there, 2 * idle, 0.0)) / (3 + np.where(there, 2.0, 0.0))
        np.where(fits, score, -np.inf).argmax()
        times.append(time.perf_counter() - began)
    return median(times)


def _rate(times: Sequence[float]) -> float:
    return len(times) / sum(times)


def speed(rounds: Sequence[Round]) -> Iterator[Row]:
    rates = [one.rate for one in rounds]
    yield row(
        "decisions on 1,000 hosts, half with anti-affinity",
        rates,
        "/s",
        baselines=[one.naive for one in rounds],
        target=Target("at least", 15),
        note="against the naive version; with ranking and reasons",
    )
    yield row(
        "the same on 10,000 hosts",
        [one.rate_many for one in rounds],
        "/s",
        baselines=rates,
        target=Target("at least", 0.5),
        note="against 1,000 hosts",
    )
    yield row(
        "half with anti-affinity",
        rates,
        "/s",
        baselines=[one.rate_plain for one in rounds],
        target=Target("at least", 0.8),
        note="against none",
    )
    yield row(
        "p99 of one decision on 10,000 hosts",
        [one.p99 * 1e6 for one in rounds],
        "µs",
        baselines=[one.numpy_pass * 1e6 for one in rounds],
        target=Target("at most", 10),
        note="against a plain NumPy pass over the same columns",
    )
    yield row(
        "placements equal to the naive version's",
        [float(one.same) for one in rounds],
        "of all",
        target=Target("at least", 1),
        note=f"best five of {NAIVE_DECISIONS} decisions a round",
    )


# Ganeti


def against_hail(rounds: Sequence[Round]) -> Iterator[Row]:
    if not have_hail():
        yield Row(name="against hail", value=0, unit="", note=MISSING)
        return
    hail = [one.hail * 1e3 for one in rounds]
    yield row(
        "one decision on 1,000 hosts, warm",
        [one.warm * 1e3 for one in rounds],
        "ms",
        baselines=hail,
        target=Target("at most", 1 / 1000),
        note="against hail, a process that loads the cluster",
    )
    yield row(
        "one decision on 1,000 hosts, cold",
        [one.cold * 1e3 for one in rounds],
        "ms",
        baselines=hail,
        target=Target("at most", 1 / 10),
        note="a process that imports, loads and decides; against hail's",
    )


COLD = """
from bench.scheduler_fleet import decide, fleet, wishes
assert decide(fleet(%d), next(wishes(1)), 0)
"""


def cold_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", COLD % HOSTS], check=True)
    return time.perf_counter() - began


def space(path: Path) -> Row:
    """Copies of one VM until no more fits, against hspace on the same cluster."""
    name = f"VMs of 2 CPUs and 4 GiB on {SPACE_HOSTS} hosts by pack"
    placed = float(count_placed(SPACE_HOSTS, (sized(number) for number in range(10**6))))
    if not have_hspace():
        return row(name, [placed], "VMs", note=MISSING)
    write_cluster(path, SPACE_HOSTS)
    return row(
        name,
        [placed],
        "VMs",
        baselines=[float(hspace_count(path, **SIZE))],
        target=Target("at least", 1),
        note="against hspace without its N+1 checks",
    )


def sized(number: int) -> VmSpec:
    disks = (DiskSpec(image="tiny", size_gib=SIZE["disk_gib"]),)
    return VmSpec(name=f"vm{number}", cpus=SIZE["cpus"], memory_mib=SIZE["memory_mib"], disks=disks)


def count_placed(hosts: int, trace: Iterator[VmSpec], *, to_the_end: bool = False) -> int:
    made, placed = fleet(hosts), 0
    for number, wish in enumerate(trace):
        placement = decide(made, wish, number, "pack")
        if placement is not None:
            reserve(made, wish, placement, number)
            placed += 1
        elif not to_the_end:
            break
    return placed


# packing and memory


def packing() -> Row:
    """The part of a mixed trace that all hosts together could hold by their scarcest resource, and how
    much of it is placed."""
    ratios = []
    for seed in range(ROUNDS):
        trace = bounded(mixed(seed))
        ratios.append(count_placed(PACK_HOSTS, iter(trace), to_the_end=True) / len(trace))
    return row(
        f"VMs of a mixed trace packed on {PACK_HOSTS} hosts",
        ratios,
        "of the bound",
        target=Target("at least", 0.97),
        note="by pack; the bound is of the dominant resource",
    )


def bounded(trace: Iterator[VmSpec]) -> list[VmSpec]:
    most = np.array(
        [CPUS * LIMITS.cpu_overcommit, MEMORY_MIB - LIMITS.reserve_memory_mib, DISK_GIB]
    )
    left, found = most * PACK_HOSTS, []
    for wish in trace:
        left = left - np.array([wish.cpus, wish.memory_mib, wish.disks[0].size_gib])
        if left.min() < 0:
            break
        found.append(wish)
    return found


# plans


def evacuation() -> Iterator[Row]:
    """A host with a thousand VMs on it, among a thousand that hold thousands more, is to be emptied."""
    full = crowded(HOSTS, EVACUATED, seed=1)
    times, moves = [], 0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        plan = plan_drain(full, facts(0).host, FRAME)
        times.append(time.perf_counter() - began)
        assert plan.outcome == "reached"
        moves = len(plan.moves)
    yield row(
        f"evacuation plan of {EVACUATED:,} VMs on {HOSTS:,} hosts",
        times,
        "s",
        target=Target("at most", 1),
        note="half with anti-affinity; each by its policy, with reasons",
    )
    yield row(
        "moves of that plan",
        [float(moves)],
        "moves",
        baselines=[float(EVACUATED)],
        target=Target("at most", 1),
        note="against the VMs on the host",
    )


def copying() -> Row:
    """What every forecast and plan begins with: a copy of the fleet to try things on."""
    full, times = crowded(MANY_HOSTS, EVACUATED, seed=1), []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        full.copy()
        times.append((time.perf_counter() - began) * 1e3)
    return row(f"copy of a fleet of {MANY_HOSTS:,} hosts", times, "ms", note="forecasts work on it")


MEMORY = """
import psutil
from bench.scheduler_fleet import LIMITS, decide, facts, wishes
from schemas.resources import HostConfig
from services.scheduler.compiled import compile_policy
from services.scheduler.choice import Chooser
from services.scheduler.model import Limits
from services.scheduler.requests import Demand, request_of
from schemas.shipped import shipped
from services.scheduler.table import Table
before = psutil.Process().memory_info().rss
table = Table(Limits(exact_hosts=10**6))
for number in range(%d):
    known = facts(number)
    table.put_host(known, HostConfig(host=known.host), known.labels, Demand())
    table.heard(known.host, at=0.0)
chooser, policy = Chooser(table), compile_policy(shipped()["spread"])
for wish in wishes(100, anti_affinity=0.5):
    assert chooser.choose(request_of(wish), policy, chance=0, now=1.0).best is not None
print(psutil.Process().memory_info().rss - before)
"""


def memory() -> Row:
    """Of the table with what it keeps of its scans; the facts themselves are the registry's."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY % HUGE_HOSTS], check=True, capture_output=True, text=True
    )
    return row(
        f"memory of the table per host, {HUGE_HOSTS:,} hosts",
        [int(done.stdout) / HUGE_HOSTS / KIB],
        "KiB",
        target=Target("at most", 1),
        note="columns, labels and kept scans",
    )
