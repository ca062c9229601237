"""The record as a source of events, from its first to its last: out of the database or, where their month
was put away, out of its file.

Whoever makes something anew from the record reads it here, and does not see where it lies. A month may be
put away while it is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from chassis.signing import is_signed
from chassis.threads import Threads
from schemas.ledger import GENESIS
from schemas.problems import Problem, conflict
from schemas.seals import Anchor
from services.inventory.archives import Archive, archive_of, gone, last_before, last_until, with_row
from services.inventory.month_reader import MonthReader
from services.inventory.recorded import EVERYTHING, LAST, Damaged, Recorded, Selection, Stretch

T = TypeVar("T")
Queries = Mapping[str, str]
Fetch = Callable[..., Awaitable[list[Any]]]
"""A query and its values to rows, as a connection's `fetch` has it."""


class Unreadable(Exception):
    """Events of the record that cannot be had. `problem` says which, and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class EventSources:
    """What all who read the record have in common."""

    def __init__(
        self, queries: Queries, *, stream: str, folder: Path | None, key: str | None
    ) -> None:
        """`folder` has the files; `key` is the public key under which the anchors of months have to be,
        where there is one."""
        self._queries = queries
        self._stream = stream
        self._folder = folder
        self._key = key
        # One: calls about a file come one after the other, that which closes it last.
        self._threads = Threads(1, name="months")

    @asynccontextmanager
    async def open(self, selection: Selection = EVERYTHING) -> AsyncIterator[EventSource]:
        source = EventSource(self, selection)
        try:
            yield source
        finally:
            await source.close()

    async def rows_of(self, fetch: Fetch, since: datetime, until: datetime) -> tuple[int, int]:
        """The row after which those of a time begin, and their last one. In a file they are the month's:
        which of its rows are of that time is seen when it is read."""
        ((number, last),) = await fetch(self._queries["rows_of_time"], self._stream, since, until)
        known = await self.archives(fetch)
        return max(number, last_before(known, since)), max(last, last_until(known, until))

    async def archives(self, fetch: Fetch, *, after: int = 0, last: int = LAST) -> list[Archive]:
        """The months with rows after one, up to another, that were put away; the oldest first."""
        known = [archive_of(each) for each in await fetch(self._queries["archives"], self._stream)]
        return [each for each in known if each.anchor.last > after and each.anchor.first <= last]

    async def require(self, wanted: Sequence[Archive]) -> None:
        """Raises Unreadable where the files of these months are not all here."""
        away = await self._threads.run(partial(_lacking, wanted, self._folder))
        if away:
            raise Unreadable(gone(away))

    async def stored(
        self, fetch: Fetch, selection: Selection, *, after: int, limit: int
    ) -> Stretch:
        """What the database has."""
        asked = (self._stream, after, selection.last, limit)
        if selection.takes_all:
            rows = await fetch(self._queries["next_events"], *asked)
        else:
            filters = (selection.vm, selection.host, selection.operation, selection.types)
            rows = await fetch(self._queries["next_events_of"], *asked, *filters)
        events = [Recorded(**each) for each in rows]
        return Stretch(
            events=events,
            through=events[-1].number if events else after,
            more=len(events) == limit,
        )

    def reader(self, known: Sequence[Archive], archive: Archive, wanted: Selection) -> MonthReader:
        """Of the file of a month, one of those that are known. Raises Unreadable."""
        signed, anchor = archive.signed, archive.anchor
        if self._folder is None:
            raise Unreadable(gone([archive]))
        if not is_signed(signed) or self._key not in (None, signed.key):
            raise _unfit(anchor, f"its anchor is not signed with the key {self._key or signed.key}")
        before = [each.anchor.hash for each in known if each.anchor.last < anchor.first]
        previous = before[-1] if before else GENESIS.hex()
        return MonthReader(self._folder / anchor.file, anchor, previous, wanted)

    async def read(self, archive: Archive, work: Callable[[], T]) -> T:
        """What reads a month's file, in the thread. Raises Unreadable."""
        try:
            return await self._threads.run(work)
        except FileNotFoundError as error:
            raise Unreadable(gone([archive])) from error
        except Damaged as damage:
            raise _unfit(archive.anchor, str(damage)) from damage


class EventSource:
    """Of one who reads from front to back."""

    def __init__(self, sources: EventSources, selection: Selection) -> None:
        self._sources = sources
        self._selection = selection
        self._known: list[Archive] = []
        self._open: tuple[Archive, MonthReader] | None = None

    async def require(self, fetch: Fetch, *, after: int) -> None:
        """Raises Unreadable if it is seen already that not all that follows a row can be read."""
        wanted = await self._sources.archives(fetch, after=after, last=self._selection.last)
        await self._sources.require(wanted)

    async def next(self, fetch: Fetch, *, after: int, limit: int) -> Stretch:
        """What follows a row, which is not before that of the call before: at most so many, of one file or
        of the database. Raises Unreadable."""
        while (archive := with_row(self._known, after + 1)) is None:
            stored = await self._sources.stored(fetch, self._selection, after=after, limit=limit)
            # Asked after the rows, so that none of them was put away unseen.
            known = await self._sources.archives(fetch)
            if len(known) == len(self._known):
                return stored
            self._known = known
        reader = await self._reader(archive)
        while not await self._sources.read(archive, partial(reader.pass_by, after)):
            continue
        return await self._sources.read(archive, partial(reader.next, after, limit))

    async def _reader(self, archive: Archive) -> MonthReader:
        if self._open is None or self._open[0] != archive:
            await self.close()
            reader = self._sources.reader(self._known, archive, self._selection)
            self._open = (archive, reader)
        return self._open[1]

    async def close(self) -> None:
        if self._open is not None:
            archive, reader = self._open
            self._open = None
            await self._sources.read(archive, reader.close)


def _lacking(wanted: Sequence[Archive], folder: Path | None) -> list[Archive]:
    return [each for each in wanted if not folder or not (folder / each.anchor.file).exists()]


def _unfit(anchor: Anchor, what: str) -> Unreadable:
    which = f"{anchor.file}, rows {anchor.first} to {anchor.last}"
    return Unreadable(conflict(f"{which}: {what}: vireo audit verify --archives"))
