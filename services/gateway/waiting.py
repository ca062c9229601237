"""Waiting for the end of an operation, by a look at it or with the wish that begins it.

What belongs here: how long, and what is answered when the inventory or the gateway itself goes away
meanwhile. What is asked for stands in `handlers`, the way of a wish in `orders`.
"""

from __future__ import annotations

import asyncio

import msgspec

from schemas.problems import FieldError, invalid_request
from schemas.queries import GetOperation
from services.gateway import decide
from services.gateway.answers import Refused, refuse
from services.gateway.desk import Desk
from services.gateway.durations import seconds


def wait_s(desk: Desk, wait: str | None) -> float | None:
    """How long to wait, cut to what the settings allow."""
    if wait is None:
        return None
    found = seconds(wait)
    if found is None:
        error = FieldError(field="query/wait", detail="expected a duration: 30s, 500ms, 2m")
        raise refuse(invalid_request(error))
    return min(found, desk.settings.limits.wait_s)


async def until_ended(desk: Desk, query: GetOperation) -> bytes:
    """Ask and wait; told to stop, the gateway answers with what is known now."""
    asking = asyncio.create_task(_ask_in_slices(desk, query))
    stopping = asyncio.create_task(desk.stopping.wait())
    try:
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        now = GetOperation(operation=query.operation)
        return await desk.ask("inventory", "operation.get", now)
    finally:
        asking.cancel()
        stopping.cancel()


async def _ask_in_slices(desk: Desk, query: GetOperation) -> bytes:
    """An inventory that dies takes the question with it: nobody would answer before the time is over."""
    clock, settings = desk.rig.clock, desk.settings
    until = clock.monotonic() + query.wait_s
    while True:
        left_s = max(0.0, until - clock.monotonic())
        slice_s = min(left_s, settings.wait_slice_s)
        part = msgspec.structs.replace(query, wait_s=slice_s)
        timeout_s = settings.ask_timeout_s + slice_s
        try:
            body = await desk.ask("inventory", "operation.get", part, timeout_s=timeout_s)
        except Refused as refused:
            if refused.refusal.problem.status != 404 or slice_s == left_s:
                raise
        else:
            if decide.has_ended(body) or slice_s == left_s:
                return body


async def after_wish(desk: Desk, operation: str, seconds: float) -> bytes | None:
    """The operation of a wish that is safe already, once it has ended; None if that isn't known in
    time, which is no reason to tell the client that anything went wrong."""
    query = GetOperation(operation=operation, wait_s=seconds, until="ended")
    try:
        body = await until_ended(desk, query)
    except Refused:
        return None
    return body if decide.has_ended(body) else None
