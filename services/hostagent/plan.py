"""What to do about one VM: assignment, record and observation in, steps out. Pure.

Two cases. A generation that is not settled yet is *carried out*: the milestones between the state that
was known when it came and the wished one, each followed by its events. A settled one is *watched over*:
what differs is told as a drift, then mended.

Running the same plan twice, or after a crash between any two of its steps, ends in the same state with
the same events: effects are planned from what is observed, events from what is on record, and event
ids follow from the operation.
"""

from __future__ import annotations

from typing import TypedDict

from msgspec.structs import replace

from schemas import events
from schemas.assignments import VmAssignment
from schemas.problems import Problem
from services.hostagent.model import (
    DETAILS,
    LEADS_TO,
    NOTHING,
    PATHS,
    AskToStop,
    CreateDisk,
    Define,
    Destroy,
    Known,
    Milestone,
    Observed,
    Pause,
    Plan,
    Record,
    RemoveDisks,
    Resume,
    Say,
    Stamp,
    Start,
    Step,
    Undefine,
    Utterance,
    WriteSeed,
    state_of,
    states_on,
    target_of,
)

BUSY_AGAIN_S = 1.0
"""How soon to look again at a domain that the hypervisor itself is working on."""
UNDEFINED = "undefined"


def plan(
    assignment: VmAssignment, record: Record, observed: Observed | None, *, mend_in_s: float = 0.0
) -> Plan:
    """The steps towards `assignment`. `mend_in_s`: how long a drift has still to wait to be mended."""
    if assignment.generation < record.generation:
        return NOTHING
    if observed is not None and observed.busy:
        return Plan(again_in_s=BUSY_AGAIN_S)
    if observed is not None and not observed.ours and record.known == "absent":
        return _refuse(assignment, record)
    if assignment.generation > record.generation:
        return _carry_out(assignment, record, observed)
    return _watch(assignment, record, observed, mend_in_s=mend_in_s)


def give_up(assignment: VmAssignment, record: Record, detail: str, *, undo: bool = False) -> Plan:
    """The steps when an assignment cannot be carried out.

    `undo` says that no domain is there. Disks are removed only where, besides, the VM never existed:
    nothing but this attempt can have made them.
    """
    failed = replace(
        record, generation=assignment.generation, pending=assignment.generation, failed=detail
    )
    said: tuple[Utterance, ...] = (
        _vm(record, "failed", events.VmFailed(**_of(assignment), detail=detail)),
    )
    if assignment.generation > record.generation:
        said += (
            Utterance(
                name="operation.failed",
                data=events.OperationFailed(problem=host_refused(assignment.host, detail)),
            ),
        )
    removal: tuple[Step, ...] = ()
    if undo and record.generation == 0 and record.origin == record.known == "absent":
        removal = (RemoveDisks(assignment.vm),)
    return Plan(steps=(*removal, Say(record=failed, utterances=said)))


def host_refused(host: str, detail: str) -> Problem:
    return Problem(
        type="urn:vireo:problem:host-refused",
        title="The host could not carry it out",
        status=502,
        detail=detail,
        reasons={host: detail},
    )


def restart_delay_s(mends: int, *, base_s: float, longest_s: float) -> float:
    """How long the next mending waits after `mends` in a row: the first comes at once."""
    if mends == 0:
        return 0.0
    return float(min(base_s * 2 ** min(mends - 1, 32), longest_s))


def _refuse(assignment: VmAssignment, record: Record) -> Plan:
    if assignment.generation == record.generation:
        return NOTHING
    detail = "a domain with this id exists that Vireo did not make"
    return give_up(assignment, record, detail)


# a generation that is not settled yet


def _carry_out(assignment: VmAssignment, record: Record, observed: Observed | None) -> Plan:
    steps: list[Step] = []
    if record.pending != assignment.generation:
        record = replace(
            record, pending=assignment.generation, origin=record.known, failed="", noticed=""
        )
        steps.append(Say(record=record))
    target = target_of(assignment)
    at, shown = state_of(observed), _shown(record, observed)
    expected = states_on(PATHS[record.origin, target], record.origin)
    if shown not in expected and shown != record.known:
        record, said = _noticed(assignment, record, observed)
        record = replace(record, origin=shown)
        steps.append(Say(record=record, utterances=said))
    steps += _mark(assignment, observed)
    path = PATHS[record.origin, target]
    for number, milestone in enumerate(path, start=1):
        effects, at = _effects(milestone, assignment, at)
        steps += effects
        if number == len(path) and any(isinstance(one, AskToStop) for one in effects):
            # Whether the guest did as it was asked is only seen afterwards.
            return Plan(steps=tuple(steps))
        detail = _detail(milestone, assignment, observed)
        said, record = _reached(
            assignment, record, milestone, number=number, of=len(path), detail=detail
        )
        steps.append(Say(record=record, utterances=said, again=number < len(path)))
    return Plan(steps=tuple(steps), settles=True)


