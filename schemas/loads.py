"""How busy everything is now: one row per host or VM, so that a whole fleet is one question.

What belongs here: the few numbers that a fleet is looked through by. All of one thing is its reading
(`schemas.telemetry`), its past its history (`schemas.metrics`). What is not known is None.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from schemas.ids import HostName, SiteName, VmId
from schemas.queries import Cursor, PageSize

MOST_RECENT = 60

Recent = Annotated[int, Meta(ge=0, le=MOST_RECENT)]


class ListHostLoads(Struct, frozen=True, kw_only=True):
    """Metrics `load.hosts`: a `Page` of `HostLoad`, by name. `recent`: so many ticks of CPU go along."""

    limit: PageSize = 200
    after: Cursor | None = None
    recent: Recent = 0


class ListVmLoads(Struct, frozen=True, kw_only=True):
    """Metrics `load.vms`: a `Page` of `VmLoad`, by id; of one host if it is named."""

    limit: PageSize = 200
    after: Cursor | None = None
    recent: Recent = 0
    host: HostName | None = None


class HostLoad(Struct, frozen=True, kw_only=True, omit_defaults=True):
    host: HostName
    site: SiteName
    at: datetime
    cpu_busy: float | None = None
    """Share of all CPUs, 0 to 1."""
    load1: float | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    disk_total_bytes: int | None = None
    disk_free_bytes: int | None = None
    io_pressure: float | None = None
    power_watts: float | None = None
    cpu_celsius: float | None = None
    """The hottest of its processors."""
    received_bytes_s: float | None = None
    """Over all its network cards."""
    sent_bytes_s: float | None = None
    vms_running: int = 0
    recent_cpu: tuple[float | None, ...] = ()
    """`cpu_busy` of the ticks before, oldest first."""


class VmLoad(Struct, frozen=True, kw_only=True, omit_defaults=True):
    vm: VmId
    name: str = ""
    project: str = ""
    host: HostName
    site: SiteName
    at: datetime
    state: str = ""
    cpus: int | None = None
    cpu_busy: float | None = None
    """In CPUs: 1.5 is one and a half CPUs busy."""
    memory_max_bytes: int | None = None
    memory_used_bytes: int | None = None
    """Inside, where the guest says it; else what the VM holds of its host's."""
    read_bytes_s: float | None = None
    written_bytes_s: float | None = None
    received_bytes_s: float | None = None
    sent_bytes_s: float | None = None
    recent_cpu: tuple[float | None, ...] = ()
    """`cpu_busy` of the ticks before, oldest first."""
