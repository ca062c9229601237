"""Events: facts, in the past tense. Never refused, never changed.

Each goes to `vireo.evt.<site>.<source>.<kind>.<id>.<event>` in an `Envelope`. Operation and cause stand
in the envelope, so that the data says only what happened.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from schemas.alerts import Alert, AlertRule, Silence
from schemas.commands import GraceSeconds
from schemas.definitions import Project, Template
from schemas.ids import HostName, Name, OperationId, VmId
from schemas.policies import Policy
from schemas.problems import Problem
from schemas.rebuilds import TableComparison
from schemas.resources import (
    GuestFacts,
    HostConfig,
    HostFacts,
    OperationKind,
    Placement,
    PowerState,
    StopMode,
    VmSpec,
)
from schemas.seals import SignedAnchor, SignedSeal

# operations


class OperationAccepted(Struct, frozen=True, kw_only=True):
    """The gateway took a request and published its command."""

    command: str
    """`vm.create`, …: kind and verb of the command."""
    kind: OperationKind
    target: str
    request: dict[str, Any]
    """The command's data."""


class OperationProgressed(Struct, frozen=True, kw_only=True):
    """A step was done that no other event tells of: `step` of `of`."""

    step: int
    of: int
    detail: str


class OperationSucceeded(Struct, frozen=True, kw_only=True):
    detail: str = ""


class OperationFailed(Struct, frozen=True, kw_only=True):
    """The command was refused, or could not be carried out."""

    problem: Problem


# virtual machines: by the scheduler


class VmScheduled(Struct, frozen=True, kw_only=True):
    """A host was chosen for a new VM, with what was weighed and who was excluded by which rule."""

    vm: VmId
    host: HostName
    generation: int
    spec: VmSpec
    placement: Placement


class VmReassigned(Struct, frozen=True, kw_only=True):
    """A new generation of a VM's desired state was written for the host that holds it."""

    vm: VmId
    host: HostName
    generation: int
    power: PowerState
    ended: bool = False
    stop_mode: StopMode = "graceful"
    grace_s: GraceSeconds = 60
    supersedes: OperationId | None = None
    """The operation of the generation before, which the host may not have confirmed."""


# virtual machines: by the host's agent


class VmDefined(Struct, frozen=True, kw_only=True):
    """libvirt knows the domain, and its disks lie on the host."""

    vm: VmId
    host: HostName
    generation: int


class VmStarted(Struct, frozen=True, kw_only=True):
    vm: VmId
    host: HostName
    generation: int


class VmStopped(Struct, frozen=True, kw_only=True):
    """`reason`: `wish` (an assignment said so), `guest` (it shut itself down), `host` (by hand)."""

    vm: VmId
    host: HostName
    generation: int
    reason: Literal["wish", "guest", "host"]


class VmCrashed(Struct, frozen=True, kw_only=True):
    """The guest died by itself."""

    vm: VmId
    host: HostName
    generation: int
    detail: str


class VmPaused(Struct, frozen=True, kw_only=True):
    vm: VmId
    host: HostName
    generation: int


class VmResumed(Struct, frozen=True, kw_only=True):
    vm: VmId
    host: HostName
    generation: int


class VmRebooted(Struct, frozen=True, kw_only=True):
    vm: VmId
    host: HostName


class VmDeleted(Struct, frozen=True, kw_only=True):
    """Domain and disks are gone from the host: the assignment may be forgotten."""

    vm: VmId
    host: HostName
    generation: int


class VmDrifted(Struct, frozen=True, kw_only=True):
    """The guest was found otherwise than assigned, through no wish of Vireo's; it is mended next."""

    vm: VmId
    host: HostName
    generation: int
    expected: str
    found: str


class VmFailed(Struct, frozen=True, kw_only=True):
    """An assignment could not be carried out; the agent tries again when something changes."""

    vm: VmId
    host: HostName
    generation: int
    detail: str


class VmGuestChanged(Struct, frozen=True, kw_only=True):
    """The guest's agent reported facts that differ from those known before."""

    vm: VmId
    host: HostName
    guest: GuestFacts


# hosts


class HostRegistered(Struct, frozen=True, kw_only=True):
    """By the agent, at its start and whenever its facts change."""

    facts: HostFacts


class HostConfigured(Struct, frozen=True, kw_only=True):
    """By the scheduler: what operators set."""

    config: HostConfig


class HostSilent(Struct, frozen=True, kw_only=True):
    """By the scheduler: the lease ran out while the bus was up and others renewed theirs."""

    host: HostName
    silent_s: float


