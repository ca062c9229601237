"""Forecasts: what would come of a command, and how much more would fit. Values only.

They are answers of those who decide, made without doing anything: nothing is written, said or reserved
for them. A placement that was made is no forecast: it stands in `schemas.resources`.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from schemas.ids import HostName, LabelKey, Labels, Name, SiteName, VmId
from schemas.problems import Problem
from schemas.resources import Excluded, Placement, PlacementRule

MOST_HOSTS = 256


class Change(Struct, frozen=True, kw_only=True):
    """One field that would change, as it is and as it would be; null where there is nothing."""

    field: str
    before: Any = None
    after: Any = None


class Forecast(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would come of a command now: changes, or the problem that it would be refused with."""

    command: str
    """`vm.create`, `vm.start`, …"""
    kind: str
    target: str
    """Id of the VM or name of the host; the name of a VM that is yet to be."""
    host: HostName | None = None
    """Where it would be done."""
    detail: str = ""
    changes: tuple[Change, ...] = ()
    """None where it is so already, or where something would be done once, as a reboot."""
    placement: Placement | None = None
    """Of a new VM."""
    problem: Problem | None = None
    excluded: tuple[Excluded, ...] = ()
    """Where no host fits: some of those excluded, the nearest to fitting first."""
    excluded_by: dict[PlacementRule, int] = {}
    """Where no host fits: how many hosts each rule was the first to exclude."""


class PlacementReview(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a VM is where it is, as it was decided; and how it would be decided now, if asked for."""

    vm: VmId
    name: str
    host: HostName
    placement: Placement | None = None
    """As recorded with the decision."""
    now: Forecast | None = None
    """For the same spec, the VM itself not counted."""


class PolicyTrial(Struct, frozen=True, kw_only=True):
    """How a policy would place a VM now, and how the policy that counts for it would."""

    given: Forecast
    in_force: Forecast


# capacity


class MoreHosts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hosts that there might be: like one that there is, or of a size. One given by its size has every
    image and network that a host of the fleet has."""

    count: Annotated[int, Meta(ge=1, le=1000)] = 1
    like: HostName | None = None
    cpus: Annotated[int, Meta(ge=1, le=4096)] | None = None
    memory_mib: Annotated[int, Meta(ge=1, le=1 << 30)] | None = None
    disk_gib: Annotated[int, Meta(ge=0, le=1 << 30)] | None = None
    labels: Annotated[Labels, Meta(max_length=64)] = {}
    """Over those of the host that they are like."""


class Room(Struct, frozen=True, kw_only=True):
    """How many more fit on a host."""

    host: HostName
    count: int


class RoomByLabel(Struct, frozen=True, kw_only=True):
    """How many more fit on the hosts with one value of a label; null is for those without it."""

    value: str | None
    hosts: int
    """All that have this value, with room or without."""
    count: int


class Stuck(Struct, frozen=True, kw_only=True):
    """A VM that would fit nowhere else if its host were taken away, and why."""

    vm: VmId
    name: str
    host: HostName
    detail: str
    excluded: tuple[Excluded, ...] = ()
    """Some of the hosts, the nearest to fitting first."""
    excluded_by: dict[PlacementRule, int] = {}


class Displaced(Struct, frozen=True, kw_only=True):
    """The VMs of hosts that are taken away, placed elsewhere one after the other, large ones first."""

    vms: int
    placed: int
    stuck: tuple[Stuck, ...] = ()


class Capacity(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many more of a spec fit, and what stops the next one."""

    site: SiteName
    policy: str = ""
    policy_version: int = 0
    project: Name | None = None
    """Of the spec: its quota bounds `count`."""
    count: int | None = None
    """None where no spec was asked about."""
    complete: bool = True
    """False: counting stopped at its bound; at least so many fit."""
    hosts: tuple[Room, ...] = ()
    """Those with room, the most first; some, where there are many. What fits on a host, and on those
    with a label, is said without regard to a quota."""
    hosts_with_room: int = 0
    by: LabelKey | None = None
    values: tuple[RoomByLabel, ...] = ()
    """By the value of the label that was asked for; the most first."""
    excluded: tuple[Excluded, ...] = ()
    """What stops the next one: some of the hosts, the nearest to fitting first."""
    excluded_by: dict[PlacementRule, int] = {}
    """What stops the next one: how many hosts each rule is the first to exclude."""
    over_quota: tuple[str, ...] = ()
    """What stops the next one: what it would break of its project's quota, the copies before it counted
    as taken."""
    displaced: Displaced | None = None
    """Where hosts are taken away."""
