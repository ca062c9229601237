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
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.floor import create_floor_s
from bench.report import Row, Target, quantile, row
from bench.test_driver import node_file
from deploy.control_plane import ControlPlane

ROUNDS = 5
BURST = 300
CONCURRENCY = 64
IDLE = 40

THROUGHPUT = Target("at least", 0.1)


def run(directory: Path) -> Iterator[Row]:
    with test_plane(directory) as plane:
        bursts, raw, trails = asyncio.run(throughput(plane, node_file(directory / "raw.xml")))
        yield row(
            "creates per second",
            [BURST / seconds for seconds in bursts],
            "/s",
            baselines=[BURST / seconds for seconds in raw],
            target=THROUGHPUT,
            note=f"{BURST} at a concurrency of {CONCURRENCY}, against raw define and start",
        )
        yield from hops("burst hop", trails)
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
    with ControlPlane(directory / "state", {"h1": uri}, settings=settings) as plane:
        yield plane


async def throughput(
    plane: ControlPlane, raw_uri: str
) -> tuple[list[float], list[float], list[Trail]]:
    """Seconds of each burst, seconds of the raw burst beside it, and the trails of the last."""
    bursts, raw = [], []
    async with client(plane) as http:
        await burst(http, "warm", 50)
        for number in range(ROUNDS):
            seconds, operations = await burst(http, f"b{number}", BURST)
            bursts.append(seconds)
            raw.append(raw_burst(raw_uri))
            await remove_all(http, [operation["target"] for operation in operations])
        return bursts, raw, [trail_of(operation) for operation in operations]


async def idle(plane: ControlPlane) -> tuple[list[list[float]], list[list[float]], list[Trail]]:
    """Per round: the latencies of creates one at a time, and of the floor measured beside them."""
    latencies, floors, trails = [], [], []
    async with client(plane) as http:
        for number in range(ROUNDS):
            round_ = []
            for each in range(IDLE):
                began = time.perf_counter()
                operation = await create(http, f"i{number}-{each}")
                round_.append(time.perf_counter() - began)
                trails.append(trail_of(operation))
            latencies.append(round_)
            floors.append(await create_floor_s(plane, IDLE))
        return latencies, floors, trails


Trail = dict[str, float]
"""Event → milliseconds since the operation was accepted."""


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


def client(plane: ControlPlane) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=plane.url,
        headers={"Authorization": f"Bearer {plane.token}"},
        timeout=120,
        limits=httpx.Limits(max_connections=CONCURRENCY),
    )


async def burst(
    http: httpx.AsyncClient, name: str, count: int
) -> tuple[float, list[dict[str, Any]]]:
    began = time.perf_counter()
    operations = await asyncio.gather(*(create(http, f"{name}-{each}") for each in range(count)))
    return time.perf_counter() - began, operations


async def create(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """One VM, from the request to the end of its operation."""
    spec = {"name": name, "memory_mib": 64, "disks": [{"size_gib": 1}]}
    return await followed(http, await http.post("/v1/vms", json=spec))


async def followed(http: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    ended = await http.get(answer.headers["Location"], params={"wait": "60s"})
    operation: dict[str, Any] = ended.raise_for_status().json()
    if operation["phase"] != "succeeded":
        raise RuntimeError(f"an operation ended as {operation['phase']}: {operation}")
    return operation


async def remove_all(http: httpx.AsyncClient, vms: Sequence[str]) -> None:
    async def remove(vm: str) -> None:
        await followed(http, await http.delete(f"/v1/vms/{vm}"))

    await asyncio.gather(*map(remove, vms))


def raw_burst(uri: str) -> float:
    """Seconds that a process needs for as many domains on libvirt alone."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.raw_libvirt", uri, str(BURST)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)
