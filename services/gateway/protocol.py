"""HTTP/1.1 as the gateway takes it: read by httptools, within a limit to what is no body.

httptools itself collects request lines, headers and trailers of any size, and does not ask for a Host.
"""

from __future__ import annotations

from typing import Any

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

    def on_body(self, body: bytes) -> None:
        self._outside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._outside = 0
        super().on_message_complete()
