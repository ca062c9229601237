"""Keeping every VM of the host as assigned: one worker per VM, woken by anything, told nothing.

A wake-up carries no data: the worker looks, plans and executes until there is nothing left to do. So
a new assignment, a notice of libvirt, a restart of the agent and a lost message all take one path.
What is decided stands in `plan.py`; here is only when to look, and what to do when looking fails.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import structlog
from msgspec.structs import replace

from chassis.clock import within
from schemas import events
from schemas.actions import RebootVmOnce
from schemas.assignments import VmAssignment
from schemas.ids import VmId
from schemas.problems import Problem, conflict, not_found
from services.hostagent.executor import Means, Run, Slow, execute, hand_in, runs, say
from services.hostagent.hypervisor import HypervisorFailure, HypervisorUnavailable
from services.hostagent.model import (
    Move,
    Plan,
    Record,
    Say,
    Utterance,
)
from services.hostagent.plan import give_up, host_refused, plan, restart_delay_s
from services.hostagent.settings import RetrySettings

log = structlog.get_logger(__name__)

ROUNDS = 16
"""A VM that still needs something after so many plans in a row is looked at again later."""
ROUNDS_AGAIN_S = 5.0


class _Superseded(Exception):
    """A newer assignment has come: what is left of this plan is void."""


class Case:
    """One VM's assignment and record, and what only lives as long as the process."""

    def __init__(self, assignment: VmAssignment, record: Record) -> None:
        self.assignment = assignment
        self.record = record
        self.news = asyncio.Event()
        self.rebooted = asyncio.Event()
        self.working = False
        self.lock = asyncio.Lock()
        self.attempts = 0
        self.mends = 0
        self.mended_at = float("-inf")


