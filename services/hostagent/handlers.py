"""The shell: what comes over the bus and from the hypervisor goes to the keeper; straight lines.

`build` puts the agent together; `assemble` does so around a hypervisor that is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog

from chassis import kv
from chassis.bus import Incoming
from chassis.dispatch import by_type
from chassis.service import Consumer, Gauge, Reject, Rig, Service, Tally
from schemas import events, subjects, wire
from schemas.actions import RebootVmOnce
from schemas.assignments import VmAssignment
from schemas.envelope import Envelope
from schemas.ids import derived_id
from schemas.problems import Problem
from services.hostagent import accel, libvirt_hypervisor
from services.hostagent.disks import Disks
from services.hostagent.executor import Means
from services.hostagent.guest_lines import GuestLines
from services.hostagent.guest_sockets import transport_of
from services.hostagent.guests import Guests
from services.hostagent.hypervisor import (
    Changed,
    Connected,
    GuestAnswers,
    Hypervisor,
    HypervisorFailure,
    HypervisorUnavailable,
    Notice,
    Rebooted,
)
from services.hostagent.journal import Journal
from services.hostagent.keeper import Keeper
from services.hostagent.lease import keep_lease
from services.hostagent.libvirt_hypervisor import LibvirtHypervisor
from services.hostagent.outbox import Voice, flush
from services.hostagent.registration import Registration
from services.hostagent.settings import Settings
from services.hostagent.telemetry import send_frames

log = structlog.get_logger(__name__)

_assignment = msgspec.json.Decoder(VmAssignment)

FLEET_CONCURRENCY = 64
ACTION_CONCURRENCY = 16


async def build(settings: Settings, rig: Rig) -> Service:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return await assemble(settings, rig, await _hypervisor(settings))


async def assemble(settings: Settings, rig: Rig, hypervisor: Hypervisor) -> Service:
    """The agent around a hypervisor."""
    agent = Agent(settings, rig, hypervisor)
    await agent.open()
    return Service(
        description=f"Agent of host {settings.host}: makes libvirt do what is assigned",
        consumers=agent.consumers(),
        address=partial(subjects.host_rpc, site=settings.site, host=settings.host),
        background=agent.background(),
        ready=lambda: hypervisor.connected,
        gauges={
            "vireo_guest_agents_connected": Gauge(
                help="Guests whose own agent has a connection.",
                read=lambda: float(agent.lines.connected),
            )
        },
        tallies={
            "vireo_guest_frames_total": Tally(
                help="Frames of guests' own agents that were taken, and what was dropped, by reason.",
                label="outcome",
                read=lambda: agent.lines.counts,
            )
        },
        close=agent.journal.close,
    )


async def _hypervisor(settings: Settings) -> Hypervisor:
    is_test = libvirt_hypervisor.driver_of(settings.libvirt_uri) == "test"
    accelerator = await accel.choose(
        "qemu" if is_test else settings.domain_type,
        image_dir=settings.image_dir,
        memory=settings.data_dir / "accelerator.json",
        limit_s=settings.kvm_probe_s,
    )
    return LibvirtHypervisor(
        uri=settings.libvirt_uri,
        domain_type="test" if is_test else accelerator,
        vsock=not is_test and transport_of(settings.guest_agent) == "vsock",
        disks=Disks(settings.data_dir, settings.image_dir, empty=is_test),
        cmdline=settings.kernel_cmdline,
        threads=settings.libvirt_threads,
        agent_threads=settings.guest_agent.concurrency,
        timeout_s=settings.libvirt_timeout_s,
        sample_timeout_s=settings.sample_timeout_s,
        keepalive_s=settings.keepalive_s,
        pools=settings.pools,
        devices=settings.devices,
    )


class Agent:
    """The parts of one running agent."""

    def __init__(self, settings: Settings, rig: Rig, hypervisor: Hypervisor) -> None:
        self._settings = settings
        self._rig = rig
        self._hypervisor = hypervisor
        self.journal = Journal(settings.data_dir / "journal.sqlite")
        self.voice = Voice(site=settings.site, host=settings.host, clock=rig.clock)
        means = Means(
            hypervisor=hypervisor,
            journal=self.journal,
            voice=self.voice,
            clock=rig.clock,
            slots=asyncio.Semaphore(settings.concurrency),
            ask_again_s=settings.ask_again_s,
        )
        self.keeper = Keeper(means, settings.retry)
        self.guests = Guests(
            hypervisor=hypervisor,
            keeper=self.keeper,
            journal=self.journal,
            voice=self.voice,
            clock=rig.clock,
            settings=settings.guest_agent,
        )
        self.lines = GuestLines(
            transport=transport_of(settings.guest_agent),
            running=self.guests.running,
            folder=Disks(settings.data_dir, settings.image_dir).folder,
            take=self.guests.pushed,
            clock=rig.clock,
            settings=settings.guest_agent.push,
        )
        self.registration = Registration(
            hypervisor=hypervisor,
            keeper=self.keeper,
            journal=self.journal,
            voice=self.voice,
            clock=rig.clock,
            ids=rig.ids,
            settings=settings,
        )

    async def open(self) -> None:
        await self.journal.open()
        await self.keeper.load()
        await self.guests.load()
        self._hypervisor.listen(self.on_notice)

    def consumers(self) -> tuple[Consumer, ...]:
        settings = self._settings
        return (
            Consumer(
                stream=kv.stream_of(subjects.KV_FLEET),
                name=subjects.fleet_consumer(settings.host),
                description=f"What host {settings.host} is to be",
                subjects=(kv.subject_of(subjects.KV_FLEET, subjects.host_keys(settings.host)),),
                handler=self.on_fleet,
                key=lambda message: message.subject,
                concurrency=FLEET_CONCURRENCY,
                create=False,
                # An assignment that comes again is known by its generation.
                confirm=False,
            ),
            Consumer(
                stream=subjects.ACTIONS,
                name=subjects.actions_consumer(settings.host),
                description=f"What host {settings.host} is to do once",
                subjects=(subjects.host_actions(site=settings.site, host=settings.host),),
                handler=by_type({RebootVmOnce: self.on_reboot}),
                key=_target,
                concurrency=ACTION_CONCURRENCY,
                create=False,
            ),
        )

    def background(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        settings, bus, clock = self._settings, self._rig.bus, self._rig.clock
        batch, kept = settings.outbox_batch, settings.outbox_kept
        return (
            partial(self._hypervisor.run),
            partial(self.keeper.run),
            partial(flush, self.journal, bus, clock, batch=batch, keep=kept),
            *self._listening(),
            partial(self.registration.run),
            partial(keep_lease, bus, clock, settings),
            partial(self.survey),
            partial(
                send_frames,
                hypervisor=self._hypervisor,
                guests=self.guests,
                bus=bus,
                clock=clock,
                settings=settings,
            ),
        )

    def _listening(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """To guests, where there are any that speak."""
        if not self._hypervisor.guests_speak:
            return ()
        if self._settings.guest_agent.transport == "off":
            return (self.guests.run,)
        return (self.guests.run, self.lines.run)

    # from the bus

    async def on_fleet(self, message: Incoming) -> None:
        entry = kv.entry(message)
        kind, id, host = entry.key.split(".", 2)
        if kind != "vm":
            return
        if entry.value is None:
            await self.keeper.forget(id)
            return
        try:
            assignment = _assignment.decode(entry.value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Reject(f"not an assignment: {error}") from error
        if (assignment.vm, assignment.host) != (id, host) or host != self._settings.host:
            raise Reject(f"the assignment says VM {assignment.vm} on {assignment.host}")
        if await self.keeper.accept(assignment):
            log.debug("assigned", vm=id, generation=assignment.generation, power=assignment.power)

    async def on_reboot(self, envelope: Envelope[RebootVmOnce], _message: Incoming) -> None:
        action, operation = envelope.data, envelope.operation or envelope.id
        if await self.journal.is_done(operation):
            return
        left_s = (action.deadline - self._rig.clock.now()).total_seconds()
        if left_s <= 0:
            problem: Problem | None = too_late()
        else:
            patience_s = min(left_s, self._settings.reboot_s)
            try:
                problem = await self.keeper.reboot(action, patience_s=patience_s)
            except HypervisorUnavailable as error:
                problem = unavailable(str(error))
        await self._finish(envelope, operation, problem)

    async def _finish(
        self, envelope: Envelope[RebootVmOnce], operation: str, problem: Problem | None
    ) -> None:
        """End the operation of an action, with its fact where there is one."""
        vm = envelope.data.vm
        say = partial(
            self.voice.message,
            operation=operation,
            actor=envelope.actor,
            traceparent=envelope.traceparent,
        )
        if problem is None:
            messages = [
                say(
                    events.VmRebooted(vm=vm, host=self._settings.host),
                    id=derived_id(operation, "vm.rebooted"),
                    about=("vm", vm),
                ),
                say(
                    events.OperationSucceeded(detail="guest rebooted"),
                    id=derived_id(operation, "operation.succeeded"),
                    about=("operation", operation),
                ),
            ]
        else:
            messages = [
                say(
                    events.OperationFailed(problem=problem),
                    id=derived_id(operation, "operation.failed"),
                    about=("operation", operation),
                )
            ]
        await self.journal.finish(operation, messages)

    # from the hypervisor

    def on_notice(self, notice: Notice) -> None:
        if isinstance(notice, Changed):
            if self.keeper.assignment(notice.domain) is None:
                self.registration.due.set()
            self.keeper.wake(notice.domain)
        elif isinstance(notice, Rebooted):
            self.keeper.rebooted(notice.domain)
        elif isinstance(notice, GuestAnswers):
            self.guests.answers(notice.domain)
        elif isinstance(notice, Connected):
            self.registration.due.set()
            self.keeper.wake_all()

    async def survey(self) -> None:
        """Compare everything with what is known, now and then: notices can be lost."""
        while True:
            try:
                found = await self._hypervisor.survey()
            except (HypervisorUnavailable, HypervisorFailure) as error:
                log.debug("no_survey", error=str(error))
            else:
                self._compare({one.vm: one.state for one in found.ours})
            await self._rig.clock.sleep(self._settings.survey_s)

    def _compare(self, states: dict[str, str]) -> None:
        known = self.keeper.known()
        for vm in sorted(known):
            if states.get(vm, "absent") != known[vm].known:
                self.keeper.wake(vm)
        for vm in sorted(set(states) - set(known)):
            log.warning("domain_unclaimed", vm=vm, state=states[vm])


def _target(message: Incoming) -> str:
    """Actions on one VM follow one another; those on different ones don't wait."""
    try:
        return wire.read_header(message.data).subject or ""
    except wire.Undecodable:
        return ""


def too_late() -> Problem:
    return Problem(
        type="urn:vireo:problem:deadline-exceeded",
        title="It came too late to be done",
        status=504,
        detail="The action reached the host after its deadline.",
    )


def unavailable(detail: str) -> Problem:
    return Problem(
        type="urn:vireo:problem:unavailable",
        title="The host's hypervisor does not answer",
        status=503,
        detail=detail,
    )
