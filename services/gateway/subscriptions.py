"""Subscriptions: named durable consumers of EVENTS that outside programs read through the gateway.

The gateway keeps nothing of them: a name is the server's own durable consumer, and a receipt is all that
it takes to settle an event, at whichever gateway. `nats consumer next EVENTS SUB_<name>` reads the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TypeVar

from msgspec import Raw
from msgspec.structs import replace

from chassis import receipts
from chassis.bus import BusError, ConsumerConfig, Delivery
from chassis.deadletters import dead_letter
from schemas import subjects
from schemas.problems import FieldError, invalid_request, not_found
from schemas.subscriptions import (
    SettledEvents,
    SettleEvents,
    Subscription,
    SubscriptionState,
    TakeEvents,
    TakenEvent,
    TakenEvents,
)
from schemas.wire import encode
from services.gateway.answers import Answer, refuse
from services.gateway.asked import Asked, name_in_path
from services.gateway.desk import Desk
from services.gateway.model import Nothing, SubscriptionRequest

PREFIX = "SUB_"
T = TypeVar("T")


def durable_of(name: str) -> str:
    return f"{PREFIX}{name}"


def patterns(wanted: SubscriptionRequest) -> tuple[str, ...]:
    """The subjects that are handed out."""
    types = wanted.types or (("vm.*",) if wanted.vm else ("*.*",))
    return tuple(
        sorted(
            subjects.event_pattern(
                site=wanted.site or "*",
                source=wanted.host or "*",
                kind=kind,
                id=wanted.vm or "*",
                event=event,
            )
            for kind, _, event in (name.partition(".") for name in types)
        )
    )


def errors(wanted: SubscriptionRequest) -> Iterator[FieldError]:
    """A VM's own events are `vm.…`."""
    for number, name in enumerate(wanted.types):
        if wanted.vm is not None and not name.startswith("vm."):
            yield FieldError(field=f"/types/{number}", detail="with a VM, expected vm.…")


async def begin(desk: Desk, asked: Asked[Nothing, SubscriptionRequest]) -> Answer:
    """Made, or changed to this; where it stands in the stream stays."""
    name, wanted = name_in_path("subscription", asked.path["name"]), asked.body
    await _bus(
        desk,
        desk.rig.bus.ensure_consumer(
            ConsumerConfig(
                stream=subjects.EVENTS,
                name=durable_of(name),
                description=f"Subscription {name}",
                subjects=patterns(wanted),
                deliver="all" if wanted.begin == "start" else "new",
                ack_wait_s=wanted.lease_s,
            )
        ),
    )
    return Answer(
        body=encode(
            Subscription(
                name=name,
                types=wanted.types,
                vm=wanted.vm,
                host=wanted.host,
                site=wanted.site,
                begin=wanted.begin,
                lease_s=wanted.lease_s,
            )
        )
    )


async def end(desk: Desk, asked: Asked[Nothing, Nothing]) -> Answer:
    """Forgotten, with where it stood."""
    state = await _state(desk, name_in_path("subscription", asked.path["name"]))
    await _bus(desk, desk.rig.bus.delete_consumer(subjects.EVENTS, durable_of(state.name)))
    return Answer(body=encode(state))


async def list_all(desk: Desk, _asked: Asked[Nothing, Nothing]) -> Answer:
    return Answer(body=encode({"items": await _states(desk), "next": None}))


async def take(desk: Desk, asked: Asked[Nothing, TakeEvents]) -> Answer:
    """Wait until there is an event, then hand out what is there."""
    name = name_in_path("subscription", asked.path["name"])
    wanted = asked.body
    asked.extend(wanted.wait_s)
    with desk.waits.one(desk.crowded("Too many requests wait for events.")):
        pulling = desk.rig.bus.pull(subjects.EVENTS, durable_of(name), batch=wanted.limit)
        async with pulling as deliveries:
            taken = await _taken(desk, deliveries, wanted)
    if not taken:
        await _state(desk, name)
    return Answer(body=encode(TakenEvents(items=tuple(taken))))


