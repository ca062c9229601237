"""Reading messages off the connection: as the library's parser does, but a read's worth at a time.

What belongs here: whole messages to subscriptions of ours, which is nearly all that ever comes. All else
(a message of which a part has not come, what is said about the connection, what nobody subscribed to) is
left to the library's parser, whose state and buffer these are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.protocol.parser import (
    AWAITING_CONTROL_LINE,
    AWAITING_MSG_PAYLOAD,
    CRLF_SIZE,
    Parser,
)

Taken = Callable[[int, bytes, bytes, bytes, bytes], bool]
"""Subscription, subject, reply, headers, data: whether the message was taken."""
Failed = Callable[[Exception], Awaitable[None]]


class FastParser(Parser):
    """`take` is handed each whole message; what it does not take, the library gets."""

    def __init__(self, client: object, take: Taken, failed: Failed) -> None:
        super().__init__(client)
        self._take = take
        self._failed = failed

    async def parse(self, data: bytes = b"") -> None:
        if self.state == AWAITING_MSG_PAYLOAD:
            missing = self.needed + CRLF_SIZE - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
        if self.state == AWAITING_CONTROL_LINE:
            if self.buf:
                data = bytes(self.buf) + data
                self.buf.clear()
            data = data[await self._messages(data) :]
        if data:
            await super().parse(data)

    async def _messages(self, data: bytes) -> int:
        """Take the messages that `data` begins with; how many bytes they are."""
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            words = data[at:end].split()
            sizes = _sizes(words)
            if sizes is None:
                return at
            begin = end + CRLF_SIZE
            body, stop = begin + sizes[0], begin + sizes[1]
            if len(data) < stop + CRLF_SIZE:
                return at
            reply = words[3] if len(words) == _WORDS[words[0]] else b""
            try:
                if not self._take(
                    int(words[2]), words[1], reply, data[begin:body], data[body:stop]
                ):
                    return at
            except Exception as error:  # noqa: BLE001  as the library does: the connection goes on
                await self._failed(error)
            at = stop + CRLF_SIZE
        return at


_WORDS = {b"MSG": 5, b"HMSG": 6}
"""How many words such a line has if it names a reply subject."""


def _sizes(words: list[bytes]) -> tuple[int, int] | None:
    """How long a message's headers and all of it are, by its first line; None for another line."""
    most = _WORDS.get(words[0]) if words else None
    if most is None or not most - 1 <= len(words) <= most:
        return None
    try:
        return int(words[-2]) if most == 6 else 0, int(words[-1])
    except ValueError:
        return None
