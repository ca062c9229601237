"""The gateway's decisions: who asks, whether the request is new, what it becomes. Pure.

Requests and records in, values out; the clock, ids and the bus are the handlers'.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from schemas import commands, subjects
from schemas.events import OperationAccepted
from schemas.ids import derived_id, is_uuid7, time_of
from schemas.problems import FieldError, Problem, unavailable
from schemas.queries import GetOperation
from schemas.resources import ENDED, Operation, OperationKind, OperationPhase
from schemas.wire import wrap
from services.gateway.model import (
    NEXT_STATES,
    TOKEN_PREFIX,
    Accepted,
    Caller,
    Claim,
    IdempotencyDecision,
    IdempotencyRecord,
    IdempotencyState,
    Refusal,
    Replay,
    TokenRecord,
    Wish,
)
from services.gateway.several import accepted_members

SENDER = "gateway"

_TOKEN = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


# who asks


def token_from(randomness: bytes) -> str:
    """A token from 32 random bytes."""
    if len(randomness) != 32:
        raise ValueError("a token is made of 32 random bytes")
    return TOKEN_PREFIX + base64.urlsafe_b64encode(randomness).decode().rstrip("=")


def is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


def token_hash(token: str) -> str:
    """What is kept of a token. A token is 256 random bits: it needs neither salt nor slowness."""
    return hashlib.sha256(token.encode()).hexdigest()


def authenticate(authorization: str | None, tokens: Mapping[str, TokenRecord]) -> Caller | Refusal:
    """Who an `Authorization` header belongs to; `tokens` are the records by hash."""
    if authorization is None:
        return _unauthenticated("The header `Authorization: Bearer TOKEN` is missing.")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return _unauthenticated("The header must be `Authorization: Bearer TOKEN`.")
    hashed = token_hash(token.strip())
    record = tokens.get(hashed) if is_token(token.strip()) else None
    if record is None or not hmac.compare_digest(record.hash, hashed):
        return _unauthenticated("This token is not known, or no longer.")
    return Caller(token=record.name, role=record.role)


def _unauthenticated(detail: str) -> Refusal:
    return Refusal(
        problem=Problem(
            type="urn:vireo:problem:unauthenticated",
            title="A bearer token is needed",
            status=401,
            detail=detail,
        )
    )


def request_id(given: str | None, fresh: str) -> str:
    """The client's own `X-Request-Id` where it is harmless, else a fresh one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else fresh


# what is asked


def key_error(key: str | None) -> FieldError | None:
    """What is wrong with an `Idempotency-Key`."""
    if key is None or _VISIBLE.fullmatch(key):
        return None
    return FieldError(
        field="header/Idempotency-Key", detail="expected 1 to 255 visible ASCII characters"
    )


def fingerprint(method: str, path: str, *, query: Struct, body: Struct) -> str:
    """Two requests ask for the same exactly when this is the same; blanks and order don't count, nor
    how long the client waits for it."""
    asked = msgspec.to_builtins(query)
    asked.pop("wait", None)
    asked.pop("dry_run", None)
    canonical = msgspec.json.encode((method, path, asked, body), order="deterministic")
    return hashlib.sha256(canonical).hexdigest()


# has it been asked before?


def record_key(token: str, key: str) -> str:
    """The key of a record in IDEMPOTENCY: every token has keys of its own."""
    return hashlib.sha256(f"{token}\0{key}".encode()).hexdigest()


def claim(
    record: IdempotencyRecord | None,
    revision: int,
    wish: Wish,
    *,
    now: datetime,
    takeover_s: float,
    fresh: str,
) -> IdempotencyDecision:
    """Go on, answer as before, or refuse. `fresh` becomes the command's id if the key is new."""
    if record is None:
        return Claim(command=fresh, revision=revision)
    if record.fingerprint != wish.fingerprint:
        return Refusal(problem=_key_reused())
    if record.state == "done":
        return Replay(operation=record.command, answer=record.answer.encode())
    age_s = (now - record.since).total_seconds()
    if record.state == "in_flight" and age_s < takeover_s:
        return Refusal(problem=_in_flight(), retry_after_s=1)
    return Claim(command=record.command, revision=revision, target=record.target)


def moved(
    record: IdempotencyRecord,
    to: IdempotencyState,
    *,
    now: datetime,
    answer: bytes = b"",
) -> IdempotencyRecord:
    """The record after a step of its life. Raises ValueError if the table doesn't list the step."""
    if to not in NEXT_STATES[record.state]:
        raise ValueError(f"an idempotency record cannot go from {record.state} to {to}")
    return msgspec.structs.replace(record, state=to, since=now, answer=answer.decode())


def _key_reused() -> Problem:
    return Problem(
        type="urn:vireo:problem:idempotency-key-reused",
        title="The Idempotency-Key was used for another request",
        status=422,
        detail="A key belongs to one request for a day; take a new key for a new request.",
    )


