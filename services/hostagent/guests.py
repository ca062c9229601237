"""Asking every running guest's agent in its own time: one that hangs costs the others nothing.

Each guest is asked by a task of its own, a bounded number at once, with a limit per command and per
round; one that does not answer is asked ever less often. What comes in is kept for the next telemetry
frame, and told as `vm.guest_changed` when it differs from what was known.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from chassis.clock import within
from chassis.service import Clock
from schemas import events
from schemas.ids import VmId
from schemas.resources import GuestFacts
from schemas.telemetry import GuestSample
from services.hostagent import guest_agent
from services.hostagent.host_sample import CpuTimes
from services.hostagent.hypervisor import (
    Hypervisor,
    HypervisorFailure,
    HypervisorUnavailable,
)
from services.hostagent.journal import Journal
from services.hostagent.keeper import Keeper
from services.hostagent.model import Utterance
from services.hostagent.outbox import Voice
from services.hostagent.settings import GuestAgentSettings

log = structlog.get_logger(__name__)

LOOK_S = 0.5
"""How often it is looked who is due."""


class Round(Struct, frozen=True, kw_only=True):
    """What one round brought."""

    answers: dict[str, Any]
    files: dict[str, str]
    error: str = ""


class Guest:
    """One running guest, as far as asking it goes."""

    def __init__(self, now_s: float) -> None:
        self.since_s = now_s
        self.due_s = now_s
        self.silences = 0
        self.asking = False
        self.times: CpuTimes | None = None


class Guests:
    """All running guests of the host."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        keeper: Keeper,
        journal: Journal,
        voice: Voice,
        clock: Clock,
        settings: GuestAgentSettings,
    ) -> None:
        self._hypervisor = hypervisor
        self._keeper = keeper
        self._journal = journal
        self._voice = voice
        self._clock = clock
        self._settings = settings
        self._guests: dict[VmId, Guest] = {}
        self._known: dict[VmId, tuple[int, GuestFacts]] = {}
        self._samples: dict[VmId, GuestSample] = {}
        self._slots = asyncio.Semaphore(settings.concurrency)

    async def load(self) -> None:
        """Take up what was known of guests before the agent was restarted."""
        self._known = await self._journal.guests()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for vm, guest in self._due():
                    guest.asking = True
                    group.create_task(self._ask(vm, guest), name=f"guest-{vm}")
                await self._clock.sleep(LOOK_S)

    def answers(self, vm: VmId) -> None:
        """The guest's agent has just connected: ask it now."""
        guest = self._guests.get(vm)
        if guest is None:
            self._guests[vm] = Guest(self._clock.monotonic())
        else:
            guest.since_s = guest.due_s = self._clock.monotonic()
            guest.silences = 0

    def take(self, most: int) -> tuple[GuestSample, ...]:
        """The samples that came in since, each once; what is over `most` comes with the next frame."""
        taken = sorted(self._samples)[:most]
        return tuple(self._samples.pop(vm) for vm in taken)

    def _due(self) -> list[tuple[VmId, Guest]]:
        now_s = self._clock.monotonic()
        running = {vm for vm, record in self._keeper.known().items() if record.known == "running"}
        for vm in sorted(set(self._guests) - running):
            del self._guests[vm]
        for vm in sorted(running - set(self._guests)):
            self._guests[vm] = Guest(now_s)
        return [
            (vm, guest)
            for vm, guest in sorted(self._guests.items())
            if not guest.asking and guest.due_s <= now_s
        ]

    async def _ask(self, vm: VmId, guest: Guest) -> None:
        try:
            async with self._slots:
                told = await self._round(vm)
            await self._take_in(vm, guest, told)
        finally:
            guest.asking = False

    async def _take_in(self, vm: VmId, guest: Guest, told: Round) -> None:
        sample, guest.times = guest_agent.sample_of(
            vm, self._clock.now(), told.answers, told.files, before=guest.times, error=told.error
        )
        facts = guest_agent.facts_of(sample)
        guest.silences = guest.silences + 1 if told.error else 0
        guest.due_s = self._clock.monotonic() + self._pause_s(guest, facts)
        self._samples[vm] = sample
        if not told.error:
            await self._tell(vm, facts)

    def _pause_s(self, guest: Guest, facts: GuestFacts) -> float:
        settings = self._settings
        young = self._clock.monotonic() - guest.since_s < settings.eager_for_s
        if young and not facts.addresses:
            return settings.eager_interval_s
        pause_s = settings.interval_s * 2 ** min(guest.silences, 16)
        return float(min(pause_s, max(settings.longest_pause_s, settings.interval_s)))

    async def _tell(self, vm: VmId, facts: GuestFacts) -> None:
        changes, known = self._known.get(vm, (0, None))
        assignment = self._keeper.assignment(vm)
        if facts == known or assignment is None:
            return
        data = events.VmGuestChanged(vm=vm, host=assignment.host, guest=facts)
        name = f"vm.guest_changed/{changes + 1}"
        message = self._voice.of_vm(Utterance(name=name, data=data), assignment)
        await self._journal.guest_changed(vm, changes + 1, facts, message)
        self._known[vm] = (changes + 1, facts)

    async def _round(self, vm: VmId) -> Round:
        answers: dict[str, Any] = {}
        files: dict[str, str] = {}
        try:
            asking = self._ask_all(vm, answers, files)
            await within(self._clock, self._settings.budget_s, asking)
        except TimeoutError:
            error = f"the guest's agent took longer than {self._settings.budget_s:g} s"
        except (HypervisorFailure, HypervisorUnavailable, msgspec.MsgspecError) as failure:
            error = str(failure)
        else:
            error = ""
        return Round(answers=answers, files=files, error=error)

    async def _ask_all(self, vm: VmId, answers: dict[str, Any], files: dict[str, str]) -> None:
        answers["guest-info"] = await self._one(vm, "guest-info")
        enabled = guest_agent.enabled(answers["guest-info"])
        for name in guest_agent.COMMANDS[1:]:
            if name in enabled:
                await self._one_if_it_can(vm, name, answers)
        await self._read_files(vm, enabled, answers, files)

    async def _one(self, vm: VmId, name: str, **arguments: object) -> Any:
        raw = await self._hypervisor.ask_guest(
            vm, guest_agent.command(name, **arguments), timeout_s=self._settings.timeout_s
        )
        if len(raw) > self._settings.answer_bytes:
            raise HypervisorFailure(f"the answer to {name} is too long: {len(raw)} bytes")
        return guest_agent.answer(raw)

    async def _one_if_it_can(self, vm: VmId, name: str, answers: dict[str, Any]) -> None:
        try:
            answers[name] = await self._one(vm, name)
        except (HypervisorFailure, msgspec.MsgspecError) as failure:
            log.debug("guest_command_failed", vm=vm, command=name, error=str(failure))

    async def _read_files(
        self, vm: VmId, enabled: frozenset[str], answers: dict[str, Any], files: dict[str, str]
    ) -> None:
        """Numbers that no command gives. Reading a file is bounded, running a program is not."""
        if not {"guest-file-open", "guest-file-read", "guest-file-close"} <= enabled:
            return
        given = {"/proc/loadavg": "guest-get-load", "/proc/stat": "guest-get-cpustats"}
        for path in guest_agent.FILES:
            if given.get(path) in answers:
                continue
            try:
                files[path] = await self._read_file(vm, path)
            except (HypervisorFailure, msgspec.MsgspecError) as failure:
                log.debug("guest_file_failed", vm=vm, path=path, error=str(failure))

    async def _read_file(self, vm: VmId, path: str) -> str:
        handle = await self._one(vm, "guest-file-open", path=path, mode="r")
        try:
            chunk = await self._one(
                vm, "guest-file-read", handle=handle, count=guest_agent.FILE_BYTES
            )
        finally:
            await self._one(vm, "guest-file-close", handle=handle)
        return guest_agent.file_text(chunk)
