"""Creates: from the HTTP request to running and durable in Postgres, on libvirt's test driver.

Held against raw define and start by one process on the same driver, interleaved; and, one at a time,
against the floor of what cannot be left out: three acknowledged publishes, two commits, define and start.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct

from bench.cpu import between, cpu_seconds, until_at_rest
from bench.floor import create_floor_s
from bench.load import Answer, Clients, Connection, clients
from bench.places import no_disks, spread
from bench.report import Row, Target, quantile, row
from bench.test_driver import node_file
from deploy.control_plane import ControlPlane

ROUNDS = 5
BURST = 1500
CONCURRENCY = 128
IDLE = 40
WAIT = "wait=60s"
"""Each wish is one request, answered when the operation has ended."""

THROUGHPUT = Target("at least", 0.1)

Trail = dict[str, float]
"""Event → milliseconds since the operation was accepted."""


class Burst(Struct, frozen=True, kw_only=True):
    """One burst of creates and the raw one beside it."""

    seconds: float
    raw_s: float
    cpu_s: dict[str, float]
    """By process."""
    trails: list[Trail]


def run(directory: Path) -> Iterator[Row]:
    with test_plane(directory) as plane:
        bursts = asyncio.run(throughput(plane, node_file(directory / "raw.xml")))
        yield row(
            "creates per second",
            [BURST / burst.seconds for burst in bursts],
            "/s",
            baselines=[BURST / burst.raw_s for burst in bursts],
            target=THROUGHPUT,
            note=f"{BURST} at a concurrency of {CONCURRENCY}, against raw define and start",
        )
        yield from cpu_rows(bursts)
        yield from hops("burst hop", bursts[-1].trails)
        latencies, floors, trails = asyncio.run(idle(plane))
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            yield row(
                f"idle create {name}",
                [quantile(one, share) * 1000 for one in latencies],
                "ms",
                baselines=[quantile(one, share) * 1000 for one in floors],
                note="against three acks, two commits, define and start",
            )
        yield from hops("idle hop", trails)


@contextmanager
def test_plane(directory: Path) -> Iterator[ControlPlane]:
    """Vireo with one large host of make-believe."""
    uri = node_file(directory / "node.xml")
    settings = ("scheduler.cpu_overcommit=64", "scheduler.disk_overcommit=64")
    state = directory / "state"
    host = state / "hosts" / "h1"
    state.mkdir(mode=0o711)
    spread(state)
    host.mkdir(parents=True)
    with no_disks(host), ControlPlane(state, {"h1": uri}, settings=settings) as plane:
        yield plane


async def throughput(plane: ControlPlane, raw_uri: str) -> list[Burst]:
    async with clients(plane, CONCURRENCY) as load:
        await create_many(load, "warm", 2 * CONCURRENCY)
        return [
            await measured_burst(plane, load, f"b{number}", raw_uri) for number in range(ROUNDS)
        ]


async def measured_burst(plane: ControlPlane, load: Clients, name: str, raw_uri: str) -> Burst:
    await until_at_rest(plane)
    before, began = cpu_seconds(plane), time.perf_counter()
    operations = await create_many(load, name, BURST)
    seconds = time.perf_counter() - began
    spent = between(before, cpu_seconds(plane))
    raw_s = raw_burst(raw_uri)
    await delete_many(load, [operation["target"] for operation in operations])
    trails = [trail_of(operation) for operation in operations]
    return Burst(seconds=seconds, raw_s=raw_s, cpu_s=spent, trails=trails)


async def idle(plane: ControlPlane) -> tuple[list[list[float]], list[list[float]], list[Trail]]:
    """Per round: the latencies of creates one at a time, and of the floor measured beside them."""
    latencies, floors, trails = [], [], []
    async with clients(plane, 1) as load:
        for number in range(ROUNDS):
            round_ = []
            for each in range(IDLE):
                began = time.perf_counter()
                operation = await create(f"i{number}-{each}", load.first)
                round_.append(time.perf_counter() - began)
                trails.append(trail_of(operation))
            latencies.append(round_)
            floors.append(await create_floor_s(plane, IDLE))
        return latencies, floors, trails


def trail_of(operation: dict[str, Any]) -> Trail:
    return {step["event"]: step["elapsed_ms"] for step in operation["trail"]}


def hops(name: str, trails: Sequence[Trail]) -> Iterator[Row]:
    """The median time at which each event of the way was there."""
    times: dict[str, list[float]] = defaultdict(list)
    for trail in trails:
        for event, elapsed_ms in trail.items():
            times[event].append(elapsed_ms)
    for event, found in sorted(times.items(), key=lambda item: median(item[1])):
        yield row(f"{name}: {event}", found, "ms", note="since accepted, median")


def cpu_rows(bursts: Sequence[Burst]) -> Iterator[Row]:
    """What a create costs in CPU: unlike its rate, hardly moved by who else uses the machine."""
    raw = [burst.raw_s / BURST * 1000 for burst in bursts]
    whole = [sum(burst.cpu_s.values()) / BURST * 1000 for burst in bursts]
    note = "of all processes, against raw define and start"
    yield row("CPU per create", whole, "ms", baselines=raw, note=note)
    for name in sorted(bursts[0].cpu_s):
        yield row(
            f"CPU per create: {name}",
            [burst.cpu_s.get(name, 0.0) / BURST * 1000 for burst in bursts],
            "ms",
        )


async def create_many(load: Clients, name: str, count: int) -> list[dict[str, Any]]:
    """The ended operations of so many creates."""
    return await load.each(partial(create, f"{name}-{each}") for each in range(count))


async def delete_many(load: Clients, vms: Sequence[str]) -> None:
    await load.each(partial(delete, vm) for vm in vms)


async def create(name: str, connection: Connection) -> dict[str, Any]:
    """One VM, from the request to the end of its operation."""
    spec = {"name": name, "memory_mib": 64, "disks": [{"size_gib": 1}]}
    return succeeded(await connection.ask("POST", f"/v1/vms?{WAIT}", spec))


async def delete(vm: str, connection: Connection) -> dict[str, Any]:
    return succeeded(await connection.ask("DELETE", f"/v1/vms/{vm}?{WAIT}"))


def succeeded(answer: Answer) -> dict[str, Any]:
    operation: dict[str, Any] = answer.json()
    if operation["phase"] != "succeeded":
        raise RuntimeError(f"an operation ended as {operation['phase']}: {operation}")
    return operation


def raw_burst(uri: str) -> float:
    """Seconds that a process needs for as many domains on libvirt alone."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.raw_libvirt", uri, str(BURST)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)
