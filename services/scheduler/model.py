"""The scheduler's values: what is known of a host, what is decided, and the table of transitions.

Pure, and values only: the table of the whole fleet is `fleet.py`'s, deciding is `decide.py`'s. Times
named `…_at` are seconds of the scheduler's own monotonic clock.
"""

from __future__ import annotations

from msgspec import Struct

from schemas.assignments import VmAssignment
from schemas.commands import (
    PauseVm,
    RebootVm,
    ResumeVm,
    StartVm,
    StopVm,
    VmCommand,
)
from schemas.ids import HostName, VmId
from schemas.problems import Problem
from schemas.resources import HostConfig, HostFacts, PowerState, StopMode
from services.scheduler.requests import Demand


class Limits(Struct, frozen=True, kw_only=True):
    """The settings that decisions depend on."""

    cpu_overcommit: float = 4.0
    memory_overcommit: float = 1.0
    disk_overcommit: float = 1.0
    reserve_memory_mib: int = 512
    reserve_disk_gib: int = 0
    lease_s: float = 10.0
    alone_patience_s: float = 30.0
    telemetry_fresh_s: float = 20.0
    load_tau_s: float = 30.0
    """Time constant of the moving average of a host's load."""
    load_band: float = 0.05
    """What is weighed of the load stands still while the average is closer than this."""
    exact_hosts: int = 20_000
    """Up to so many hosts every decision looks at all of them."""
    part_hosts: int = 8_192
    """Beyond, at so many at a time."""
    ranking: int = 5
    shown_reasons: int = 20
    """Excluded hosts shown beside a placement; all are counted."""
    reasons: int = 200
    """Excluded hosts shown in a refusal."""


class HostRow(Struct, frozen=True, kw_only=True):
    """What is known of one host beside its numbers, which are columns of the table. `facts` is None
    until it has registered."""

    name: HostName
    facts: HostFacts | None = None
    facts_revision: int = 0
    config: HostConfig
    config_revision: int = 0
    labels: dict[str, str] = {}
    """The agent's labels, overlaid by the operators'."""
    images: dict[str, int] = {}
    """Virtual size in GiB by name."""
    foreign: Demand = Demand()
    """What running domains that are not Vireo's take."""
    renewed_at: float | None = None
    renewing_since: float | None = None
    """Start of the present run of renewals without a gap longer than a lease."""


class Held(Struct, frozen=True, kw_only=True, gc=False):
    """An assignment as the fleet table holds it. Revision 0: decided, not yet written."""

    assignment: VmAssignment
    revision: int
    demand: Demand


class Ask(Struct, frozen=True, kw_only=True):
    """When a place is asked for, and with what luck: beside the fleet and the request, all there is."""

    now: float
    chance: int = 0
    """64 random bits, for policies that draw lots."""


TRANSITIONS: dict[tuple[PowerState, type[VmCommand]], PowerState] = {
    ("running", StartVm): "running",
    ("stopped", StartVm): "running",
    ("running", StopVm): "stopped",
    ("stopped", StopVm): "stopped",
    ("paused", StopVm): "stopped",
    ("running", PauseVm): "paused",
    ("paused", PauseVm): "paused",
    ("running", ResumeVm): "running",
    ("paused", ResumeVm): "running",
    ("running", RebootVm): "running",
}
"""Desired power and command → desired power after it. What is not listed is refused.

A wish that is already fulfilled is listed too: its new generation makes the host confirm it.
"""


class Placed(Struct, frozen=True, kw_only=True):
    """A new VM has a host."""

    assignment: VmAssignment


class Changed(Struct, frozen=True, kw_only=True):
    """A new generation for a VM, instead of the one written at `revision`."""

    assignment: VmAssignment
    revision: int


class Acted(Struct, frozen=True, kw_only=True):
    """The VM's host is to do something once: reboot it."""

    vm: VmId
    host: HostName
    mode: StopMode


class Configured(Struct, frozen=True, kw_only=True):
    """A host's configuration as it is to be. `revision` None: it is so already."""

    config: HostConfig
    revision: int | None


class Repeated(Struct, frozen=True, kw_only=True):
    """The command was carried out before, by the write of `assignment`: say again what was said."""

    assignment: VmAssignment


ANY_HOST = "*"


class Refused(Struct, frozen=True, kw_only=True):
    """`unheard`: a lease that was not heard is part of the reason. `unregistered`: so it is that this
    host, or any (`*`), has not registered. `rests_on`: so it is what CONFIG holds under this key.
    `for_others`: it would have been placed, but not without others, which were refused."""

    problem: Problem
    unheard: bool = False
    unregistered: str | None = None
    rests_on: str | None = None
    for_others: bool = False


Decision = Placed | Changed | Acted | Configured | Repeated | Refused
