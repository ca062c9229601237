"""Queries: the requests of the micro endpoints `vireo.svc.<service>.<endpoint>`.

Answers are resources, readings or pages of them as JSON; refusals are problems.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from schemas.definitions import DefinitionKind
from schemas.forecasts import MOST_HOSTS, MoreHosts
from schemas.ids import HostName, LabelKey, Labels, Name, OperationId, VmId
from schemas.policies import Policy
from schemas.resources import OperationPhase, VmSpec, VmState

PageSize = Annotated[int, Meta(ge=1, le=1000)]
Cursor = Annotated[str, Meta(max_length=200)]
Moment = Annotated[
    datetime, Meta(description="As it was then, by the time of storing in the record")
]
WaitSeconds = Annotated[float, Meta(ge=0, le=300)]


class GetVm(Struct, frozen=True, kw_only=True):
    """Inventory `vm.get`: a `Vm`. `vm` is an id or a name."""

    vm: Annotated[str, Meta(min_length=1, max_length=63)]
    at: Moment | None = None


class ListVms(Struct, frozen=True, kw_only=True):
    """Inventory `vm.list`: a `Page` of `Vm`, newest first. Every label must match."""

    limit: PageSize = 50
    after: Cursor | None = None
    host: HostName | None = None
    state: VmState | None = None
    name: str | None = None
    labels: Labels = {}
    at: Moment | None = None


class GetHost(Struct, frozen=True, kw_only=True):
    """Inventory `host.get`: a `Host`. Metrics `host`: a `HostReading`."""

    host: HostName
    at: Moment | None = None


class ListHosts(Struct, frozen=True, kw_only=True):
    """Inventory `host.list`: a `Page` of `Host`, by name."""

    limit: PageSize = 50
    after: Cursor | None = None
    state: Literal["online", "silent"] | None = None
    labels: Labels = {}
    at: Moment | None = None


class GetOperation(Struct, frozen=True, kw_only=True):
    """Inventory `operation.get`: an `Operation` with its trail.

    Waits up to `wait_s` seconds until it `exists` or has `ended`; answers what there is then.
    """

    operation: OperationId
    wait_s: WaitSeconds = 0
    until: Literal["exists", "ended"] = "exists"
    at: Moment | None = None


class ShowEffects(Struct, frozen=True, kw_only=True):
    """Inventory `operation.effects`: an `EffectTree`."""

    operation: OperationId


class ListOperations(Struct, frozen=True, kw_only=True):
    """Inventory `operation.list`: a `Page` of `Operation`, newest first."""

    limit: PageSize = 50
    after: Cursor | None = None
    target: str | None = None
    phase: OperationPhase | None = None
    actor: str | None = None
    at: Moment | None = None


EventName = Annotated[
    str, Meta(pattern=r"^[a-z]{1,30}\.([a-z_]{1,30}|\*)$", description="vm.started, or vm.*")
]


class ListEvents(Struct, frozen=True, kw_only=True):
    """Inventory `event.list`: a `Page` of stored envelopes in the order of storing. All that is given must
    hold, one of `types`."""

    limit: PageSize = 50
    after: Cursor | None = None
    newest: bool = False
    """The newest first; a cursor goes on in the order of its page."""
    operation: OperationId | None = None
    vm: VmId | None = None
    host: HostName | None = None
    actor: Annotated[str, Meta(max_length=200)] | None = None
    types: Annotated[tuple[EventName, ...], Meta(max_length=20)] = ()
    since: datetime | None = None
    """Stored then or later."""
    until: datetime | None = None
    """Stored before."""


class GetDefinition(Struct, frozen=True, kw_only=True):
    """Inventory `definition.get`: a `Definition`, the one that counts unless a version is named."""

    kind: DefinitionKind
    name: Name
    version: Annotated[int, Meta(ge=1)] | None = None


class ListDefinitions(Struct, frozen=True, kw_only=True):
    """Inventory `definition.list`: a `Page` of `Definition`, those that count, by name."""

    kind: DefinitionKind
    limit: PageSize = 50
    after: Cursor | None = None


class ListVersions(Struct, frozen=True, kw_only=True):
    """Inventory `definition.versions`: a `Page` of `Definition`, every version, newest first."""

    kind: DefinitionKind
    name: Name
    limit: PageSize = 50
    after: Cursor | None = None


class GetVmReading(Struct, frozen=True, kw_only=True):
    """Metrics `vm`: a `VmReading`."""

    vm: VmId


class Try(Struct, frozen=True, kw_only=True):
    """`try.<site>` of the service that owns the command: a `Forecast` of what would come of it."""

    command: Raw
    """The command in its envelope, as it would be sent."""
    policy: Policy | None = None
    """To place a new VM by this policy, instead of the one that its spec names."""
    without_vm: VmId | None = None
    """As if there were no such VM."""


class CountCapacity(Struct, frozen=True, kw_only=True):
    """Scheduler `capacity.<site>`: the `Capacity` for copies of a spec, whose name does not matter."""

    spec: VmSpec | None = None
    policy: Policy | None = None
    """To place by this policy, instead of the one that the spec names."""
    by: LabelKey | None = None
    """Count by the values of this label of hosts, too."""
    without: Annotated[tuple[HostName, ...], Meta(max_length=MOST_HOSTS)] = ()
    """As if there were no such hosts; their VMs move elsewhere first, as far as they fit."""
    add: Annotated[tuple[MoreHosts, ...], Meta(max_length=16)] = ()
    """As if there were these, too."""


class GetProjectUse(Struct, frozen=True, kw_only=True):
    """Scheduler `use.<site>`: the `ProjectUse` of a project."""

    project: Name


class Empty(Struct, frozen=True):
    """The request of endpoints that need to be told nothing (`live`, `ready`)."""
