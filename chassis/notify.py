"""systemd's notify protocol (sd_notify(3)): ready, alive, stopping. Silent where nobody listens.

`vireo up` listens too: it is how it learns that a child is ready.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping


class Notifier:
    """Datagrams to the socket that `NOTIFY_SOCKET` names."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environ)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    async def keep_alive(self) -> None:
        """Tell the watchdog twice per period that the event loop turns; for ever."""
        while self.watchdog_s is not None:
            self.alive()
            await asyncio.sleep(self.watchdog_s / 2)

    def _send(self, state: str) -> None:
        """Whether anybody hears it is not our concern: a lost datagram must not stop a service."""
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)
            except OSError:
                return


def _address(path: str) -> str | None:
    """Absolute paths, and Linux's abstract names, which begin with `@`."""
    if path.startswith("/"):
        return path
    return "\0" + path[1:] if path.startswith("@") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 1_000_000 if usec.isdigit() and int(usec) > 0 else None
