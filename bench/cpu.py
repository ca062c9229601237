"""CPU time by process of a running control plane, the load generator (this process) included."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from deploy.control_plane import ControlPlane

LOAD = "load generator"


def cpu_seconds(plane: ControlPlane) -> dict[str, float]:
    """CPU seconds that each process has taken so far, with its children, by the process's name."""
    own = psutil.Process().cpu_times()
    spent = {name: _of_family(pid) for name, pid in plane.children().items()}
    return {**spent, LOAD: own.user + own.system}


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was taken from one reading to the next by those that are in both."""
    return {name: after[name] - before[name] for name in before if name in after}


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
