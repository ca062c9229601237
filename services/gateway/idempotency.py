"""Claiming an Idempotency-Key and keeping the answer under it, in the bucket IDEMPOTENCY.

What belongs here: reading and writing records. What a record means for a request is `decide.claim`'s.
Whoever writes a record says which revision it replaces, so of two that claim one key, one loses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import structlog
from msgspec import Struct

from chassis import kv
from chassis.bus import Ack, BusError, Conflict, Expect
from schemas import subjects
from services.gateway import decide
from services.gateway.answers import Refused, of_status, refuse
from services.gateway.desk import Desk
from services.gateway.model import Claim, IdempotencyRecord, IdempotencyState, Refusal, Replay, Wish

log = structlog.get_logger()

Target = Callable[[str], Awaitable[str]]
"""From a command's id to what the command is about; may look it up, may refuse."""


class Claimed(Struct, frozen=True, kw_only=True):
    """The right to publish this command. `key` and `record` are unset for requests without a key."""

    command: str
    target: str
    key: str | None = None
    record: IdempotencyRecord | None = None
    revision: int = 0


Prepare = Callable[[], Awaitable[None]]
"""What is to be found out before a request that was not answered before; may refuse it."""


async def nothing_to_prepare() -> None:
    return


async def claim(desk: Desk, wish: Wish, target: Target, prepare: Prepare) -> Claimed | Replay:
    """Claim the wish's key, or find its answer. Raises Refused, BusError."""
    if wish.key is None:
        await prepare()
        command = desk.rig.ids.new()
        return Claimed(command=command, target=await target(command))
    key = decide.record_key(wish.caller.token, wish.key)
    for _ in range(desk.settings.idempotency.attempts):
        decision = await _decide(desk, key, wish)
        match decision:
            case Refusal():
                raise Refused(decision)
            case Replay():
                return decision
        await prepare()
        claimed = await _take(desk, key, wish, decision, target)
        if claimed is not None:
            return claimed
    raise Refused(decide.contended())


async def _decide(desk: Desk, key: str, wish: Wish) -> Claim | Replay | Refusal:
    stream = kv.stream_of(subjects.KV_IDEMPOTENCY)
    found = await desk.rig.bus.last(stream, kv.subject_of(subjects.KV_IDEMPOTENCY, key))
    entry = kv.entry(found) if found is not None else None
    return decide.claim(
        _record(entry),
        entry.revision if entry is not None else 0,
        wish,
        now=desk.rig.clock.now(),
        takeover_s=desk.settings.idempotency.takeover_s,
        fresh=desk.rig.ids.new(),
    )


async def _take(
    desk: Desk, key: str, wish: Wish, decision: Claim, target: Target
) -> Claimed | None:
    """Write the claim; None if somebody else was faster."""
    about = decision.target or await target(decision.command)
    record = IdempotencyRecord(
        fingerprint=wish.fingerprint,
        command=decision.command,
        target=about,
        state="in_flight",
        since=desk.rig.clock.now(),
    )
    try:
        ack = await _put(desk, key, record, decision.revision)
    except Conflict:
        return None
    return Claimed(
        command=decision.command, target=about, key=key, record=record, revision=ack.sequence
    )


async def keep(desk: Desk, claimed: Claimed, answer: bytes) -> None:
    """Keep the answer. The command is out already: if this fails, a repetition takes over and finds
    the same command id, so the failure is no reason to tell the client otherwise."""
    await _settle(desk, claimed, "done", answer)


async def release(desk: Desk, claimed: Claimed) -> None:
    """Say that the claim came to nothing, so that a repetition need not wait for its age."""
    if desk.rig.bus.connected:
        await _settle(desk, claimed, "interrupted", b"")


async def _settle(desk: Desk, claimed: Claimed, to: IdempotencyState, answer: bytes) -> None:
    if claimed.key is None or claimed.record is None:
        return
    record = decide.moved(claimed.record, to, now=desk.rig.clock.now(), answer=answer)
    try:
        await _put(desk, claimed.key, record, claimed.revision)
    except BusError as error:
        log.warning("idempotency_record_not_kept", state=to, error=type(error).__name__)


async def _put(desk: Desk, key: str, record: IdempotencyRecord, revision: int) -> Ack:
    bucket = subjects.KV_IDEMPOTENCY
    expect = Expect(sequence=revision, over=kv.subject_of(bucket, key))
    return await desk.rig.bus.publish(
        kv.put(bucket, key, msgspec.json.encode(record), expect=expect)
    )


def _record(entry: kv.Entry | None) -> IdempotencyRecord | None:
    """The record, None where there is none. One that cannot be read is refused, not overwritten:
    what it stands for may have been done."""
    if entry is None or entry.value is None:
        return None
    try:
        return msgspec.json.decode(entry.value, type=IdempotencyRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.error("idempotency_record_unreadable", key=entry.key)
        raise refuse(of_status(500, "What is kept under this key cannot be read.")) from error
