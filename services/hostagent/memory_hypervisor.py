"""A hypervisor in memory: for tests and for machines without libvirt. Guests are make-believe.

It passes the same contract suite as the libvirt one. Beyond the Protocol it has what a person could
do to a domain by hand (`tamper_*`, `guest_*`), so that drift can be acted out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from chassis.clock import SystemClock, within
from chassis.service import Clock
from schemas.assignments import VmAssignment
from schemas.ids import VmId
from schemas.resources import DiskSpec, ForeignDomain, StopMode
from schemas.telemetry import VmColumns
from services.hostagent import seeds
from services.hostagent.hypervisor import (
    Around,
    Changed,
    Claimed,
    Connected,
    Description,
    Disconnected,
    HypervisorFailure,
    HypervisorUnavailable,
    Notice,
    Rebooted,
    Survey,
    freely,
)
from services.hostagent.model import (
    Define,
    Destroy,
    Move,
    Observed,
    Pause,
    Power,
    Resume,
    Stamp,
    Start,
    StopCause,
    Undefine,
)


class Domain(Struct, frozen=True, kw_only=True):
    """What this hypervisor knows of one domain: the observation, and how often it was started."""

    seen: Observed
    starts: int = 0


class MemoryHypervisor:
    """Keeps its domains and disks as long as the object lives: longer than the agent under test."""

    def __init__(
        self,
        *,
        images: tuple[str, ...] = ("tiny",),
        obedient: bool = True,
        clock: Clock | None = None,
        patience_s: float = 60,
    ) -> None:
        self.domains: dict[VmId, Domain] = {}
        self.disks: dict[tuple[VmId, str], DiskSpec] = {}
        self.seeds: dict[VmId, dict[str, str]] = {}
        """Name to content of the files for cloud-init."""
        self.foreign: tuple[ForeignDomain, ...] = ()
        self.log: list[str] = []
        self.answers = asyncio.Event()
        """Cleared: it hangs, and whoever calls it waits."""
        self.answers.set()
        self._images = images
        self.obedient = obedient
        """Whether guests do what they are asked for."""
        self._clock = clock or SystemClock()
        self._patience_s = patience_s
        self._listeners: list[Callable[[Notice], None]] = []
        self._up = True

    @property
    def connected(self) -> bool:
        return self._up

    @property
    def pools(self) -> Mapping[str, Path]:
        return {}

    @property
    def guests_speak(self) -> bool:
        return True

    def listen(self, listener: Callable[[Notice], None]) -> None:
        self._listeners.append(listener)

    async def run(self) -> None:
        self._tell(Connected())
        await asyncio.Event().wait()

    # what the agent asks for

    async def describe(self) -> Description:
        await self._reached()
        return Description(
            driver="MEMORY",
            domain_type="test",
            arch="x86_64",
            cpus=16,
            memory_mib=65_536,
            networks=("default",),
        )

    async def survey(self) -> Survey:
        await self._reached()
        ours = tuple(
            Claimed(vm=vm, state=domain.seen.state) for vm, domain in sorted(self.domains.items())
        )
        return Survey(ours=ours, foreign=self.foreign)

    async def observe(self, vm: VmId) -> Observed | None:
        await self._reached()
        domain = self.domains.get(vm)
        return None if domain is None else domain.seen

    async def create_disk(self, vm: VmId, disk: DiskSpec) -> None:
        await self._reached()
        if disk.image is not None and disk.image not in self._images:
            raise HypervisorFailure(f"image {disk.image!r} is not on this host")
        if disk.image is None and not disk.size_gib:
            raise HypervisorFailure(f"disk {disk.name!r} has neither an image nor a size")
        self.log.append(f"create_disk {disk.name}")
        self.disks.setdefault((vm, disk.name), disk)

    async def write_seed(self, assignment: VmAssignment) -> None:
        await self._reached()
        self.log.append("write_seed")
        if assignment.vm not in self.seeds:
            self.seeds[assignment.vm] = seeds.files_of(assignment)

    async def remove_disks(self, vm: VmId) -> None:
        await self._reached()
        if vm in self.domains:
            raise HypervisorFailure("the disks belong to a domain that is still there")
        self.log.append("remove_disks")
        for key in sorted(key for key in self.disks if key[0] == vm):
            del self.disks[key]
        self.seeds.pop(vm, None)

    async def move(self, moves: Sequence[Move], around: Around = freely) -> None:
        await self._reached()
        for move in moves:
            with around(move) as wanted:
                if not wanted:
                    return
                self._move(move)

    async def ask_to_stop(self, vm: VmId) -> None:
        await self._reached()
        domain = self._get(vm)
        self.log.append("ask_to_stop")
        if self.obedient and domain.seen.state == "running":
            self._halt(vm, "guest")

    async def reboot(self, vm: VmId, mode: StopMode) -> None:
        await self._reached()
        domain = self._get(vm)
        if domain.seen.state != "running":
            raise HypervisorFailure("the domain is not running")
        self.log.append(f"reboot {mode}")
        if self.obedient or mode == "forced":
            self._tell(Rebooted(domain=vm))

    async def sample(self) -> VmColumns:
        await self._reached()
        seen = [domain.seen for _, domain in sorted(self.domains.items())]
        return VmColumns(
            ids=tuple(one.vm for one in seen),
            state=tuple(one.state for one in seen),
            cpus=tuple(one.cpus for one in seen),
        )

    async def ask_guest(self, vm: VmId, command: bytes, *, timeout_s: float) -> bytes:
        await self._reached()
        self._get(vm)
        raise HypervisorFailure("make-believe guests have no agent")

    async def memory(self) -> tuple[int, int] | None:
        return None

    # what others may do behind the agent's back

    def guest_stops(self, vm: VmId, cause: StopCause = "guest", detail: str = "") -> None:
        self._halt(vm, cause, detail)

    def tamper(self, seen: Observed | None, *, vm: VmId) -> None:
        """Put a domain into a state by hand; None undefines it, as `virsh undefine` would."""
        if seen is None:
            del self.domains[vm]
        else:
            self.domains[vm] = replace(self.domains.get(vm, Domain(seen=seen)), seen=seen)
        self._tell(Changed(domain=vm))

    def deafen(self) -> None:
        """Nobody listens any more: the agent's process is gone."""
        self._listeners.clear()

    def disconnect(self) -> None:
        self._up = False
        self._tell(Disconnected(reason="by hand"))

    def reconnect(self) -> None:
        self._up = True
        self._tell(Connected())

    # moves

    def _move(self, move: Move) -> None:
        self._check()
        match move:
            case Define(assignment):
                self._define(assignment)
            case Stamp(assignment):
                self._stamp(assignment)
            case Start(vm):
                self._start(vm)
            case Pause(vm):
                self._pause(vm)
            case Resume(vm):
                self._resume(vm)
            case Destroy(vm):
                self._destroy(vm)
            case Undefine(vm):
                self._undefine(vm)

    def _define(self, assignment: VmAssignment) -> None:
        vm, spec = assignment.vm, assignment.spec
        for disk in spec.disks:
            if (vm, disk.name) not in self.disks:
                raise HypervisorFailure(f"disk {disk.name!r} is missing")
        if spec.seeded and vm not in self.seeds:
            raise HypervisorFailure("the seed is missing")
        self.log.append("define")
        before = self.domains.get(vm, Domain(seen=Observed(vm=vm, state="stopped")))
        seen = replace(
            before.seen,
            generation=assignment.generation,
            spec=spec,
            cpus=spec.cpus,
            memory_mib=spec.memory_mib,
            ours=True,
            persistent=True,
        )
        self.domains[vm] = replace(before, seen=seen)

    def _stamp(self, assignment: VmAssignment) -> None:
        self.log.append("stamp")
        domain = self._get(assignment.vm)
        seen = replace(domain.seen, generation=assignment.generation, spec=assignment.spec)
        self.domains[assignment.vm] = replace(domain, seen=seen)

    def _start(self, vm: VmId) -> None:
        domain = self._get(vm)
        if domain.seen.state != "stopped":
            return
        self.log.append("start")
        seen = replace(domain.seen, state="running", detail="")
        self.domains[vm] = replace(domain, seen=seen, starts=domain.starts + 1)

    def _pause(self, vm: VmId) -> None:
        self._turn(vm, "paused", "pause")

    def _resume(self, vm: VmId) -> None:
        self._turn(vm, "running", "resume")

    def _turn(self, vm: VmId, state: Power, word: str) -> None:
        domain = self._get(vm)
        if domain.seen.state == "stopped":
            raise HypervisorFailure("the domain is not running")
        self.log.append(word)
        self.domains[vm] = replace(domain, seen=replace(domain.seen, state=state))

    def _destroy(self, vm: VmId) -> None:
        if vm in self.domains and self.domains[vm].seen.state != "stopped":
            self.log.append("destroy")
            self._stop(vm, "host")

    def _undefine(self, vm: VmId) -> None:
        domain = self.domains.get(vm)
        if domain is None:
            return
        if domain.seen.state != "stopped":
            raise HypervisorFailure("the domain is still running")
        self.log.append("undefine")
        del self.domains[vm]

    # inside

    async def _reached(self) -> None:
        """A call that hangs is given up by whoever asked, or after `patience_s`, as libvirt's are."""
        self._check()
        if not self.answers.is_set():
            try:
                await within(self._clock, self._patience_s, self.answers.wait())
            except TimeoutError as error:
                raise HypervisorUnavailable("it did not answer in time") from error

    def _check(self) -> None:
        if not self._up:
            raise HypervisorUnavailable("not connected")

    def _get(self, vm: VmId) -> Domain:
        self._check()
        domain = self.domains.get(vm)
        if domain is None:
            raise HypervisorFailure("there is no such domain")
        return domain

    def _halt(self, vm: VmId, cause: StopCause, detail: str = "") -> None:
        self._stop(vm, cause, detail)
        self._tell(Changed(domain=vm))

    def _stop(self, vm: VmId, cause: StopCause, detail: str = "") -> None:
        domain = self.domains[vm]
        seen = replace(domain.seen, state="stopped", cause=cause, detail=detail)
        self.domains[vm] = replace(domain, seen=seen)

    def _tell(self, notice: Notice) -> None:
        for listener in self._listeners:
            listener(notice)
