"""The same GETs over and over on kept connections, by one client or several, in a process of its own.

A general client takes longer over a large answer than a server does that has it at hand, on the same
cores; whatever is measured through it seems alike. This one reads into memory that is there already,
with one call for as much as is still to come.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

from msgspec import Struct

TIMEOUT_S = 60
HEAD_BYTES = 4096
"""More than any head takes; what of a body comes with it stays in front of the rest."""
MOST_BYTES = 16 << 20
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.I)


class Wanted(Struct, frozen=True, kw_only=True):
    """What each client asks for, one path after another, and that `times` over."""

    url: str
    paths: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    clients: int = 1
    times: int = 1


class Took(Struct, frozen=True, kw_only=True):
    """Seconds: of all together, and of each time that one client asked for all paths."""

    whole_s: float
    each_s: list[float]


class Repeating:
    """Asks in a process of its own, on connections that it keeps."""

    def __init__(self, told: Connection) -> None:
        self._told = told

    def ask(self, wanted: Wanted) -> Took:
        """Raises RuntimeError on any answer but 200."""
        self._told.send(wanted)
        took = self._told.recv()
        if isinstance(took, str):
            raise RuntimeError(took)
        found: Took = took
        return found


@contextmanager
def repeating() -> Iterator[Repeating]:
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_obey, args=(there,), daemon=True)
    process.start()
    try:
        yield Repeating(here)
    finally:
        process.terminate()
        process.join()


def _obey(told: Connection) -> None:
    kept: dict[tuple[str, int], _Client] = {}
    while True:
        wanted: Wanted = told.recv()
        places = [(wanted.url, number) for number in range(wanted.clients)]
        for place in places:
            if place not in kept:
                kept[place] = _Client(wanted.url)
        try:
            told.send(_asked([kept[place] for place in places], wanted))
        except (OSError, RuntimeError) as error:
            told.send(str(error))


def _asked(clients: Sequence[_Client], wanted: Wanted) -> Took:
    host = urlsplit(wanted.url).netloc
    lines = "".join(f"{name}: {value}\r\n" for name, value in (("host", host), *wanted.headers))
    requests = [f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode() for path in wanted.paths]
    with ThreadPoolExecutor(len(clients)) as threads:
        began = time.perf_counter()
        found = list(threads.map(lambda client: client.ask(requests, wanted.times), clients))
        whole_s = time.perf_counter() - began
    return Took(whole_s=whole_s, each_s=[each for some in found for each in some])


class _Client:
    """One connection, and the memory that is read into."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), TIMEOUT_S)
        # MSG_WAITALL waits on sockets without a timeout only.
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._memory = memoryview(bytearray(MOST_BYTES))

    def ask(self, requests: Sequence[bytes], times: int) -> list[float]:
        took = []
        for _ in range(times):
            began = time.perf_counter()
            for request in requests:
                self._get(request)
            took.append(time.perf_counter() - began)
        return took

    def _get(self, request: bytes) -> None:
        self._socket.sendall(request)
        head, there = self._head()
        length = LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200 ") or length is None:
            raise RuntimeError(head[:500].decode("latin-1"))
        missing = len(head) + int(length[1]) - there
        if (
            missing
            and self._socket.recv_into(self._memory[there:], missing, socket.MSG_WAITALL) != missing
        ):
            raise RuntimeError("the connection ended within an answer")

    def _head(self) -> tuple[bytes, int]:
        """The head of an answer; how many bytes were read, of its body, too."""
        there = 0
        while True:
            read = self._socket.recv_into(self._memory[there:HEAD_BYTES])
            there += read
            end = bytes(self._memory[:there]).find(b"\r\n\r\n")
            if end >= 0:
                return bytes(self._memory[: end + 4]), there
            if not read:
                raise RuntimeError("the connection ended before an answer")
