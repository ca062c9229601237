"""The library's client, without what takes it longer than everything else that is done with a message.

Between reading a message and handing it over it has a queue and a task; it looks at the names of headers
letter by letter; and what is said to many subjects it checks and writes one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from chassis.nats.parser import FastParser

PLAIN = b"NATS/1.0\r\n"
"""How headers begin that hold no status of the server's."""
Receive = Callable[[Msg], None]


class Route:
    """A subscription that outlives connections. Its messages are handed over as they are read."""

    def __init__(self, subject: str, queue: str, receive: Receive) -> None:
        self.subject = subject
        self.queue = queue
        self.receive = receive

    async def on_message(self, message: Msg) -> None:
        self.receive(message)


class Headers(Mapping[str, str]):
    """A message's headers, read when somebody asks for one: mostly nobody does."""

    __slots__ = ("_left_out", "_raw", "_said")

    def __init__(self, raw: bytes, *, left_out: Set[str] = frozenset()) -> None:
        self._raw = raw
        self._left_out = left_out
        self._said: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())

    def _read(self) -> dict[str, str]:
        if self._said is None:
            said = headers_in(self._raw)
            self._said = {name: said[name] for name in said if name not in self._left_out}
        return self._said

    def without(self, names: Set[str]) -> Headers:
        return Headers(self._raw, left_out=names)


def headers_in(raw: bytes) -> dict[str, str]:
    """Header lines by name; a line that is none is left out."""
    headers: dict[str, str] = {}
    for line in raw.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        words = name.split()
        if colon and len(words) == 1 and words[0].isascii():
            headers[words[0].decode("ascii")] = value.strip().decode("utf-8", "replace")
    return headers


class FastClient(Client):
    """A client whose subscribers are `Route.on_message`."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = FastParser(self, self._take, self._failed)
        self._writing_soon = False

    def _take(self, sid: int, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> bool:
        """Hand a message over, if it is for a route and says nothing of the server's own."""
        sub = self._subs.get(sid)
        route = getattr(sub._cb, "__self__", None) if sub is not None else None
        if not isinstance(route, Route):
            return False
        said: Any = None
        if headers:
            if not data or not headers.startswith(PLAIN):
                return False
            said = Headers(headers[len(PLAIN) :])
        route.receive(Msg(self, subject.decode(), reply.decode(), data, said))
        return True

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """Write what is said in this round of the event loop, together. Where the connection has not taken
        yet what was written before, the library's task waits for that."""
        if force_flush or not self.is_connected or self._unsent_bytes():
            return await super()._flush_pending(force_flush)
        if not self._writing_soon:
            self._writing_soon = True
            asyncio.get_running_loop().call_soon(self._write)
        return None

    def _write(self) -> None:
        self._writing_soon = False
        if not self._pending or self._transport is None or self._transport.at_eof():
            return  # closed meanwhile; whoever waits hears of it by the connection's end
        said, self._pending, self._pending_data_size = self._pending, [], 0
        self._transport.writelines(said)

    def _unsent_bytes(self) -> int:
        writer: Any = getattr(self._transport, "_io_writer", None)
        return writer.transport.get_write_buffer_size() if writer is not None else 0

    async def _failed(self, error: Exception) -> None:
        await self._error_cb(error)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        sub = self._subs.get(sid)
        route = getattr(sub._cb, "__self__", None) if sub is not None else None
        if not isinstance(route, Route):
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            if not self._take(sid, subject, reply, headers or b"", data):
                said = await self._process_headers(headers)
                route.receive(self._build_message(sid, subject, reply, data, said))
        except Exception as error:  # noqa: BLE001  as the library does: the connection goes on
            await self._failed(error)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        return headers_in(raw)

    async def publish_each(self, subjects: Sequence[str], payload: bytes) -> None:
        """The same few bytes to many subjects that the server itself has named, in one write."""
        line = b" %d\r\n%b\r\n" % (len(payload), payload)
        begun = b"PUB " + "\n".join(subjects).encode().replace(b"\n", line + b"PUB ")
        await self._send_command(begun + line)
        await self._flush_pending()
