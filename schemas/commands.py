"""Commands: wishes, in the imperative. They may be refused.

Each goes to `vireo.cmd.<site>.<kind>.<verb>` in an `Envelope`; the envelope's id is the command's id
and the id of the operation that it opens.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from schemas.alerts import AlertRule, SilenceSeconds, Text
from schemas.cloud_init import CloudInit
from schemas.definitions import Project, Template
from schemas.ids import HostName, Labels, Name, OperationId, VmId
from schemas.policies import Policy
from schemas.resources import HostTuning, StopMode, VmSpec
from schemas.rules import Taint

GraceSeconds = Annotated[float, Meta(ge=0, le=3600)]


class CreateVm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Make a VM and bring it to the power state of its spec."""

    vm: VmId
    spec: VmSpec
    cloud_init: CloudInit | None = None
    """Of a spec that is `seeded`."""


MOST_COPIES = 256
"""VMs that one command may make."""


class CreateVms(Struct, frozen=True, kw_only=True):
    """Make a VM of this spec for each of the names. The ids of the VMs and of their operations follow
    from the command's (`schemas.copies`)."""

    spec: VmSpec
    """Its own name does not matter."""
    names: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MOST_COPIES)]
    gang: bool = False
    """All or none: where one cannot be placed, none is."""
    cloud_init: CloudInit | None = None
    """The same for all of them, as far as it names none."""


class StartVm(Struct, frozen=True, kw_only=True):
    vm: VmId


class StopVm(Struct, frozen=True, kw_only=True):
    """Shut down: `graceful` asks the guest and destroys it after `grace_s` seconds; `forced` destroys."""

    vm: VmId
    mode: StopMode = "graceful"
    grace_s: GraceSeconds = 60


class RebootVm(Struct, frozen=True, kw_only=True):
    """Reboot once: `graceful` asks the guest, `forced` resets it."""

    vm: VmId
    mode: StopMode = "graceful"


class PauseVm(Struct, frozen=True, kw_only=True):
    vm: VmId


class ResumeVm(Struct, frozen=True, kw_only=True):
    vm: VmId


class DeleteVm(Struct, frozen=True, kw_only=True):
    """Stop it, forget it, remove its disks."""

    vm: VmId
    mode: StopMode = "forced"
    grace_s: GraceSeconds = 60


class ConfigureHost(Struct, frozen=True, kw_only=True):
    """Set what is given, leave the rest. `labels`, `taints` and `tuning` replace all that
    operators had set of them."""

    host: HostName
    generation: Annotated[int, Meta(ge=0)] | None = None
    """Of the configuration that this was made from: refused if it has been changed since."""
    maintenance: bool | None = None
    labels: Annotated[Labels, Meta(max_length=64)] | None = None
    taints: Annotated[tuple[Taint, ...], Meta(max_length=16)] | None = None
    tuning: HostTuning | None = None


class ApplyPolicy(Struct, frozen=True, kw_only=True):
    """Make this the newest version of the policy of its name."""

    definition: Policy


class RemovePolicy(Struct, frozen=True, kw_only=True):
    name: Name


class ApplyTemplate(Struct, frozen=True, kw_only=True):
    """Make this the newest version of the template of its name."""

    definition: Template


class RemoveTemplate(Struct, frozen=True, kw_only=True):
    name: Name


class ApplyProject(Struct, frozen=True, kw_only=True):
    """Make this the newest version of the project of its name."""

    definition: Project


class RemoveProject(Struct, frozen=True, kw_only=True):
    name: Name


class ApplyRule(Struct, frozen=True, kw_only=True):
    """Make this the newest version of the alert rule of its name."""

    definition: AlertRule


class RemoveRule(Struct, frozen=True, kw_only=True):
    name: Name


class RebuildInventory(Struct, frozen=True, kw_only=True):
    """Make the tables that follow from the events anew, beside those that are read; then they take
    these' place."""

    compare_only: bool = False
    """Only find out whether they are the same."""


class RebuildFleet(Struct, frozen=True, kw_only=True):
    """Write to FLEET what the events say was in it, where it has nothing or what is older: after the
    bucket was lost."""


class SilenceAlert(Struct, frozen=True, kw_only=True):
    """Tell nobody of what a rule finds, for so long; what was said before of it is replaced."""

    rule: Name
    for_s: SilenceSeconds
    reason: Text = ""


class UnsilenceAlert(Struct, frozen=True, kw_only=True):
    """Tell again."""

    rule: Name


class ReplayEvents(Struct, frozen=True, kw_only=True):
    """Publish recorded events again under `vireo.replay.<name>.…`. All that is given must hold, one of
    `types`."""

    name: Name
    since: datetime
    """What was stored then or later,"""
    until: datetime
    """and before this."""
    speed: Annotated[float, Meta(ge=0, le=1_000_000)] = 1.0
    """How many times as fast as it was; 0 is as fast as it goes."""
    vm: VmId | None = None
    host: HostName | None = None
    operation: OperationId | None = None
    types: Annotated[tuple[Annotated[str, Meta(max_length=61)], ...], Meta(max_length=20)] = ()


class StopReplay(Struct, frozen=True, kw_only=True):
    """End what is being published under a name."""

    name: Name


VmCommand = CreateVm | StartVm | StopVm | RebootVm | PauseVm | ResumeVm | DeleteVm
ApplyDefinition = ApplyPolicy | ApplyTemplate | ApplyProject | ApplyRule
RemoveDefinition = RemovePolicy | RemoveTemplate | RemoveProject | RemoveRule
DefinitionCommand = ApplyDefinition | RemoveDefinition
RebuildCommand = RebuildInventory | RebuildFleet
ReplayCommand = ReplayEvents | StopReplay
AlertCommand = SilenceAlert | UnsilenceAlert
Command = (
    VmCommand
    | CreateVms
    | ConfigureHost
    | DefinitionCommand
    | RebuildCommand
    | ReplayCommand
    | AlertCommand
)


def told_of(command: Command) -> Command:
    """The command as events repeat it: without what is for the host alone."""
    if isinstance(command, CreateVm | CreateVms):
        return replace(command, cloud_init=None)
    return command
