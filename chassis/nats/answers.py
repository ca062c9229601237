"""JetStream's JSON answers as values, and its error codes as the bus's errors. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from chassis.bus import Ack, BusError, Conflict, NotFound, Unavailable

WRONG_LAST_SEQUENCE = {10071, 10164}
NOT_FOUND = {10014, 10037, 10059}
STILL_PENDING = 10158
"""The same message id is on its way into the stream right now."""

ATOMIC_DISABLED = 10174
BATCH_DUPLICATE = 10201


class ApiError(Struct, frozen=True):
    """JetStream's refusal."""

    code: int
    err_code: int = 0
    description: str = ""


class PubAck(Struct, frozen=True):
    """The answer to a publish: an acknowledgement or an error."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    batch: str = ""
    count: int = 0
    error: ApiError | None = None


_pub_ack = msgspec.json.Decoder(PubAck)


def pub_ack(raw: bytes) -> PubAck:
    """Read the answer to a publish; what is no such answer counts as none."""
    try:
        answer = _pub_ack.decode(raw)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"not an acknowledgement: {error}") from error
    if answer.error is None and not answer.stream:
        raise Unavailable("not an acknowledgement: no stream in it")
    return answer


def ack_of(answer: PubAck) -> Ack:
    """The acknowledgement, or the error as an exception."""
    if answer.error is not None:
        raise exception_of(answer.error)
    return Ack(stream=answer.stream, sequence=answer.seq, duplicate=answer.duplicate)


def exception_of(error: ApiError) -> BusError:
    text = f"{error.description} ({error.err_code})"
    if error.err_code in WRONG_LAST_SEQUENCE:
        return Conflict(text)
    if error.err_code in NOT_FOUND:
        return NotFound(text)
    if error.code >= 500 or error.err_code == STILL_PENDING:
        return Unavailable(text)
    return BusError(text)


def api_error(answer: dict[str, Any]) -> ApiError | None:
    if "error" not in answer:
        return None
    return msgspec.convert(answer["error"], ApiError)
