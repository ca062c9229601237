"""Footprint: resident memory of each process, and the agent's CPU per 100 domains at a 5 s tick."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.creates import CONCURRENCY, create_many, test_plane
from bench.load import clients
from bench.report import Row, row
from deploy.control_plane import ControlPlane

DOMAINS = 100
WINDOW_S = 15.0
ROUNDS = 5
MIB = 1 << 20


def run(directory: Path) -> Iterator[Row]:
    with test_plane(directory) as plane:
        empty = agent_cpu(plane)
        asyncio.run(fill(plane))
        shares = [agent_cpu(plane) for _ in range(ROUNDS)]
        children = plane.children()
        yield row(
            "agent's CPU per 100 domains",
            [share * 100 for share in shares],
            "% of a core",
            note=f"tick of 5 s, windows of {WINDOW_S:g} s; with no domain {empty * 100:.2f} %",
        )
        for name, pid in sorted(children.items()):
            yield row(
                f"resident memory: {name}",
                [resident_bytes(pid) / MIB],
                "MiB",
                note=f"with {DOMAINS} VMs; Postgres with its workers" if name == "postgres" else "",
            )


async def fill(plane: ControlPlane) -> None:
    async with clients(plane, CONCURRENCY) as load:
        await create_many(load, "f", DOMAINS)


def agent_cpu(plane: ControlPlane) -> float:
    """Share of one core that the agent takes over a window of three ticks."""
    process = psutil.Process(plane.children()["hostagent-h1"])
    before, began = process.cpu_times(), time.perf_counter()
    time.sleep(WINDOW_S)
    after, ended = process.cpu_times(), time.perf_counter()
    spent: float = after.user + after.system - before.user - before.system
    return spent / (ended - began)


def resident_bytes(pid: int) -> int:
    process = psutil.Process(pid)
    family = (process, *process.children(recursive=True))
    return sum(int(member.memory_info().rss) for member in family)
