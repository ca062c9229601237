"""What every running guest says of itself: pushed by Vireo's guest agent, or asked of QEMU's.

A guest that pushes is not asked, so that its numbers have one source at a time; once it has been silent
for some intervals, QEMU's agent serves again. Each guest is asked by a task of its own, a bounded number
at once, with a limit per command and per round; one that does not answer is asked ever less often. What
comes in is kept for the next telemetry frame, and told as `vm.guest_changed` when it differs from what was
known.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from chassis.clock import within
from chassis.service import Clock
from schemas import events, wire
from schemas.guest_frames import SHORTEST_S, GuestFrame
from schemas.ids import VmId
from schemas.resources import GuestFacts
from schemas.telemetry import GuestSample
from services.hostagent import guest_agent, guest_frames
from services.hostagent.guest_frames import bucket
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
PATIENCE = 3
"""After so many intervals without a frame, a guest that pushed is asked."""
FACTS_BURST = 5


class Round(Struct, frozen=True, kw_only=True):
    """What one round brought."""

    answers: dict[str, Any]
    files: dict[str, str]
    error: str = ""


class Guest:
    """One running guest, as far as asking it goes."""

    def __init__(self, now_s: float, facts_per_s: float) -> None:
        self.since_s = now_s
        self.due_s = now_s
        self.silences = 0
        self.asking = False
        self.pushes_until_s = 0.0
        """Until then its own agent's frames are what counts."""
        self.times: CpuTimes | None = None
        self.pushed_times: CpuTimes | None = None
        self.facts = bucket(facts_per_s, FACTS_BURST, now_s)
        """Changes of its facts: each is an event, and kept for ever."""


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
            self._guests[vm] = self._new()
        else:
            guest.since_s = guest.due_s = self._clock.monotonic()
            guest.silences = 0

    async def pushed(self, vm: VmId, frame: GuestFrame) -> float | None:
        """A frame of a guest's own agent. Answers how often it is to push from now on; None where no
        such guest runs."""
        guest = self._guests.get(vm)
        if guest is None or vm not in self.running():
            return None
        sample, guest.pushed_times = guest_frames.sample_of(
            vm, self._clock.now(), frame, before=guest.pushed_times
        )
        facts = guest_agent.facts_of(sample)
        wanted_s = self._settings.push.interval_s
        if self._is_eager(guest, facts):
            wanted_s = min(wanted_s, self._settings.eager_interval_s)
        guest.pushes_until_s = self._clock.monotonic() + PATIENCE * self._settings.push.interval_s
        guest.silences = 0
        self._samples[vm] = sample
        await self._tell(vm, guest, facts)
        return max(wanted_s, SHORTEST_S)

    def running(self) -> frozenset[VmId]:
        """The VMs whose guests may have something to say."""
        known = self._keeper.known().items()
        return frozenset(vm for vm, record in known if record.known == "running")

    def take(self, most: int, most_bytes: int) -> tuple[GuestSample, ...]:
        """The samples that came in since, each once, whose turn is longest due first; what is over
        `most` or `most_bytes` comes with the next frame."""
        taken: list[GuestSample] = []
        size = 0
        for vm, sample in list(self._samples.items())[:most]:
            size += len(wire.encode(sample))
            if size > most_bytes and taken:
                break
            taken.append(self._samples.pop(vm))
        return tuple(taken)

    def _new(self) -> Guest:
        return Guest(self._clock.monotonic(), self._settings.push.facts_per_s)

    def _due(self) -> list[tuple[VmId, Guest]]:
        now_s = self._clock.monotonic()
        running = self.running()
        for vm in sorted(set(self._guests) - running):
            del self._guests[vm]
        for vm in sorted(running - set(self._guests)):
            self._guests[vm] = self._new()
        return [
            (vm, guest)
            for vm, guest in sorted(self._guests.items())
            if not guest.asking and max(guest.due_s, guest.pushes_until_s) <= now_s
        ]

    async def _ask(self, vm: VmId, guest: Guest) -> None:
        try:
            async with self._slots:
                told = await self._round(vm)
            await self._take_in(vm, guest, told)
        finally:
            guest.asking = False

    async def _take_in(self, vm: VmId, guest: Guest, told: Round) -> None:
        if guest.pushes_until_s > self._clock.monotonic():
            # Its own agent has begun to speak while QEMU's was being asked.
            return
        sample, guest.times = guest_agent.sample_of(
            vm, self._clock.now(), told.answers, told.files, before=guest.times, error=told.error
        )
        facts = guest_agent.facts_of(sample)
        guest.silences = guest.silences + 1 if told.error else 0
        guest.due_s = self._clock.monotonic() + self._pause_s(guest, facts)
        self._samples[vm] = sample
        if not told.error:
            await self._tell(vm, guest, facts)

    def _pause_s(self, guest: Guest, facts: GuestFacts) -> float:
        settings = self._settings
        if self._is_eager(guest, facts):
            return settings.eager_interval_s
        pause_s = settings.interval_s * 2 ** min(guest.silences, 16)
        return float(min(pause_s, max(settings.longest_pause_s, settings.interval_s)))

    def _is_eager(self, guest: Guest, facts: GuestFacts) -> bool:
        young = self._clock.monotonic() - guest.since_s < self._settings.eager_for_s
        return young and not facts.addresses

    async def _tell(self, vm: VmId, guest: Guest, facts: GuestFacts) -> None:
        changes, known = self._known.get(vm, (0, None))
        assignment = self._keeper.assignment(vm)
        if facts == known or assignment is None:
            return
        guest.facts = guest.facts.after(self._clock.monotonic())
        if guest.facts.overdrawn:
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