def _mark(assignment: VmAssignment, observed: Observed | None) -> list[Step]:
    """Bring an existing domain to this generation: its metadata, or all of its definition.

    A definition that is out of date is left so until the guest is to start: to what runs it does nothing
    but what could go wrong."""
    if observed is None:
        return []
    if not observed.ours:
        return [Define(assignment)]
    if assignment.ended:
        return []
    if observed.outdated and observed.state == "stopped" and target_of(assignment) != "stopped":
        return [Define(assignment)]
    if observed.generation == assignment.generation:
        return []
    same = observed.spec == assignment.spec and observed.persistent
    return [Stamp(assignment) if same else Define(assignment)]


def _effects(
    milestone: Milestone, assignment: VmAssignment, at: Known
) -> tuple[tuple[Step, ...], Known]:
    """What a milestone needs, seen from the state `at`; and the state after it."""
    if milestone == "disks":
        return _disks(assignment) if at == "absent" else (), at
    if milestone == "define" and at != "absent":
        return (), at
    if milestone == "stop" and at == "absent" and assignment.ended:
        return (), at
    to = target_of(assignment) if milestone == "confirm" else LEADS_TO[milestone]
    return _moves(assignment, at, to), to


def _disks(assignment: VmAssignment) -> tuple[Step, ...]:
    seed = (WriteSeed(assignment),) if assignment.spec.seeded else ()
    return (*(CreateDisk(assignment.vm, disk) for disk in assignment.spec.disks), *seed)


def _moves(assignment: VmAssignment, at: Known, to: Known) -> tuple[Step, ...]:
    """The effects that lead from one state to another."""
    vm = assignment.vm
    if to == "absent":
        remove = (RemoveDisks(vm),) if at == "absent" else (Undefine(vm), RemoveDisks(vm))
        return (*_moves(assignment, at, "stopped"), *remove) if at != "absent" else remove
    if at == to:
        return ()
    if at == "absent":
        return (Define(assignment), *_moves(assignment, "stopped", to))
    if at == "stopped":
        return (Start(vm), *_moves(assignment, "running", to))
    if to == "stopped":
        return _stop(assignment, at)
    return (Pause(vm),) if to == "paused" else (Resume(vm),)


def _stop(assignment: VmAssignment, at: Known) -> tuple[Step, ...]:
    vm = assignment.vm
    if assignment.stop_mode == "forced":
        return (Destroy(vm),)
    # A paused guest cannot hear that it is asked to shut down.
    wake = (Resume(vm),) if at == "paused" else ()
    return (*wake, AskToStop(vm, assignment.grace_s), Destroy(vm))


def _reached(
    assignment: VmAssignment,
    record: Record,
    milestone: Milestone,
    *,
    number: int,
    of: int,
    detail: str,
) -> tuple[tuple[Utterance, ...], Record]:
    """The events of a milestone and the record after it; the last one settles the generation.

    A milestone with a fact of its own is told by that one; only one without is told as progress.
    """
    fact = _fact(assignment, milestone)
    said = [] if fact is None else [_vm(record, *fact)]
    if fact is None and number < of:
        name = _name(record, f"operation.progressed/{milestone}")
        progress = events.OperationProgressed(step=number, of=of, detail=detail)
        said.append(Utterance(name=name, data=progress))
    known = LEADS_TO.get(milestone, record.known)
    if milestone == "define" and record.known != "absent":
        known = record.known
    record = replace(record, known=known)
    if number == of:
        done = events.OperationSucceeded(detail=detail)
        said.append(Utterance(name="operation.succeeded", data=done))
        record = replace(record, generation=assignment.generation, failed="", noticed="")
    return tuple(said), record


def _detail(milestone: Milestone, assignment: VmAssignment, observed: Observed | None) -> str:
    """A milestone in words. A guest that was to shut down by itself may have run out of time."""
    asked = milestone == "stop" and assignment.stop_mode == "graceful"
    if asked and observed is not None and observed.state == "stopped":
        if observed.cause == "guest":
            return "guest shut down"
        if observed.cause == "host":
            return f"guest cut off: it had not shut down within {assignment.grace_s:g} s"
    return DETAILS[milestone]


def _fact(assignment: VmAssignment, milestone: Milestone) -> tuple[str, events.VmEvent] | None:
    of = _of(assignment)
    match milestone:
        case "define":
            return "defined", events.VmDefined(**of)
        case "start":
            return "started", events.VmStarted(**of)
        case "pause":
            return "paused", events.VmPaused(**of)
        case "resume":
            return "resumed", events.VmResumed(**of)
        case "stop":
            return "stopped", events.VmStopped(**of, reason="wish")
        case "remove":
            return "deleted", events.VmDeleted(**of)
        case "disks" | "confirm":
            return None


# a settled generation


