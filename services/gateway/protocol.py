"""HTTP/1.1 as the gateway takes it: read by httptools, within a limit to what is no body.

httptools itself collects request lines, headers and trailers of any size, and does not ask for a Host.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TOO_LARGE = "Request line and headers are too large."
MARKS_BYTES = 4
"""What a header takes beside its name and value: `: ` and the end of its line."""


class BoundedHttp(HttpToolsProtocol):
    """Takes `h11_max_incomplete_event_size` bytes of request line and headers, and as many of trailers;
    more is answered 400, and the connection closed."""

    def __init__(self, config: Config, *rest: Any, **named: Any) -> None:
        super().__init__(config, *rest, **named)
        self._most = config.h11_max_incomplete_event_size or 0
        self._outside = 0
        """Bytes received since the last that ended headers, or belonged to a body, or ended it."""

    def data_received(self, data: bytes) -> None:
        self._outside += len(data)
        super().data_received(data)
        if self._outside > self._most and not self.transport.is_closing():
            self.send_400_response(TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Raises ValueError, which uvicorn answers with 400, on what RFC 9112 or the limit forbids."""
        head = len(self.url) + sum(
            len(name) + len(value) + MARKS_BYTES for name, value in self.headers
        )
        hosts = sum(name == b"host" for name, _ in self.headers)
        if head > self._most or (hosts != 1 and self.parser.get_http_version() == "1.1"):
            raise ValueError(TOO_LARGE)
        self._outside = 0
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, _HeadWithBody(self.transport, self.loop))

    def on_body(self, body: bytes) -> None:
        self._outside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._outside = 0
        super().on_message_complete()


class _HeadWithBody:
    """As much of a transport as an answer is written to: its head goes with the body that follows at once,
    in one call, so that the client wakes once; if none does, at the end of this round of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            # asyncio's own transport never gets rid of an empty part, from Python 3.12 on.
            self._transport.writelines([held, data] if data else [held])
        elif self._begun:
            self._transport.write(data)
        else:
            self._begun = True
            self._held = data
            self._loop.call_soon(self._release)

    def close(self) -> None:
        self._release()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._transport.is_closing():
            self._transport.write(held)
