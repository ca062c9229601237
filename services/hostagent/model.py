"""The agent's values: what a domain was seen to be, what is on record of it, and the steps of a plan.

Pure. The tables at the end say which milestones lie between two states of a VM. Deciding is
`plan.py`'s; doing is the executor's.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from schemas.assignments import VmAssignment
from schemas.events import OperationEvent, VmEvent
from schemas.ids import VmId
from schemas.resources import DiskSpec, VmSpec

Power = Literal["stopped", "running", "paused"]
Known = Literal["absent", "stopped", "running", "paused"]
StopCause = Literal["guest", "host", "crashed"]
Milestone = Literal["disks", "define", "start", "pause", "resume", "stop", "remove", "confirm"]


class Observed(Struct, frozen=True, kw_only=True):
    """One domain as the hypervisor shows it now."""

    vm: VmId
    state: Power
    cause: StopCause = "host"
    """Why it stopped; says nothing while it runs."""
    detail: str = ""
    """The hypervisor's own words for the state, where they say more than `state`."""
    ours: bool = True
    """Whether it carries Vireo's metadata."""
    persistent: bool = True
    """Whether it would survive being stopped."""
    generation: int = 0
    """From the metadata; 0 where there is none."""
    spec: VmSpec | None = None
    """From the metadata."""
    cpus: int = 0
    """Of the persistent definition, as `memory_mib`; 0 where unknown."""
    memory_mib: int = 0
    outdated: bool = False
    """Its definition is of a time at which the host gave its guests a vsock device, or gave none, unlike
    now."""
    busy: str = ""
    """A job or transition of the hypervisor's own that must not be disturbed."""


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the journal knows of one VM. Only that VM's worker writes it."""

    vm: VmId
    generation: int = 0
    """The newest generation that was carried out or given up."""
    pending: int = 0
    """The generation being worked on; equal to `generation` when nothing is pending."""
    known: Known = "absent"
    """The state that was last told in an event."""
    origin: Known = "absent"
    """What `known` was when the pending generation was begun."""
    incidents: int = 0
    """How often the VM was found otherwise than known; part of event ids."""
    noticed: str = ""
    """A wrong definition that was told and is being mended."""
    failed: str = ""
    """Why the agent gave up; it begins again with a newer generation or a fresh start."""


class Utterance(Struct, frozen=True, kw_only=True):
    """An event to be told. `name` makes its id, together with the assignment's operation."""

    name: str
    data: VmEvent | OperationEvent


class CreateDisk(Struct, frozen=True):
    """Make a disk unless it is there: one that is there is never written to."""

    vm: VmId
    disk: DiskSpec


class WriteSeed(Struct, frozen=True):
    """Write what cloud-init is to find, unless it is there."""

    assignment: VmAssignment


class Define(Struct, frozen=True):
    """Make the hypervisor know the domain, with spec and generation in its metadata."""

    assignment: VmAssignment


class Stamp(Struct, frozen=True):
    """Write the generation into the metadata of a domain whose spec stays as it is."""

    assignment: VmAssignment


class Start(Struct, frozen=True):
    vm: VmId


class Pause(Struct, frozen=True):
    vm: VmId


class Resume(Struct, frozen=True):
    vm: VmId


class AskToStop(Struct, frozen=True):
    """Ask the guest to shut down, and wait `grace_s` for it."""

    vm: VmId
    grace_s: float


class Destroy(Struct, frozen=True):
    """Take the power away, if it still has any."""

    vm: VmId


class Undefine(Struct, frozen=True):
    vm: VmId


class RemoveDisks(Struct, frozen=True):
    vm: VmId


class Say(Struct, frozen=True, kw_only=True):
    """Put a new record and its events into the journal, in one transaction."""

    record: Record
    utterances: tuple[Utterance, ...] = ()
    again: bool = False
    """After a crash the same is said again: the next step need not wait until it is on disk."""


Move = Define | Stamp | Start | Pause | Resume | Destroy | Undefine
"""What is done to a domain at once, with no guest and no disk to wait for."""

Step = Move | CreateDisk | WriteSeed | AskToStop | RemoveDisks | Say


class Plan(Struct, frozen=True, kw_only=True):
    """Steps in order; nothing is left for the executor to choose."""

    steps: tuple[Step, ...] = ()
    again_in_s: float | None = None
    """Look again after so long even if nothing is heard."""
    mends: bool = False
    """Whether the steps undo a drift: the backoff counts these."""
    settles: bool = False
    """Whether the steps end an operation as it was wished: nothing is left to do after them."""


NOTHING = Plan()

PATHS: dict[tuple[Known, Known], tuple[Milestone, ...]] = {
    ("absent", "running"): ("disks", "define", "start"),
    ("absent", "stopped"): ("disks", "define"),
    ("absent", "paused"): ("disks", "define", "start", "pause"),
    ("absent", "absent"): ("remove",),
    ("stopped", "running"): ("start",),
    ("stopped", "stopped"): ("confirm",),
    ("stopped", "paused"): ("start", "pause"),
    ("stopped", "absent"): ("remove",),
    ("running", "running"): ("confirm",),
    ("running", "stopped"): ("stop",),
    ("running", "paused"): ("pause",),
    ("running", "absent"): ("stop", "remove"),
    ("paused", "running"): ("resume",),
    ("paused", "stopped"): ("stop",),
    ("paused", "paused"): ("confirm",),
    ("paused", "absent"): ("stop", "remove"),
}
"""The milestones from a state to a wished one, in order. What is observed does not change them: it
decides only which of them need anything done."""

LEADS_TO: dict[Milestone, Known] = {
    "define": "stopped",
    "start": "running",
    "pause": "paused",
    "resume": "running",
    "stop": "stopped",
    "remove": "absent",
}
"""The state after a milestone; `disks` and `confirm` leave the state that is known."""

DETAILS: dict[Milestone, str] = {
    "disks": "disks created",
    "define": "domain defined",
    "start": "guest started",
    "pause": "guest paused",
    "resume": "guest resumed",
    "stop": "guest stopped",
    "remove": "domain and disks removed",
    "confirm": "state confirmed",
}


def target_of(assignment: VmAssignment) -> Known:
    """The state that an assignment wishes."""
    return "absent" if assignment.ended else assignment.power


def state_of(observed: Observed | None) -> Known:
    return "absent" if observed is None else observed.state


def states_on(path: tuple[Milestone, ...], origin: Known) -> frozenset[Known]:
    """The states that the agent itself brings about on a path: seeing one of them is no drift."""
    return frozenset({origin, *(LEADS_TO[m] for m in path if m in LEADS_TO)})
