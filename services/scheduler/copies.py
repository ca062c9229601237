"""Commands that make several VMs: placed together, each VM under an operation of its own.

The command's own operation ends when all is decided; it is told last, so that a command that comes again
because its scheduler died finds out what is left to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from chassis import tracing
from chassis.bus import Conflict, Incoming
from chassis.service import Retry, Rig
from schemas import subjects
from schemas.commands import CreateVms
from schemas.copies import members_of
from schemas.envelope import Envelope
from services.scheduler.batches import decide_many, outcome_of, release_all
from services.scheduler.fleet import Fleet
from services.scheduler.hearing import Hearing
from services.scheduler.ledger import Ledger
from services.scheduler.messages import Origin, failed, origin_of, succeeded
from services.scheduler.model import Decision, Placed, Refused, Repeated
from services.scheduler.settings import SchedulerSettings
from services.scheduler.ticks import Ticks

log = structlog.get_logger()


class Copies:
    """The handler of `vm.create_many`."""

    def __init__(
        self,
        settings: SchedulerSettings,
        rig: Rig,
        fleet: Fleet,
        ledger: Ledger,
        hearing: Hearing,
        ticks: Ticks,
    ) -> None:
        self._settings = settings
        self._rig = rig
        self._fleet = fleet
        self._ledger = ledger
        self._hearing = hearing
        self._ticks = ticks
        self._in_hand: dict[str, asyncio.Event] = {}

    async def on_command(self, command: Envelope[CreateVms], message: Incoming) -> None:
        """Decide and record; when somebody else wrote first, look again and decide again."""
        done = asyncio.Event()
        vms = [member.vm for member in members_of(command.id, command.data.names)]
        self._in_hand |= dict.fromkeys(vms, done)
        try:
            await self._handle(command, message)
        finally:
            for vm in vms:
                self._in_hand.pop(vm, None)
            done.set()

    async def until_done_with(self, vm: str) -> None:
        """What is wished of a VM that is being made with others comes after that: their command has a
        lane of its own."""
        if vm in self._in_hand:
            await self._in_hand[vm].wait()

    async def _handle(self, command: Envelope[CreateVms], message: Incoming) -> None:
        await self._hearing.wait_until_warm()
        command = replace(command, traceparent=tracing.traceparent() or command.traceparent)
        ended: dict[str, str] = {}
        if message.delivered > 1:
            if await self._ledger.is_over(command.id):
                return None
            await self._refresh(command)
            ended = await self._ended(command)
        for _ in range(self._settings.decide_attempts):
            try:
                return await self._carry_out(command, ended)
            except Conflict:
                await self._refresh(command)
        raise Retry(self._settings.retry_s, "others wrote first, again and again")

    async def _carry_out(self, command: Envelope[CreateVms], ended: dict[str, str]) -> None:
        while True:
            async with self._ticks.turn(self._fleet.request(command.data.spec).shape):
                now = self._rig.clock.monotonic()
                decisions = decide_many(command, self._fleet, now=now, over=ended.keys())
                try:
                    if not await self._may_change(decisions):
                        return await self._record(command, decisions, ended)
                finally:
                    release_all(decisions, self._fleet)
            await self._rig.clock.sleep(self._settings.settle_tick_s)

    async def _may_change(self, decisions: Sequence[Decision | None]) -> bool:
        """Whether what is about to be heard may turn one of the refusals."""
        for decision in decisions:
            if isinstance(decision, Refused) and await self._hearing.may_turn(decision):
                return True
        return False

    async def _record(
        self,
        command: Envelope[CreateVms],
        decisions: Sequence[Decision | None],
        ended: dict[str, str],
    ) -> None:
        """The VMs' assignments, then what each operation is told, then the end of the command's own."""
        placed = [one for one in decisions if isinstance(one, Placed)]
        if command.data.gang and placed:
            await self._ledger.place_together(placed)
        else:
            await self._ledger.place_each(placed)
        operations = [member.operation for member in members_of(command.id, command.data.names)]
        told = zip(operations, decisions, strict=True)
        await asyncio.gather(*(self._tell(command, *one) for one in told))
        failed_before = sum(end != "succeeded" for end in ended.values())
        await self._end(command, decisions, failed_before)

    async def _tell(
        self, command: Envelope[CreateVms], operation: str, decision: Decision | None
    ) -> None:
        match decision:
            case Placed(assignment=new):
                await self._ledger.tell(new)
            case Repeated(assignment=before):
                await self._ledger.tell_late(before)
            case Refused():
                origin = Origin(
                    operation=operation,
                    cause=command.id,
                    actor=command.actor,
                    traceparent=command.traceparent,
                )
                await self._ledger.say([failed(decision, self._ledger.voice, origin)])

    async def _end(
        self,
        command: Envelope[CreateVms],
        decisions: Sequence[Decision | None],
        failed_before: int,
    ) -> None:
        outcome = outcome_of(decisions, gang=command.data.gang, failed_before=failed_before)
        origin, voice = origin_of(command), self._ledger.voice
        said = (
            failed(outcome, voice, origin)
            if isinstance(outcome, Refused)
            else succeeded(outcome, voice, origin)
        )
        await self._ledger.say([said])
        detail = outcome.problem.detail if isinstance(outcome, Refused) else outcome
        log.info("copies_decided", operation=command.id, detail=detail)

    async def _refresh(self, command: Envelope[CreateVms]) -> None:
        members = members_of(command.id, command.data.names)
        keys = (subjects.vm_key(vm=member.vm, host="*") for member in members)
        await asyncio.gather(*(self._ledger.refresh(key) for key in keys))

    async def _ended(self, command: Envelope[CreateVms]) -> dict[str, str]:
        """How the operations of members that have ended did, as far as EVENTS knows."""
        operations = [member.operation for member in members_of(command.id, command.data.names)]
        ends = await asyncio.gather(*(self._ledger.end_of(one) for one in operations))
        found = zip(operations, ends, strict=True)
        return {one: end for one, end in found if end is not None}
