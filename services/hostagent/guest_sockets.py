"""The sockets that guests' agents connect to, and reading frames from them. Nothing is judged here.

With AF_VSOCK one socket serves the whole host, and the kernel says whose a connection is. With the hybrid
form (vhost-user-vsock, Firecracker, cloud-hypervisor) each guest has a Unix socket of its own in its VM's
folder, `vsock.sock_<port>`, so that the socket itself says whose a connection is.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from chassis.clock import within
from chassis.service import Clock
from schemas.guest_frames import HEADER_BYTES
from services.hostagent import guest_frames
from services.hostagent.guest_frames import Refusal
from services.hostagent.settings import GuestAgentSettings

Transport = Literal["vsock", "unix", "off"]

DEVICE = Path("/dev/vhost-vsock")
RESERVED_PORTS = 1024
"""Below it, the guest's kernel demands a capability of whoever binds (LAST_RESERVED_PORT in vsock)."""
BACKLOG = 128


class Dropped(Exception):
    """The connection has to end; with `refusal` it is the guest's fault."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        super().__init__(refusal.detail if refusal else "closed")
        self.refusal = refusal


def transport_of(settings: GuestAgentSettings, device: Path = DEVICE) -> Transport:
    """What `auto` comes to on this host."""
    if settings.transport != "auto":
        return settings.transport
    usable = device.is_char_device() and os.access(device, os.R_OK | os.W_OK)
    return "vsock" if usable else "unix"


def unix_path(folder: Path, port: int) -> Path:
    """Where the hybrid form of a VM's vsock hands over what its guest sends to a port of the host's."""
    return folder / f"vsock.sock_{port}"


@contextmanager
def vsock_listener(port: int) -> Iterator[socket.socket]:
    """Raises OSError."""
    with closing(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)) as listener:
        listener.setblocking(False)
        listener.bind((socket.VMADDR_CID_ANY, port))
        listener.listen(BACKLOG)
        yield listener


@contextmanager
def unix_listener(path: Path, group: str) -> Iterator[socket.socket]:
    """Raises OSError, and LookupError for a group that this machine does not know."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        listener.setblocking(False)
        path.unlink(missing_ok=True)
        # Nobody connects before `listen`, and by then it is known who may.
        listener.bind(str(path))
        try:
            path.chmod(0o660 if group else 0o600)
            if group:
                shutil.chown(path, group=group)
            listener.listen(BACKLOG)
            yield listener
        finally:
            path.unlink(missing_ok=True)


async def accepted(listener: socket.socket) -> tuple[socket.socket, object]:
    """The next connection and its peer's address. Raises OSError."""
    line, peer = await asyncio.get_running_loop().sock_accept(listener)
    line.setblocking(False)
    return line, peer


async def frame(
    line: socket.socket, clock: Clock, *, limit: int, silence_s: float, stall_s: float
) -> bytes:
    """The body of the next frame. Raises Dropped."""
    try:
        first = await within(clock, silence_s, _some(line, 1))
    except TimeoutError:
        raise Dropped(Refusal("stalled", f"silent for {silence_s:g} s")) from None
    try:
        return await within(clock, stall_s, _rest(line, first, limit))
    except TimeoutError:
        raise Dropped(Refusal("stalled", f"a frame took longer than {stall_s:g} s")) from None


async def send(line: socket.socket, data: bytes, clock: Clock, *, stall_s: float) -> None:
    """Raises Dropped, also where the guest takes nothing in."""
    try:
        await within(clock, stall_s, asyncio.get_running_loop().sock_sendall(line, data))
    except TimeoutError:
        raise Dropped(Refusal("stalled", f"took nothing in for {stall_s:g} s")) from None
    except OSError:
        raise Dropped from None


async def _rest(line: socket.socket, first: bytes, limit: int) -> bytes:
    header = first + await _exactly(line, HEADER_BYTES - len(first))
    length = guest_frames.length_of(header)
    if length > limit:
        # Whatever follows is not even looked at.
        raise Dropped(Refusal("too_long", f"a frame of {length} bytes"))
    return await _exactly(line, length)


async def _exactly(line: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        parts.append(await _some(line, count))
        count -= len(parts[-1])
    return b"".join(parts)


async def _some(line: socket.socket, most: int) -> bytes:
    try:
        data = await asyncio.get_running_loop().sock_recv(line, most)
    except OSError:
        raise Dropped from None
    if not data:
        raise Dropped
    return data


def fits(path: Path) -> bool:
    """Whether a Unix socket can be there: its address is a field of 108 bytes (unix(7))."""
    return len(os.fsencode(path)) < 108
