"""Hosts that there might be, as people type them. Pure; raises ValueError with what is wrong."""

from __future__ import annotations

from typing import Any

from vireo.cli import quantities
from vireo.cli.options import as_name

EXAMPLE = "3*h2, h2,rack=b or 2*cpus=64,memory=256GiB,disk=2TiB"
SIZES = ("cpus", "memory", "disk")


def more_hosts(text: str) -> dict[str, Any]:
    """`3*h2`: like h2; `cpus=64,memory=256GiB,disk=2TiB`: of a size; other pairs are labels."""
    count, star, rest = text.rpartition("*")
    if star and not (count.isascii() and count.isdigit() and len(count) < 5):
        raise ValueError(f"{text!r}: how many hosts? ({EXAMPLE})")
    first, *others = rest.split(",")
    found: dict[str, Any] = {"count": int(count)} if star else {}
    if "=" in first:
        others.insert(0, first)
    else:
        found["like"] = as_name(first)
    pairs = quantities.labels(others)
    labels = {key: value for key, value in pairs.items() if key not in SIZES}
    return {**found, **_sizes(text, pairs), **({"labels": labels} if labels else {})}


def _sizes(text: str, pairs: dict[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    if cpus := pairs.get("cpus"):
        if not (cpus.isascii() and cpus.isdigit() and len(cpus) < 5):
            raise ValueError(f"{text!r}: {cpus!r} is no number of CPUs")
        found["cpus"] = int(cpus)
    if memory := pairs.get("memory"):
        found["memory_mib"] = quantities.memory_mib(memory)
    if disk := pairs.get("disk"):
        found["disk_gib"] = quantities.disk_gib(disk)
    return found
