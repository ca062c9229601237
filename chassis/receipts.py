"""Receipts: what is said of a message that was handed out by somebody who does not hold it any more.

A message of a durable consumer comes with a subject to answer to (ADR-15). Who keeps that text can say
what became of the message later, by another connection. Pure; `settle` itself is `bus.request`.
"""

from __future__ import annotations

import re

NANOSECONDS = 1_000_000_000

DONE = b"+ACK"
WORKING = b"+WPI"


def again(after_s: float) -> bytes:
    """Deliver it again, so many seconds from now."""
    return b'-NAK {"delay": %d}' % int(after_s * NANOSECONDS) if after_s > 0 else b"-NAK"


def never(reason: str) -> bytes:
    """Do not deliver it again."""
    return f"+TERM {' '.join(reason.split())[:200]}".encode()


def is_receipt(text: str, *, stream: str, consumer: str) -> bool:
    """Whether it is a receipt of this consumer, and so of nobody else's messages."""
    pattern = rf"\$JS\.ACK\.{re.escape(stream)}\.{re.escape(consumer)}(\.\d{{1,20}}){{5}}"
    return re.fullmatch(pattern, text, re.ASCII) is not None


def sequence_of(receipt: str) -> int:
    """The message's place in its stream."""
    return int(receipt.split(".")[5])


def delivered_of(receipt: str) -> int:
    """How often it was handed out."""
    return int(receipt.split(".")[4])
