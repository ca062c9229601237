"""Learning that a child is ready: it says so, or something answers where it should."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from vireo.standalone.child import Notified, PortAnswers, Readiness, SocketAnswers

PROBE_S = 0.05
DATAGRAM_BYTES = 4096


class Watch:
    """Watches for one child's readiness, for one life of it."""

    def __init__(self, readiness: Readiness, path: Path) -> None:
        self._readiness = readiness
        self._path = path
        self._socket: socket.socket | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """What the child must find in its environment."""
        return {"NOTIFY_SOCKET": str(self._path)} if isinstance(self._readiness, Notified) else {}

    async def __aenter__(self) -> Watch:
        if isinstance(self._readiness, Notified):
            self._path.unlink(missing_ok=True)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._path.unlink(missing_ok=True)

    async def ready(self) -> None:
        """Returns when the child is ready."""
        if self._socket is not None:
            await self._notified(self._socket)
            return
        while not await self._answers():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(PROBE_S)

    async def _notified(self, receiver: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await loop.sock_recv(receiver, DATAGRAM_BYTES)
            if b"READY=1" in message.split(b"\n"):
                return

    async def _answers(self) -> bool:
        try:
            match self._readiness:
                case PortAnswers(address, port):
                    _, writer = await asyncio.open_connection(address, port)
                case SocketAnswers(path):
                    _, writer = await asyncio.open_unix_connection(path)
                case Notified():
                    return False
        except OSError:
            return False
        writer.close()
        return True