def _watch(
    assignment: VmAssignment, record: Record, observed: Observed | None, *, mend_in_s: float
) -> Plan:
    target = target_of(assignment)
    if record.known == "absent" and target == "absent":
        # Deleted and told. Whatever carries this id now was made by somebody else.
        return NOTHING
    steps: list[Step] = []
    at = state_of(observed)
    undefined = observed is None and target != "absent" and record.noticed != UNDEFINED
    if _shown(record, observed) != record.known or (undefined and record.known != "absent"):
        record, said = _noticed(assignment, record, observed)
        steps.append(Say(record=record, utterances=said))
    done = at == record.known == target
    if done and record.failed:
        record = replace(record, failed="")
        steps.append(Say(record=record))
    if record.failed:
        return Plan(steps=tuple(steps))
    if observed is not None and target != "absent":
        redefinition, record = _redefine(assignment, record, observed)
        steps += redefinition
    if done:
        return Plan(steps=tuple(steps))
    if mend_in_s > 0:
        return Plan(steps=tuple(steps), again_in_s=mend_in_s)
    steps += _moves(assignment, at, target)
    steps.append(_mended(assignment, record, at=at, to=target))
    return Plan(steps=tuple(steps), mends=True)


def _shown(record: Record, observed: Observed | None) -> Known:
    """The state of the VM, not of its domain: one that was undefined by hand is a stopped VM whose
    disks are still there. Only a VM that never was, or was deleted, is absent."""
    if observed is None:
        return "absent" if record.known == "absent" else "stopped"
    return observed.state


def _noticed(
    assignment: VmAssignment, record: Record, observed: Observed | None
) -> tuple[Record, tuple[Utterance, ...]]:
    """The VM is found otherwise than was told last: what happened, and that it is a drift."""
    shown, before = _shown(record, observed), record.known
    record = replace(
        record,
        known=shown,
        incidents=record.incidents + 1,
        noticed=UNDEFINED if observed is None else "",
    )
    said = [] if shown == before else [_vm(record, *_happened(assignment, observed))]
    expected, at = target_of(assignment), state_of(observed)
    if at != expected:
        found = f"{at}: {observed.detail}" if observed is not None and observed.detail else at
        drift = events.VmDrifted(**_of(assignment), expected=expected, found=found)
        said.append(_vm(record, "drifted", drift))
    return record, tuple(said)


def _happened(assignment: VmAssignment, observed: Observed | None) -> tuple[str, events.VmEvent]:
    of = _of(assignment)
    if observed is None:
        return "stopped", events.VmStopped(**of, reason="host")
    if observed.state == "running":
        return "started", events.VmStarted(**of)
    if observed.state == "paused":
        return "paused", events.VmPaused(**of)
    if observed.cause == "crashed":
        detail = observed.detail or "the guest stopped without shutting down"
        return "crashed", events.VmCrashed(**of, detail=detail)
    return "stopped", events.VmStopped(**of, reason=observed.cause)


def _redefine(
    assignment: VmAssignment, record: Record, observed: Observed
) -> tuple[list[Step], Record]:
    """Mend a definition that was changed by hand; a running guest gets it at its next start."""
    found = _wrong_definition(assignment, observed)
    if not found:
        return _mark(assignment, observed), record
    steps: list[Step] = []
    if record.noticed != found:
        record = replace(record, noticed=found, incidents=record.incidents + 1)
        expected = _definition(assignment.spec.cpus, assignment.spec.memory_mib)
        drift = events.VmDrifted(**_of(assignment), expected=expected, found=found)
        steps.append(Say(record=record, utterances=(_vm(record, "drifted", drift),)))
    record = replace(record, noticed="")
    return [*steps, Define(assignment), Say(record=record)], record


def _wrong_definition(assignment: VmAssignment, observed: Observed) -> str:
    if not observed.ours:
        return "no metadata of Vireo's"
    if not observed.persistent:
        return "no persistent definition"
    wished = _definition(assignment.spec.cpus, assignment.spec.memory_mib)
    found = _definition(observed.cpus, observed.memory_mib)
    return "" if not observed.cpus or found == wished else found


def _definition(cpus: int, memory_mib: int) -> str:
    return f"defined with {cpus} CPUs and {memory_mib} MiB"


def _mended(assignment: VmAssignment, record: Record, *, at: Known, to: Known) -> Say:
    milestone = PATHS[at, to][-1]
    fact = _fact(assignment, milestone)
    said = () if fact is None else (_vm(record, f"mended/{fact[0]}", fact[1]),)
    return Say(record=replace(record, known=to, noticed=""), utterances=said)


class _Of(TypedDict):
    vm: str
    host: str
    generation: int


def _of(assignment: VmAssignment) -> _Of:
    return _Of(vm=assignment.vm, host=assignment.host, generation=assignment.generation)


def _vm(record: Record, name: str, data: events.VmEvent) -> Utterance:
    return Utterance(name=_name(record, f"vm.{name}"), data=data)


def _name(record: Record, name: str) -> str:
    """Unlike for each incident: the same thing may happen again under one operation."""
    return f"{name}/{record.incidents}" if record.incidents else name