class HostReturned(Struct, frozen=True, kw_only=True):
    host: HostName


# what people define: by the inventory


class PolicyApplied(Struct, frozen=True, kw_only=True):
    """A new version, which counts from now on."""

    definition: Policy


class PolicyRemoved(Struct, frozen=True, kw_only=True):
    """`version`: the one that says that it is gone. A shipped policy of the name counts again."""

    name: Name
    version: int


class TemplateApplied(Struct, frozen=True, kw_only=True):
    """A new version, which counts from now on."""

    definition: Template


class TemplateRemoved(Struct, frozen=True, kw_only=True):
    """`version`: the one that says that it is gone."""

    name: Name
    version: int


class ProjectApplied(Struct, frozen=True, kw_only=True):
    """A new version, which counts from now on."""

    definition: Project


class ProjectRemoved(Struct, frozen=True, kw_only=True):
    """`version`: the one that says that it is gone."""

    name: Name
    version: int


class RuleApplied(Struct, frozen=True, kw_only=True):
    """A new version, which counts from now on."""

    definition: AlertRule


class RuleRemoved(Struct, frozen=True, kw_only=True):
    """`version`: the one that says that it is gone. A shipped rule of the name counts again."""

    name: Name
    version: int


# the record: by the inventory


class LedgerSealed(Struct, frozen=True, kw_only=True):
    """A day of the record was signed. Who keeps this can hold the record to it."""

    seal: SignedSeal


class LedgerGapFound(Struct, frozen=True, kw_only=True):
    """The sequences of EVENTS from `first` to `last` were passed by; they are being looked for."""

    epoch: int
    first: int
    last: int


class LedgerGapSettled(Struct, frozen=True, kw_only=True):
    """What became of a gap: so many events were stored, cannot be read, or are in the stream no more."""

    epoch: int
    first: int
    last: int
    filled: int
    unreadable: int
    missing: int


class LedgerArchived(Struct, frozen=True, kw_only=True):
    """A month of the record was put away into a file. Who keeps this knows what has to be in it."""

    anchor: SignedAnchor


class ReplayEnded(Struct, frozen=True, kw_only=True):
    """So many recorded events were published again; `complete`, or it was told to stop."""

    name: Name
    published: int
    complete: bool


class FleetRestored(Struct, frozen=True, kw_only=True):
    """By the scheduler: part of what belongs into FLEET was looked at; so much of it was written, and so
    much was there."""

    part: int
    of: int
    written: int
    kept: int


class InventoryRebuilt(Struct, frozen=True, kw_only=True):
    """The tables were made anew from the first `rows` events of the record."""

    rows: int
    tables: tuple[TableComparison, ...]
    taken: bool
    """Whether they took the place of those that were read until then."""


# alerts: by the metrics service


class AlertFired(Struct, frozen=True, kw_only=True):
    """A rule found what it is to find, for as long as it is to be so."""

    alert: Alert


class AlertResolved(Struct, frozen=True, kw_only=True):
    """It is over, or what it was about is not measured any more."""

    alert: Alert


class AlertSilenced(Struct, frozen=True, kw_only=True):
    """Nobody is told of what a rule finds, until then."""

    silence: Silence


class AlertUnsilenced(Struct, frozen=True, kw_only=True):
    rule: Name


OperationEvent = OperationAccepted | OperationProgressed | OperationSucceeded | OperationFailed
VmEvent = (
    VmScheduled
    | VmReassigned
    | VmDefined
    | VmStarted
    | VmStopped
    | VmCrashed
    | VmPaused
    | VmResumed
    | VmRebooted
    | VmDeleted
    | VmDrifted
    | VmFailed
    | VmGuestChanged
)
HostEvent = HostRegistered | HostConfigured | HostSilent | HostReturned
DefinitionApplied = PolicyApplied | TemplateApplied | ProjectApplied | RuleApplied
DefinitionRemoved = PolicyRemoved | TemplateRemoved | ProjectRemoved | RuleRemoved
DefinitionEvent = DefinitionApplied | DefinitionRemoved
LedgerEvent = LedgerSealed | LedgerGapFound | LedgerGapSettled | LedgerArchived
RebuildEvent = InventoryRebuilt | FleetRestored | ReplayEnded
AlertEvent = AlertFired | AlertResolved | AlertSilenced | AlertUnsilenced
Event = (
    OperationEvent | VmEvent | HostEvent | DefinitionEvent | LedgerEvent | RebuildEvent | AlertEvent
)
