"""The way of every request that changes something: claimed, published, told, answered.

The answer is 202 as soon as the wish is safe; or, where the client waits, 200 with the ended operation.

What belongs here: the order of these steps and what happens when one fails. Which command a request
becomes is said in `handlers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog

from chassis import tracing
from chassis.bus import Ack, BusError, Outgoing, Unavailable
from schemas import subjects
from schemas.commands import Command
from schemas.envelope import Envelope
from schemas.events import OperationAccepted
from schemas.wire import encode
from services.gateway import decide, idempotency, waiting
from services.gateway.answers import Answer, refuse
from services.gateway.asked import Asked, B
from services.gateway.desk import Desk
from services.gateway.forecasts import dry_run
from services.gateway.idempotency import Claimed, Prepare, Target, nothing_to_prepare
from services.gateway.model import Accepted, DeleteRequest, Identity, Replay, Wish, WishQuery

log = structlog.get_logger()

W = TypeVar("W", WishQuery, DeleteRequest)

Making = Callable[[str], Command]
"""From the id of the VM (the name of the host) to the command about it."""

EVENT_ATTEMPTS = 3
"""How often the event of a published command is tried: the command cannot be taken back."""


async def obey(
    desk: Desk,
    asked: Asked[W, B],
    target: Target,
    make: Making,
    *,
    prepare: Prepare = nothing_to_prepare,
) -> Answer:
    """Turn a request into a command, and wait for its end if asked to; or only say what would come of
    it. Raises Refused; then nothing is half done that a repetition with the same key would not
    complete."""
    if asked.query.dry_run:
        await prepare()
        return await dry_run(desk, asked.caller, target, make)
    wait_s = waiting.wait_s(desk, asked.query.wait)
    if not wait_s:
        return await _obey(desk, asked, target, make, prepare)
    asked.extend(wait_s)
    with desk.waits.one(desk.crowded("Too many requests wait for operations.")):
        answer = await _obey(desk, asked, target, make, prepare)
        return await _ended(desk, answer, wait_s)


async def _ended(desk: Desk, answer: Answer, wait_s: float) -> Answer:
    """The answer with the ended operation in place of the accepted one, if it ends in time."""
    operation = msgspec.json.decode(answer.body, type=Identity).id
    body = await waiting.after_wish(desk, operation, wait_s)
    if body is None:
        return answer
    return msgspec.structs.replace(answer, status=200, body=body)


async def _obey(
    desk: Desk, asked: Asked[W, B], target: Target, make: Making, prepare: Prepare
) -> Answer:
    desk.require_bus()
    wish = Wish(fingerprint=asked.fingerprint(), caller=asked.caller, key=asked.key)
    claimed = await _claim(desk, wish, target, prepare)
    if isinstance(claimed, Replay):
        return accepted(claimed.operation, claimed.answer, replayed=True)
    what = decide.accept(
        make(claimed.target),
        command=claimed.command,
        site=desk.rig.site,
        caller=asked.caller,
        traceparent=tracing.traceparent(),
    )
    await _issue(desk, claimed, what)
    body = encode(what.answer)
    await idempotency.keep(desk, claimed, body)
    log.info("operation_accepted", operation=claimed.command, command=what.answer.command)
    return accepted(claimed.command, body, replayed=False)


async def _claim(desk: Desk, wish: Wish, target: Target, prepare: Prepare) -> Claimed | Replay:
    try:
        return await idempotency.claim(desk, wish, target, prepare)
    except BusError as error:
        raise desk.away("The bus does not answer; no command was given.") from error


async def _issue(desk: Desk, claimed: Claimed, what: Accepted) -> None:
    """Publish the command, then the event that tells of it."""
    try:
        await desk.rig.bus.publish(command_message(what, site=desk.rig.site))
        told = (event_message(one, site=desk.rig.site) for one in (what.event, *what.members))
        await asyncio.gather(*(_tell(desk, message) for message in told))
    except BusError as error:
        log.warning("command_unconfirmed", operation=claimed.command, error=type(error).__name__)
        await idempotency.release(desk, claimed)
        problem = decide.unanswered(claimed.command, keyed=claimed.key is not None)
        raise refuse(problem, retry_after_s=desk.settings.retry_after_s) from error


async def _tell(desk: Desk, message: Outgoing) -> Ack:
    for _ in range(EVENT_ATTEMPTS - 1):
        try:
            return await desk.rig.bus.publish(message)
        except Unavailable:
            log.warning("event_unconfirmed", subject=message.subject)
    return await desk.rig.bus.publish(message)


def command_message(what: Accepted, *, site: str) -> Outgoing:
    return Outgoing(
        subject=subjects.command(type(what.command.data), site=site),
        data=encode(what.command),
        message_id=what.command.id,
    )


def event_message(told: Envelope[OperationAccepted], *, site: str) -> Outgoing:
    operation = told.operation or ""
    subject = subjects.event(OperationAccepted, site=site, source=decide.SENDER, id=operation)
    return Outgoing(subject=subject, data=encode(told), message_id=told.id)


def accepted(operation: str, body: bytes, *, replayed: bool) -> Answer:
    """202: the operation, and where to look how it goes."""
    headers = [("location", f"/v1/operations/{operation}")]
    if replayed:
        headers.append(("idempotency-replayed", "true"))
    return Answer(status=202, body=body, headers=tuple(headers))
