"""What becomes of a message that cannot be handled: a dead letter with the reason, for people to read.

Pure. The stream DEADLETTERS keeps them; the body is the original's, the headers say where it came from.
"""

from __future__ import annotations

from chassis.bus import Incoming, Outgoing
from schemas.subjects import dead_letter as subject_of

REASON = "Vireo-Dead-Reason"
ERROR = "Vireo-Dead-Error"
SUBJECT = "Vireo-Dead-Subject"
STREAM = "Vireo-Dead-Stream"
SEQUENCE = "Vireo-Dead-Sequence"
CONSUMER = "Vireo-Dead-Consumer"
DELIVERED = "Vireo-Dead-Delivered"
MESSAGE_ID = "Vireo-Dead-Message-Id"

REASON_CHARACTERS = 2000
HEADERS_BYTES = 8192


def dead_letter(message: Incoming, *, consumer: str, reason: str, error: str) -> Outgoing:
    """The letter for `message`. Its id is the message's place, so that saying it twice is once.

    `error` is the name of the exception's type. JetStream's own headers are not repeated: they would
    be obeyed again.
    """
    headers = {
        **_kept(message),
        REASON: one_line(reason)[:REASON_CHARACTERS],
        ERROR: error,
        SUBJECT: message.subject,
        STREAM: message.stream,
        SEQUENCE: str(message.sequence),
        CONSUMER: consumer,
        DELIVERED: str(message.delivered),
    }
    if message_id := message.headers.get("Nats-Msg-Id"):
        headers[MESSAGE_ID] = message_id
    return Outgoing(
        subject=subject_of(stream=message.stream, consumer=consumer),
        data=message.data,
        headers=headers,
        message_id=f"{message.stream}.{message.sequence}.{consumer}",
    )


def without_body(letter: Outgoing) -> Outgoing:
    """The letter where the body is too big to go along: it says where to find the original."""
    note = f"{letter.headers[REASON]} (left out: a body of {len(letter.data)} bytes)"
    return Outgoing(
        subject=letter.subject,
        headers={**letter.headers, REASON: note},
        message_id=letter.message_id,
    )


def one_line(text: str) -> str:
    return " ".join(text.split())


def _kept(message: Incoming) -> dict[str, str]:
    own = {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}
    size = sum(len(name) + len(value) for name, value in own.items())
    return own if size <= HEADERS_BYTES else {}
