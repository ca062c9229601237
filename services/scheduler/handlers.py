"""The shell: commands and events in, decisions recorded. Straight lines; `build` puts it together."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from chassis import tracing
from chassis.bus import Conflict, Incoming
from chassis.dispatch import Handler, by_type
from chassis.service import Consumer, Retry, Rig, Service
from schemas import subjects
from schemas.commands import ConfigureHost, CreateVm, CreateVms
from schemas.envelope import Envelope
from schemas.events import HostRegistered, VmDeleted
from schemas.restores import RestoreFleet
from schemas.shipped import shipped
from services.scheduler import asks, planning
from services.scheduler.bucket import watch_bucket
from services.scheduler.copies import Copies
from services.scheduler.decide import DECISIONS, decide, overtaken
from services.scheduler.fleet import Fleet
from services.scheduler.hearing import Hearing
from services.scheduler.hosts import Hosts
from services.scheduler.ledger import Ledger
from services.scheduler.messages import configured, failed, origin_of, reboot
from services.scheduler.model import (
    Acted,
    Changed,
    Configured,
    Decision,
    Held,
    Placed,
    Refused,
    Repeated,
)
from services.scheduler.restore import Restore
from services.scheduler.settings import SchedulerSettings
from services.scheduler.ticks import Ticks

MS_PER_S = 1000

log = structlog.get_logger()


class Commands:
    """The handler of commands."""

    def __init__(
        self,
        settings: SchedulerSettings,
        rig: Rig,
        fleet: Fleet,
        ledger: Ledger,
        hearing: Hearing,
        ticks: Ticks,
        copies: Copies,
    ) -> None:
        self._settings = settings
        self._rig = rig
        self._fleet = fleet
        self._ledger = ledger
        self._hearing = hearing
        self._ticks = ticks
        self._copies = copies

    async def on_command(self, command: Envelope[Any], message: Incoming) -> None:
        """Decide and record; when somebody else wrote first, look again and decide again."""
        await self._hearing.wait_until_warm()
        if not isinstance(command.data, ConfigureHost):
            await self._copies.until_done_with(command.data.vm)
        command = replace(command, traceparent=tracing.traceparent() or command.traceparent)
        again = message.delivered > 1
        if again:
            await self._ledger.refresh(_key_of(command.data))
            if await self._was_settled(command):
                return _log(command, None)
        for _ in range(self._settings.decide_attempts):
            try:
                return _log(command, await self._carry_out(command, again=again))
            except Conflict:
                await self._ledger.refresh(_key_of(command.data))
        raise Retry(self._settings.retry_s, "others wrote first, again and again")

    async def _was_settled(self, command: Envelope[Any]) -> bool:
        """Whether nothing is left to say. What FLEET still holds of it is said again."""
        held = self._held(command)
        if held is not None and held.assignment.operation == command.id:
            return False
        return await self._ledger.is_over(command.id)

    async def _carry_out(self, command: Envelope[Any], *, again: bool) -> Decision:
        """A refusal for silence waits until silence means something; one for a host that has not
        registered only while there is one that registers; one for what people define, for the newest
        definition."""
        while True:
            async with self._ticks.turn(self._shape(command)):
                decision = self._decide(command, again=again)
                if not await self._may_change(decision):
                    await self._record(command, decision)
                    return decision
            await self._rig.clock.sleep(self._settings.settle_tick_s)

    def _decide(self, command: Envelope[Any], *, again: bool) -> Decision:
        held = self._held(command)
        decision = decide(command, self._fleet, now=self._rig.clock.monotonic())
        if again and not isinstance(decision, Repeated):
            return overtaken(command, held) or decision
        return decision

    def _held(self, command: Envelope[Any]) -> Held | None:
        """The assignment that a command is about."""
        return (
            None
            if isinstance(command.data, ConfigureHost)
            else self._fleet.holdings.of(command.data.vm)
        )

    def _shape(self, command: Envelope[Any]) -> Hashable:
        """What is alike is decided one after another."""
        if isinstance(command.data, CreateVm):
            return self._fleet.request(command.data.spec).shape
        return command.type

    async def _may_change(self, decision: Decision) -> bool:
        """Whether what is about to be heard may turn a refusal."""
        return isinstance(decision, Refused) and await self._hearing.may_turn(decision)

    async def _record(self, command: Envelope[Any], decision: Decision) -> None:
        origin, voice = origin_of(command), self._ledger.voice
        match decision:
            case Placed():
                await self._ledger.place(decision)
                await self._ledger.tell(decision.assignment)
            case Changed():
                await self._ledger.change(decision)
                await self._ledger.tell(decision.assignment)
            case Repeated():
                await self._ledger.tell_late(decision.assignment)
            case Configured():
                await self._ledger.configure(decision)
                await self._ledger.say(configured(decision.config, voice, origin))
            case Acted():
                deadline = command.time + timedelta(seconds=self._settings.action_deadline_s)
                keep_s = self._settings.action_keep_s
                action = reboot(decision, voice, origin, deadline=deadline, keep_s=keep_s)
                await self._ledger.say([action])
            case Refused():
                await self._ledger.say([failed(decision, voice, origin)])


def _key_of(command: Any) -> str:
    """The FLEET key that a command is about."""
    if isinstance(command, ConfigureHost):
        return subjects.host_config_key(command.host)
    return subjects.vm_key(vm=command.vm, host="*")


def _log(command: Envelope[Any], decision: Decision | None) -> None:
    fields: dict[str, str] = {"operation": command.id, "command": command.type}
    match decision:
        case Placed(assignment=new) | Changed(assignment=new) | Repeated(assignment=new):
            fields |= {"vm": new.vm, "host": new.host}
        case Refused(problem=problem):
            fields |= {"problem": problem.type, "detail": problem.detail}
    outcome = type(decision).__name__.lower() if decision is not None else "settled_before"
    log.info("command_decided", outcome=outcome, **fields)


class _Aim(Struct, frozen=True):
    vm: str = ""
    host: str = ""


class _Aimed(Struct, frozen=True):
    data: _Aim


_aimed = msgspec.json.Decoder(_Aimed)


def key_of_command(message: Incoming) -> str:
    """What a command is about: its commands are handled in order. Raises for what is no command."""
    aim = _aimed.decode(message.data).data
    return aim.vm or f"host.{aim.host}"


def key_of_event(message: Incoming) -> str:
    return subjects.parts_of_event(message.subject)[2]


async def build(settings: SchedulerSettings, rig: Rig) -> Service:
    """The scheduler of one site."""
    fleet = Fleet(settings.limits, shipped(), policy=settings.policy)
    ledger = Ledger(rig, fleet, resay_limit=settings.resay_limit)
    hearing = Hearing(settings, rig, fleet, ledger)
    ticks = Ticks(rig.clock, most=settings.tick_commands, tick_s=settings.tick_ms / MS_PER_S)
    copies = Copies(settings, rig, fleet, ledger, hearing, ticks)
    commands = Commands(settings, rig, fleet, ledger, hearing, ticks, copies)
    hosts = Hosts(rig, fleet, ledger)
    restore = Restore(settings, rig, fleet, hearing)
    return Service(
        description="Gives every VM to a host and carries later wishes to it",
        consumers=(
            _commands_consumer(settings, rig.site, commands, copies, restore),
            _events_consumer(settings, rig.site, hosts),
        ),
        endpoints=(
            *asks.endpoints(settings, rig, fleet, hearing),
            *planning.endpoints(settings, rig, fleet, hearing),
        ),
        background=(
            hearing.follow_fleet,
            hearing.follow_leases,
            hearing.follow_config,
            hearing.listen_to_telemetry,
            hearing.keep_watch,
            partial(watch_bucket, rig, ledger.term, every_s=settings.fleet_check_s),
        ),
        ready=lambda: hearing.warm and rig.bus.connected,
    )


def _commands_consumer(
    settings: SchedulerSettings, site: str, commands: Commands, copies: Copies, restore: Restore
) -> Consumer:
    table: dict[type[Any], Handler] = dict.fromkeys(DECISIONS, commands.on_command)
    table[CreateVms] = copies.on_command
    table[RestoreFleet] = restore.on_command
    return Consumer(
        stream=subjects.COMMANDS,
        name=f"scheduler-{site}",
        description=f"Commands about VMs and hosts of site {site}",
        subjects=(
            subjects.every_command("vm", site=site),
            subjects.every_command("host", site=site),
            subjects.command(RestoreFleet, site=site),
        ),
        handler=by_type(table),
        key=key_of_command,
        concurrency=settings.concurrency,
        single_active=True,
        batch=settings.concurrency,
        ack_wait_s=settings.ack_wait_s,
        confirm=False,
    )


def _events_consumer(settings: SchedulerSettings, site: str, hosts: Hosts) -> Consumer:
    table: dict[type[Any], Handler] = {
        HostRegistered: hosts.on_registered,
        VmDeleted: hosts.on_deleted,
    }
    return Consumer(
        stream=subjects.EVENTS,
        name=f"scheduler-{site}",
        description=f"Hosts of site {site} that register, VMs that they have deleted",
        subjects=tuple(subjects.every_event(event, site=site) for event in table),
        handler=by_type(table),
        key=key_of_event,
        concurrency=settings.concurrency,
        single_active=True,
        ack_wait_s=settings.ack_wait_s,
    )
