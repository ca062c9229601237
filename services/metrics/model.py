"""The metrics service's values: what is kept of a host's frames.

What belongs here: values and what a frame may be found to be. What does not: how one follows from
another (`decide`), how it reads for Prometheus (`exposition`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

from schemas.telemetry import GuestSample, HostSample, VmColumns

Outcome = Literal["taken", "garbled", "stale", "refused"]
"""Of a frame: kept; not to be read; older than what is known; from one host too many."""

OUTCOMES: tuple[Outcome, ...] = ("taken", "garbled", "stale", "refused")


class VmSample(Struct, frozen=True, kw_only=True):
    """One VM's row of a frame's columns; the fields are named as the columns are."""

    state: str | None = None
    cpus: int | None = None
    cpu_time_ns: int | None = None
    cpu_steal_ns: int | None = None
    memory_max_kib: int | None = None
    memory_rss_kib: int | None = None
    memory_available_kib: int | None = None
    memory_unused_kib: int | None = None
    block_read_bytes: int | None = None
    block_write_bytes: int | None = None
    block_read_requests: int | None = None
    block_write_requests: int | None = None
    net_receive_bytes: int | None = None
    net_transmit_bytes: int | None = None


class VmNewest(Struct, frozen=True, kw_only=True):
    """The newest known of one VM. `cpu_busy` and `cpu_steal` in CPUs; None until two samples can be
    compared."""

    sample: VmSample
    cpu_busy: float | None = None
    cpu_steal: float | None = None
    guest: GuestSample | None = None


class HostNewest(Struct, frozen=True, kw_only=True):
    """The newest known of one host and its VMs. `heard_s`: on our own monotonic clock."""

    host: str
    site: str
    at: datetime
    sequence: int
    interval_s: float
    sample: HostSample
    heard_s: float
    columns: VmColumns = VmColumns()
    guests: Mapping[str, GuestSample] = {}
    """What guests said last, by VM."""
    vms: Mapping[str, VmNewest] = {}


class Garbled(Struct, frozen=True, kw_only=True):
    """A frame that cannot be read, and why."""

    reason: str


class Stale(Struct, frozen=True):
    """A frame that is older than what is known of its host, or that is known already."""


class Fleet(Struct, frozen=True, kw_only=True):
    """All that is known: hosts by (site, name)."""

    hosts: Mapping[tuple[str, str], HostNewest] = {}
    frames: Mapping[Outcome, int] = {}
    """How many frames were found to be what."""
