"""What people define once: templates and projects, which VMs refer to by name, next to policies and alert
rules. Values only.

Each kind is kept in versions by the inventory and copied to the bucket CONFIG under `<kind>.<name>`. What
a request for a VM becomes with them stands in `schemas.requests`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from msgspec import Meta, Struct

from schemas.alerts import AlertRule
from schemas.ids import Labels, Name, OperationId, SiteName
from schemas.policies import Policy, Version
from schemas.resources import Cpus, DiskSpec, MemoryMib, Metadata, NicSpec, PowerState
from schemas.rules import Hardware, HostRules

DefinitionKind = Literal["policy", "template", "project", "rule"]

Description = Annotated[str, Meta(max_length=1024)]
Amount = Annotated[int, Meta(ge=0, le=1 << 50)]


class Template(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parts of a VM's spec, fixed once; a request that names the template may say otherwise."""

    name: Name
    version: Version = 0
    description: Description = ""
    cpus: Cpus | None = None
    memory_mib: MemoryMib | None = None
    disks: Annotated[tuple[DiskSpec, ...], Meta(min_length=1, max_length=16)] | None = None
    nics: Annotated[tuple[NicSpec, ...], Meta(max_length=8)] | None = None
    labels: Annotated[Labels, Meta(max_length=64)] = {}
    """Beside those of the request, which win where both have a key; so with `metadata`."""
    metadata: Metadata = {}
    on: HostRules | None = None
    hardware: Hardware | None = None
    project: Name | None = None
    policy: Name | None = None
    power: PowerState | None = None


class Quota(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The most that a project's VMs may ask for together, running or not; None is no limit."""

    vms: Amount | None = None
    cpus: Amount | None = None
    memory_mib: Amount | None = None
    disk_gib: Amount | None = None


class Amounts(Struct, frozen=True, kw_only=True):
    """What VMs take of a quota, under the quota's own names."""

    vms: int = 0
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0

    def plus(self, other: Amounts, times: int = 1) -> Amounts:
        return Amounts(
            vms=self.vms + times * other.vms,
            cpus=self.cpus + times * other.cpus,
            memory_mib=self.memory_mib + times * other.memory_mib,
            disk_gib=self.disk_gib + times * other.disk_gib,
        )


class Project(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """VMs that belong together: how they are placed and how much they may take."""

    name: Name
    version: Version = 0
    description: Description = ""
    policy: Name | None = None
    """For VMs of the project whose request and template name none."""
    labels: Annotated[Labels, Meta(max_length=64)] = {}
    """Every VM of the project gets them, where its request or template has no such key."""
    quota: Quota = Quota()


class ProjectUse(Struct, frozen=True, kw_only=True):
    """What a project's VMs take at a site, running or not, decisions in flight included: what the next
    one is held to, beside the quota."""

    project: Name
    site: SiteName
    used: Amounts
    quota: Quota


AnyDefinition = Policy | Template | Project | AlertRule
KINDS: dict[DefinitionKind, type[Policy] | type[Template] | type[Project] | type[AlertRule]] = {
    "policy": Policy,
    "template": Template,
    "project": Project,
    "rule": AlertRule,
}

D = TypeVar("D")


class Definition(Struct, Generic[D], frozen=True, kw_only=True):
    """One version of a policy, template, project or alert rule as the inventory keeps it."""

    kind: DefinitionKind
    name: Name
    version: int
    definition: D | None = None
    """None: with this version it was removed."""
    shipped: bool = False
    """It comes with Vireo; nobody applied it."""
    actor: str = ""
    operation: OperationId | None = None
    at: datetime | None = None
