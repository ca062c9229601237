"""CPU time by process of a running control plane, the load generator (this process) included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import psutil

from deploy.control_plane import ControlPlane

LOAD = "load generator"
LOOK_S = 0.5
AT_REST = 0.15
"""So much of a core is a control plane's that has nothing left to do: ticks and telemetry."""
REST_WITHIN_S = 30.0


def cpu_seconds(plane: ControlPlane) -> dict[str, float]:
    """CPU seconds that each process has taken so far, with its children, by the process's name."""
    own = psutil.Process().cpu_times()
    spent = {name: _of_family(pid) for name, pid in plane.children().items()}
    return {**spent, LOAD: own.user + own.system}


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was taken from one reading to the next by those that are in both."""
    return {name: after[name] - before[name] for name in before if name in after}


async def until_at_rest(plane: ControlPlane) -> None:
    """Wait until what was asked for earlier has no more consequences. Raises TimeoutError if that takes
    longer than `REST_WITHIN_S`."""
    async with asyncio.timeout(REST_WITHIN_S):
        share = 1.0
        while share > AT_REST:
            before, began = cpu_seconds(plane), time.perf_counter()
            await asyncio.sleep(LOOK_S)
            spent = between(before, cpu_seconds(plane))
            share = sum(spent.values()) / (time.perf_counter() - began)


def _of_family(pid: int) -> float:
    process = psutil.Process(pid)
    own = process.cpu_times()
    # Children that have ended are part of their parent's times.
    ended = float(own.children_user + own.children_system)
    living = sum(_spent(child) for child in process.children(recursive=True))
    return float(own.user + own.system) + ended + living


def _spent(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