async def _taken(
    desk: Desk, deliveries: AsyncIterator[Delivery], wanted: TakeEvents
) -> list[TakenEvent]:
    """Told to stop, the gateway hands out what it has."""
    found: list[TakenEvent] = []

    async def collect() -> None:
        async for delivery in deliveries:
            message = delivery.message
            found.append(
                TakenEvent(
                    sequence=message.sequence,
                    delivered=message.delivered,
                    receipt=message.reply,
                    event=Raw(message.data),
                )
            )
            if len(found) == wanted.limit or not message.pending:
                return

    collecting = asyncio.create_task(collect())
    stopping = asyncio.create_task(desk.stopping.wait())
    tasks = {collecting, stopping}
    await asyncio.wait(tasks, timeout=wanted.wait_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def settle(desk: Desk, asked: Asked[Nothing, SettleEvents]) -> Answer:
    """Say what became of events; answered once the server has it all."""
    name, wanted = name_in_path("subscription", asked.path["name"]), asked.body
    _require_receipts(name, wanted)
    for one in wanted.dead:
        await _bury(desk, name, one.receipt, one.reason)
    said = [
        *((receipt, receipts.DONE) for receipt in wanted.done),
        *((receipt, receipts.WORKING) for receipt in wanted.working),
        *((one.receipt, receipts.again(one.after_s)) for one in wanted.again),
        *((one.receipt, receipts.never(one.reason)) for one in wanted.dead),
    ]
    timeout_s = desk.settings.ask_timeout_s
    for receipt, word in said:
        await _bus(desk, desk.rig.bus.request(receipt, word, timeout_s=timeout_s))
    return Answer(body=encode(SettledEvents(settled=len(said))))


def _require_receipts(name: str, wanted: SettleEvents) -> None:
    """Receipts of this subscription alone: a receipt is a subject that the gateway publishes to."""
    given = [
        *((f"/done/{at}", receipt) for at, receipt in enumerate(wanted.done)),
        *((f"/working/{at}", receipt) for at, receipt in enumerate(wanted.working)),
        *((f"/again/{at}/receipt", one.receipt) for at, one in enumerate(wanted.again)),
        *((f"/dead/{at}/receipt", one.receipt) for at, one in enumerate(wanted.dead)),
    ]
    wrong = [
        FieldError(field=field, detail=f"expected a receipt of the subscription {name!r}")
        for field, receipt in given
        if not receipts.is_receipt(receipt, stream=subjects.EVENTS, consumer=durable_of(name))
    ]
    if wrong:
        raise refuse(invalid_request(*wrong))


async def _bury(desk: Desk, name: str, receipt: str, reason: str) -> None:
    """The event to the dead letters, if the stream still has it."""
    sequence = receipts.sequence_of(receipt)
    message = await _bus(desk, desk.rig.bus.first_from(subjects.EVENTS, sequence))
    if message is None or message.sequence != sequence:
        return
    letter = dead_letter(
        message, consumer=durable_of(name), reason=reason, error="SubscriberFailed"
    )
    delivered = {"Vireo-Dead-Delivered": str(receipts.delivered_of(receipt))}
    letter = replace(letter, headers={**letter.headers, **delivered})
    await _bus(desk, desk.rig.bus.publish(letter))


async def _states(desk: Desk) -> list[SubscriptionState]:
    backlogs = await _bus(desk, desk.rig.bus.backlogs(subjects.EVENTS))
    return [
        SubscriptionState(name=each.consumer.removeprefix(PREFIX), waiting=each.messages)
        for each in sorted(backlogs, key=lambda each: each.consumer)
        if each.consumer.startswith(PREFIX)
    ]


async def _state(desk: Desk, name: str) -> SubscriptionState:
    for state in await _states(desk):
        if state.name == name:
            return state
    raise refuse(not_found("subscription", name))


async def _bus(desk: Desk, doing: Awaitable[T]) -> T:
    try:
        return await doing
    except BusError as error:
        raise desk.away("The bus does not answer.") from error
