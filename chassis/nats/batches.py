"""Where a queue of messages may be cut into atomic batches. Pure.

The server holds every expectation of a batch against the stream as it was before the batch (seen on
2.15: two members that both expect nothing over `vm.1.*` are both stored). Messages that came
independently of each other must therefore not meet in a batch when one's expectation covers what an
earlier one writes, or two hosts would both win the same VM.
"""

from __future__ import annotations

from collections.abc import Iterable

from chassis.bus import Outgoing
from chassis.matching import Written
from chassis.nats.messages import wire_size

ROLLUP = "Nats-Rollup"


def batch_length(waiting: Iterable[Outgoing], *, most_messages: int, most_bytes: int) -> int:
    """How many of the first of `waiting` may go as one atomic batch: at least one if any wait.

    A message that clears away older ones goes alone; a repeated message id ends the batch, because the
    server refuses a batch with a duplicate as a whole.
    """
    written, ids, size, length = Written(), set[str](), 0, 0
    for message in waiting:
        size += wire_size(message.data, message.headers)
        alone = ROLLUP in message.headers
        if length and (alone or size > most_bytes or _clashes(message, written, ids)):
            break
        length += 1
        if alone or length == most_messages:
            break
        written.add(message.subject)
        if message.message_id is not None:
            ids.add(message.message_id)
    return length


def _clashes(message: Outgoing, written: Written, ids: set[str]) -> bool:
    if message.message_id in ids:
        return True
    return message.expect is not None and written.covered_by(message.expect.over)