class Keeper:
    """All VMs that are assigned to this host."""

    def __init__(self, means: Means, retry: RetrySettings) -> None:
        self._means = means
        self._retry = retry
        self._cases: dict[VmId, Case] = {}
        self._group: asyncio.TaskGroup | None = None

    async def load(self) -> None:
        """Take up what the journal holds. What was given up once gets another chance."""
        for assignment, record in await self._means.journal.load():
            self._cases[assignment.vm] = Case(assignment, _fresh(record))
            self.wake(assignment.vm)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for vm in sorted(self._cases):
                self.wake(vm)
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    # what comes in

    async def accept(self, assignment: VmAssignment) -> bool:
        """A newer generation is put on disk and worked on; anything else changes nothing."""
        case = self._cases.get(assignment.vm)
        if case is not None and case.assignment.generation >= assignment.generation:
            return False
        superseded = None
        if case is not None:
            superseded = self._means.voice.of_vm(_superseded_by(assignment), case.assignment)
        if not await self._means.journal.accept(assignment, superseded):
            return False
        if case is None:
            case = self._cases[assignment.vm] = Case(assignment, Record(vm=assignment.vm))
        case.assignment = assignment
        case.attempts = case.mends = 0
        self.wake(assignment.vm)
        return True

    async def forget(self, vm: VmId) -> None:
        """The assignment is gone from FLEET: forget it if its end was confirmed, else keep it."""
        if await self._means.journal.forget(vm):
            self._cases.pop(vm, None)
        else:
            log.warning("assignment_missing_but_not_ended", vm=vm)

    def wake(self, vm: VmId) -> None:
        """Look at this VM, now or as soon as its worker is free."""
        case = self._cases.get(vm)
        if case is None:
            return
        case.news.set()
        if self._group is not None and not case.working:
            case.working = True
            self._group.create_task(self._work(case), name=f"vm-{vm}")

    def wake_all(self) -> None:
        """Nothing that was known may be relied on; what was given up gets another chance."""
        for vm, case in sorted(self._cases.items()):
            if not case.lock.locked():
                case.record = _fresh(case.record)
            case.attempts = 0
            self.wake(vm)

    def rebooted(self, vm: VmId) -> None:
        if vm in self._cases:
            self._cases[vm].rebooted.set()

    # what can be asked

    def assignment(self, vm: VmId) -> VmAssignment | None:
        case = self._cases.get(vm)
        return None if case is None else case.assignment

    def known(self) -> dict[VmId, Record]:
        """The record of every VM assigned here."""
        return {vm: case.record for vm, case in sorted(self._cases.items())}

    def is_settled(self) -> bool:
        """Whether no worker has anything left to do."""
        return not any(case.working or case.news.is_set() for case in self._cases.values())

    # actions

    async def reboot(self, action: RebootVmOnce, *, patience_s: float) -> Problem | None:
        """Reboot a guest once, and wait until it does. None when it did, else why not."""
        case = self._cases.get(action.vm)
        if case is None or case.assignment.ended:
            return not_found("VM", action.vm)
        async with case.lock:
            if case.record.known != "running":
                return conflict(
                    f"The VM is {case.record.known}; only a running one can be rebooted."
                )
            case.rebooted.clear()
            try:
                async with self._means.slots:
                    await self._means.hypervisor.reboot(action.vm, action.mode)
            except HypervisorFailure as failure:
                return host_refused(case.assignment.host, str(failure))
            if await self._first(case.rebooted, patience_s) == "news":
                return None
        return guest_failed(f"The guest did not reboot within {patience_s:g} s.")

    # one VM

    async def _work(self, case: Case) -> None:
        try:
            while case.news.is_set():
                case.news.clear()
                async with case.lock:
                    again_in_s = await self._settle(case)
                if again_in_s is not None:
                    await self._first(case.news, again_in_s)
                    case.news.set()
        finally:
            case.working = False

    async def _settle(self, case: Case) -> float | None:
        """Look, plan, execute, until nothing is left; answers when to look again, if at all."""
        for _ in range(ROUNDS):
            # Whatever has happened so far is seen by looking now.
            case.news.clear()
            assignment = case.assignment
            try:
                observed = await self._means.hypervisor.observe(assignment.vm)
                todo = plan(assignment, case.record, observed, mend_in_s=self._mend_in_s(case))
                await self._carry_out(case, assignment, todo)
            except _Superseded:
                continue
            except HypervisorUnavailable as unavailable:
                return await self._try_again(case, assignment, str(unavailable))
            except HypervisorFailure as failure:
                if (again_in_s := await self._give_up(case, assignment, str(failure))) is not None:
                    return again_in_s
                continue
            case.attempts = 0
            if todo.again_in_s is not None or not todo.steps:
                return todo.again_in_s
            if todo.settles and not case.news.is_set():
                # Whatever happens to the domain from now on is noticed.
                return None
        log.warning("vm_unsettled", vm=case.assignment.vm, rounds=ROUNDS)
        return ROUNDS_AGAIN_S

    async def _carry_out(self, case: Case, assignment: VmAssignment, todo: Plan) -> None:
        if todo.mends:
            case.mends += 1
            case.mended_at = self._means.clock.monotonic()
        for step in runs(todo.steps):
            if isinstance(step, Say):
                await self._say(case, assignment, step, last=step is todo.steps[-1])
            elif case.assignment is not assignment:
                raise _Superseded
            elif isinstance(step, Slow):
                await execute(step, assignment, self._means, lambda s: self._stopped(case, s))
            else:
                await self._make(case, assignment, step)

    async def _make(self, case: Case, assignment: VmAssignment, steps: list[Move | Say]) -> None:
        run = Run(steps, assignment, self._means, lambda: case.assignment is assignment)
        try:
            await run.make()
        finally:
            case.record = run.record or case.record
        if run.left:
            raise _Superseded

    async def _say(self, case: Case, assignment: VmAssignment, step: Say, *, last: bool) -> None:
        if step.again:
            hand_in(step, assignment, self._means)
        elif step.utterances or last:
            await say(step, assignment, self._means)
        # What is not on disk yet goes there with the next words: a restart finds out the same again.
        case.record = step.record
        if step.utterances and not step.again:
            told = [one.name for one in step.utterances]
            log.info("told", vm=assignment.vm, what=told, operation=assignment.operation)

    async def _try_again(self, case: Case, assignment: VmAssignment, reason: str) -> float | None:
        """The hypervisor does not answer. An operation waits so long and no longer; a VM that is as
        it was assigned can wait for ever."""
        case.attempts += 1
        pending = assignment.generation > case.record.generation
        log.warning("hypervisor_waits", vm=assignment.vm, error=reason, attempt=case.attempts)
        if pending and case.attempts >= self._retry.attempts:
            detail = f"the hypervisor did not answer: {reason}"
            await self._carry_out(case, assignment, give_up(assignment, case.record, detail))
        return _backoff_s(
            case.attempts, first_s=self._retry.first_s, longest_s=self._retry.longest_s
        )

    async def _give_up(self, case: Case, assignment: VmAssignment, detail: str) -> float | None:
        """It was refused. An operation ends with that; a mending is tried again, ever less often."""
        log.warning("vm_failed", vm=assignment.vm, detail=detail, operation=assignment.operation)
        pending = assignment.generation > case.record.generation
        try:
            observed = await self._means.hypervisor.observe(assignment.vm)
            todo = give_up(assignment, case.record, detail, undo=observed is None)
            await self._carry_out(case, assignment, todo)
        except HypervisorUnavailable as unavailable:
            return await self._try_again(case, assignment, str(unavailable))
        except _Superseded:
            return None
        if pending:
            return None
        case.record = _fresh(case.record)
        return self._mend_in_s(case) or self._retry.restart_first_s

    def _mend_in_s(self, case: Case) -> float:
        since_s = self._means.clock.monotonic() - case.mended_at
        if since_s > self._retry.restart_calm_s:
            case.mends = 0
        delay_s = restart_delay_s(
            case.mends,
            base_s=self._retry.restart_first_s,
            longest_s=self._retry.restart_longest_s,
        )
        return max(0.0, delay_s - since_s) if case.mends else 0.0

    async def _stopped(self, case: Case, seconds: float) -> bool:
        """Wait up to `seconds` for the domain to stop. A newer assignment ends the waiting."""
        vm, assignment = case.assignment.vm, case.assignment
        deadline = self._means.clock.monotonic() + seconds
        while True:
            case.news.clear()
            observed = await self._means.hypervisor.observe(vm)
            if observed is None or observed.state == "stopped":
                return True
            left_s = deadline - self._means.clock.monotonic()
            if left_s <= 0:
                return False
            await self._first(case.news, left_s)
            if case.assignment is not assignment:
                case.news.set()
                raise _Superseded

    async def _first(self, event: asyncio.Event, seconds: float) -> Literal["news", "time"]:
        """Wait for an event or for the time to pass, by the agent's clock."""
        try:
            await within(self._means.clock, seconds, event.wait())
        except TimeoutError:
            return "time"
        return "news"


def guest_failed(detail: str) -> Problem:
    return Problem(
        type="urn:vireo:problem:guest-failed",
        title="The guest did not do as it was asked",
        status=502,
        detail=detail,
    )


def _superseded_by(assignment: VmAssignment) -> Utterance:
    problem = conflict(f"A newer wish (operation {assignment.operation}) took its place.")
    return Utterance(name="operation.failed", data=events.OperationFailed(problem=problem))


def _fresh(record: Record) -> Record:
    return replace(record, failed="") if record.known != "absent" else record


def _backoff_s(attempts: int, *, first_s: float, longest_s: float) -> float:
    return float(min(first_s * 2 ** min(attempts - 1, 32), longest_s))