def _in_flight() -> Problem:
    return Problem(
        type="urn:vireo:problem:request-in-flight",
        title="The same request is being worked on",
        status=409,
        detail="A request with this Idempotency-Key has not been answered yet; ask again later.",
    )


def contended() -> Refusal:
    """Others kept claiming the key first."""
    return Refusal(problem=_in_flight(), retry_after_s=1)


# what it becomes


def vm_of(command: str) -> str:
    """The id of the VM that a `vm.create` makes; a repetition of the command makes the same."""
    return derived_id(command, "vm")


def target_of(message: commands.Command) -> str:
    """What a command is about: the id of a VM, the name of anything else, the first of several names."""
    match message:
        case commands.ConfigureHost():
            return message.host
        case commands.CreateVms():
            return message.names[0]
        case (
            commands.ApplyPolicy()
            | commands.ApplyTemplate()
            | commands.ApplyProject()
            | commands.ApplyRule()
        ):
            return message.definition.name
        case (
            commands.RemovePolicy()
            | commands.RemoveTemplate()
            | commands.RemoveProject()
            | commands.RemoveRule()
        ):
            return message.name
        case commands.SilenceAlert() | commands.UnsilenceAlert():
            return message.rule
        case commands.RebuildInventory():
            return "inventory"
        case commands.ReplayEvents() | commands.StopReplay():
            return message.name
        case commands.RebuildFleet():
            return "fleet"
        case _:
            return message.vm


def accept(
    message: commands.Command, *, command: str, site: str, caller: Caller, traceparent: str | None
) -> Accepted:
    """The command with its id, the event that tells of it, and the answer. The time is the id's."""
    name = subjects.BY_MESSAGE[type(message)].name
    target = target_of(message)
    at = time_of(command)
    told = OperationAccepted(
        command=name,
        kind=msgspec.convert(name.partition(".")[0], OperationKind),
        target=target,
        request=msgspec.to_builtins(commands.told_of(message)),
    )
    wished = wrap(
        message,
        id=command,
        site=site,
        sender=SENDER,
        at=at,
        about=f"{told.kind}/{target}",
        operation=command,
        actor=caller.actor,
        traceparent=traceparent,
    )
    return Accepted(
        command=wished,
        members=accepted_members(wished, site=site, sender=SENDER),
        event=wrap(
            told,
            id=derived_id(command, "operation.accepted"),
            site=site,
            sender=SENDER,
            at=at,
            about=f"operation/{command}",
            operation=command,
            cause=command,
            actor=caller.actor,
            traceparent=traceparent,
        ),
        answer=Operation(
            id=command,
            command=name,
            kind=told.kind,
            target=target,
            phase="accepted",
            actor=caller.actor,
            created_at=at,
            updated_at=at,
        ),
    )


def unanswered(operation: str, *, keyed: bool) -> Problem:
    """The bus didn't confirm: the command may or may not be there. It says how to find out."""
    again = (
        "Ask again with the same Idempotency-Key."
        if keyed
        else f"Look at /v1/operations/{operation} before asking again; with an Idempotency-Key "
        "asking again would be safe."
    )
    problem = unavailable(f"The bus did not confirm the command in time. {again}")
    return msgspec.structs.replace(problem, instance=f"/v1/operations/{operation}")


# reading


_ENTITY_TAG = re.compile(r'"([^"]*)"')


def is_known(tag: str, if_none_match: str | None) -> bool:
    """Whether an `If-None-Match` names the tag (RFC 9110; a weak tag counts as well)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _ENTITY_TAG.findall(if_none_match)


def is_fresh(uuid: str, *, now: datetime, within_s: float) -> bool:
    """Whether what has this id may just not have arrived everywhere yet."""
    return is_uuid7(uuid) and abs((now - time_of(uuid)).total_seconds()) < within_s


def operation_query(
    operation: str, wait_s: float | None, *, now: datetime, fresh_s: float, fresh_wait_s: float
) -> GetOperation:
    """How to ask for an operation: until it ended if the client waits, else until it exists if it
    may be on its way (a client reads what it wrote)."""
    if wait_s is not None and wait_s > 0:
        return GetOperation(operation=operation, wait_s=wait_s, until="ended")
    fresh = is_fresh(operation, now=now, within_s=fresh_s)
    return GetOperation(operation=operation, wait_s=fresh_wait_s if fresh else 0)


class _Phase(Struct, frozen=True):
    phase: OperationPhase


_phase = msgspec.json.Decoder(_Phase)


def has_ended(operation: bytes) -> bool:
    """Whether an operation that is passed through as bytes will not change any more."""
    return _phase.decode(operation).phase in ENDED


def as_answer(problem: Problem) -> Problem:
    """A problem of another service as an HTTP answer: its status, if it is one of an error."""
    if 400 <= problem.status <= 599:
        return problem
    return msgspec.structs.replace(problem, status=500)
