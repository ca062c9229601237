"""Server-sent events: bytes in, messages out. Pure; after WHATWG's HTML standard, section 9.2.6."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

_LINE_END = re.compile(rb"\r\n|\n|\r")


class Message(Struct, frozen=True, kw_only=True):
    event: str
    data: bytes
    id: str
    """The last id seen on the stream, by this message or one before it."""


class TooLong(ValueError):
    """A message is longer than the reader takes."""


class Reader:
    """Takes a stream's bytes in pieces of any size and gives back the messages that they complete.

    Lines are split as bytes: JSON may hold characters at which `str.splitlines` would cut too.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._rest = b""
        self._event = b""
        self._data: list[bytes] = []
        self._size = 0
        self.last_id = ""
        """The last id seen; a server may tell where a stream stands without sending a message."""

    def feed(self, piece: bytes) -> Iterator[Message]:
        """The messages that `piece` completes. Raises TooLong."""
        text = self._rest + piece
        # A carriage return at the end may be half of a line's end: look again when more is there.
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(text[: len(text) - len(held)])
        self._rest = rest + held
        for line in lines:
            message = self._line(line)
            if message is not None:
                yield message
        if self._size + len(self._rest) > self._limit:
            raise TooLong(f"an event is longer than {self._limit} bytes")

    def _line(self, line: bytes) -> Message | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        self._field(name, value.removeprefix(b" "))
        return None

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self.last_id = value.decode(errors="replace")

    def _dispatch(self) -> Message | None:
        event, data = self._event, self._data
        self._event, self._data, self._size = b"", [], 0
        if not data:
            return None
        return Message(
            event=event.decode(errors="replace") or "message",
            data=b"\n".join(data),
            id=self.last_id,
        )
