"""A process to keep running, as a value: how it starts, when it is ready, how it stops."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct


class Notified(Struct, frozen=True):
    """Ready when it says so by systemd's notify protocol."""


class PortAnswers(Struct, frozen=True):
    """Ready when something accepts connections there."""

    address: str
    port: int


class SocketAnswers(Struct, frozen=True):
    """Ready when something accepts connections on this Unix socket."""

    path: Path


Readiness = Notified | PortAnswers | SocketAnswers


class Child(Struct, frozen=True, kw_only=True):
    """One process. Secrets are in files that its settings name, never in `argv` or `environment`."""

    name: str
    argv: tuple[str, ...]
    ready: Readiness
    after: tuple[str, ...] = ()
    """Children that must be ready before it starts; they are stopped after it."""
    environment: Mapping[str, str] = {}
    """Besides what all children inherit."""
    stop_signal: int = signal.SIGTERM
    start_timeout_s: float = 60
    stop_timeout_s: float = 25


def tiers(children: Sequence[Child]) -> list[list[Child]]:
    """Children in the order in which they can start; those of one tier together.

    Raises ValueError where one waits for a child that isn't there, or for itself.
    """
    left = list(children)
    started: set[str] = set()
    result: list[list[Child]] = []
    while left:
        tier = [child for child in left if started.issuperset(child.after)]
        if not tier:
            raise ValueError(f"cannot be started: {', '.join(child.name for child in left)}")
        result.append(tier)
        started.update(child.name for child in tier)
        left = [child for child in left if child not in tier]
    return result
