"""Files of whole months: written with their proof, and read back as an auditor would.

A file is one of `schemas.proofs`. It comes to its place whole and on the disk, or not at all.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from hashlib import file_digest
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from msgspec import Struct

from chassis.postgres import Postgres
from chassis.signing import is_signed
from chassis.threads import Threads
from schemas.ledger import months_later
from schemas.merkle import BLOCK
from schemas.proofs import FORMAT, Chain, Group, Title, check_file, proven_event
from schemas.wire import encode
from services.inventory.archives import Queries
from services.inventory.ledger_model import SealRow, place_of
from services.inventory.seal_days import Seals, signed

LEVEL = 6
"""Of compression."""


class Unfit(Exception):
    """The month cannot be put away; the text says why."""


class Month(Struct, frozen=True, kw_only=True):
    """The rows of a month, as the database has them."""

    begin: datetime
    first: int
    previous: bytes
    last: int
    hash: bytes
    received_at: datetime
    """When the last row was stored."""

    @property
    def end(self) -> datetime:
        return months_later(self.begin, 1)

    @property
    def chain(self) -> Chain:
        return Chain(
            first=self.first, previous=self.previous.hex(), last=self.last, hash=self.hash.hex()
        )

    def __str__(self) -> str:
        return f"{self.begin:%Y-%m}"


class MonthFiles:
    """Writes them. Raises Retry while Postgres is away, OSError, Unfit, Broken."""

    def __init__(
        self,
        postgres: Postgres,
        queries: Queries,
        *,
        stream: str,
        seals: Seals,
        threads: Threads,
    ) -> None:
        """`threads` do what blocks."""
        self._postgres = postgres
        self._queries = queries
        self._stream = stream
        self._seals = seals
        self._threads = threads

    async def write(self, month: Month, file: Path, *, now: datetime) -> None:
        """A file that is there stays as it is."""
        descriptor, name = mkstemp(dir=file.parent, prefix=_prefix(file))
        os.close(descriptor)
        try:
            with gzip.open(name, "wb", compresslevel=LEVEL) as out:
                async for lines in self._lines(month, now):
                    await self._threads.run(partial(out.write, lines))
            await self._threads.run(partial(_settle, Path(name), file))
        finally:
            Path(name).unlink(missing_ok=True)

    async def read_back(self, month: Month, file: Path) -> str:
        """The file's SHA-256, if it holds all rows of the month, each proven."""
        key = self._seals.signer.public
        return await self._threads.run(partial(read_back, month, file, key=key))

    async def _lines(self, month: Month, now: datetime) -> AsyncIterator[bytes]:
        selection = {"since": month.begin.isoformat(), "until": month.end.isoformat()}
        yield _text(Title(ledger=FORMAT, stream=self._stream, exported_at=now, selection=selection))
        for seal in await self._seals_of(month):
            for low in range(seal.first, seal.last + 1, BLOCK):
                yield await self._group(seal, low, min(low + BLOCK - 1, seal.last))

    async def _seals_of(self, month: Month) -> list[SealRow]:
        """Those of its days. Raises Unfit: a file without some of its rows would be in the way for ever."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                self._queries["seals_of_rows"], self._stream, month.first, month.last
            )
        seals = [SealRow(**record) for record in records]
        ends = [month.first - 1, *(seal.last for seal in seals)]
        begins = [*(seal.first for seal in seals), month.last + 1]
        if begins != [end + 1 for end in ends]:
            raise Unfit(f"not all days of {month} are sealed")
        return seals

    async def _group(self, seal: SealRow, first: int, last: int) -> bytes:
        """A block of a day's rows under its seal."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(self._queries["numbered_rows"], self._stream, first, last)
        numbers = range(first, last + 1)
        if [row["number"] for row in rows] != list(numbers):
            raise Unfit(f"not all rows from {first} to {last} are there once")
        proof = await self._seals.proof(seal, [number - seal.first for number in numbers])
        group = Group(
            seal=signed(seal), rows=tuple(numbers), proof=tuple(each.hex() for each in proof)
        )
        return _text(group, *(proven_event(row["envelope"], place_of(row)) for row in rows))


def read_back(month: Month, file: Path, *, key: str) -> str:
    """As `MonthFiles.read_back`, for a thread of its own. Raises Unfit, OSError."""
    try:
        with gzip.open(file) as lines:
            *_, end = _unfaulted(lines, key)
    except EOFError as error:
        raise Unfit(f"{file} is not whole") from error
    if end.chain != month.chain or end.proven != month.last - month.first + 1:
        raise Unfit(f"{file} does not hold the rows {month.first} to {month.last}, each proven")
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def _unfaulted(lines: Any, key: str) -> Any:
    for step in check_file(lines, key=key, is_signed=is_signed):
        for each in step.findings:
            raise Unfit(f"{lines.name}, line {each.line}: {each.what}")
        yield step


def _text(*lines: Struct) -> bytes:
    return b"".join(encode(line) + b"\n" for line in lines)


def _prefix(file: Path) -> str:
    return f".{file.name}."


def _settle(part: Path, file: Path) -> None:
    """Give a whole file its name, on the disk; one that is there already is another's, and stays."""
    if file.exists():
        return
    _sync(part)
    # A link, unlike a renaming, takes nothing away.
    with suppress(FileExistsError):
        os.link(part, file)
    _sync(file.parent)
    for left in file.parent.glob(f"{_prefix(file)}*"):
        left.unlink(missing_ok=True)  # of those who were killed


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
