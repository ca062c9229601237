"""The log of one child: what it writes, kept within bounds, and its last lines for people."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

CHUNK_BYTES = 64 << 10
TAIL_LINES = 15


class LogFile:
    """Appends to a file that only its owner reads; when it grows too long it becomes `.1`."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._file: BinaryIO | None = None
        self._lines: deque[bytes] = deque(maxlen=TAIL_LINES)

    def __enter__(self) -> LogFile:
        self._file = self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    async def copy(self, descriptor: int) -> None:
        """Everything that comes out of a pipe, to its end; closes it."""
        reader = asyncio.StreamReader()
        with os.fdopen(descriptor, "rb", buffering=0) as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), pipe
            )
            try:
                while chunk := await reader.read(CHUNK_BYTES):
                    self.write(chunk)
            finally:
                transport.close()

    def write(self, chunk: bytes) -> None:
        if self._file is None:
            return
        if self._file.tell() + len(chunk) > self._most_bytes:
            self._file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self._open()
        self._file.write(chunk)
        self._lines.extend(chunk.splitlines())

    def tail(self) -> str:
        return "\n".join("  " + line.decode(errors="replace") for line in self._lines)

    def _open(self) -> BinaryIO:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)
