"""One thread that writes one SQLite file, and commits together what waits together.

Changes that wait at the same time share one transaction and one fsync; if one of them fails, each gets a
transaction of its own. What nobody waits for is held back a moment for company. What is written is the
journal's (`journal.py`).
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

GROUP = 256
"""At most so many changes share one commit."""
COMPANY_S = 0.005
"""How long changes that nobody waits for wait for one that somebody does."""


class JournalBroken(Exception):
    """The journal cannot be read or written: the agent must not go on."""


class _Job(Struct, frozen=True, eq=False):
    work: Work[object]
    answer: asyncio.Future[object] | None
    """None: nobody waits for it."""
    posts: bool
    """Whether it puts something into the outbox."""


class _Done(Struct, frozen=True, eq=False):
    job: _Job
    value: object = None
    error: JournalBroken | None = None


class Commits:
    """The thread, and what is handed in to it."""

    def __init__(self, *, posted: Callable[[], None]) -> None:
        """`posted` is called in the loop whenever something was put into the outbox."""
        self._posted = posted
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._broken: JournalBroken | None = None

    def start(self, db: sqlite3.Connection) -> None:
        """Write to this file, which belongs to the thread from now on."""
        loop = asyncio.get_running_loop()
        # A daemon: a process that is told to end at once must not wait for it.
        self._thread = threading.Thread(
            target=self._serve, args=(db, loop), name="journal", daemon=True
        )
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was handed in, then close the file."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def do(self, work: Work[T], *, posts: bool = False) -> T:
        """Raises JournalBroken if it fails, or something that nobody waited for has failed before."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(work, answer, posts))  # type: ignore[arg-type]
        return await answer

    def hand_in(self, work: Work[object], *, posts: bool = False) -> None:
        """Do it without anybody waiting for it."""
        self._jobs.put(_Job(work, None, posts))

    def _settle(self, done: Sequence[_Done]) -> None:
        """In the loop: tell everybody who waits for one of a group, or for the outbox."""
        if any(one.job.posts for one in done):
            self._posted()
        for one in done:
            if one.job.answer is None:
                self._broken = self._broken or one.error
            elif one.job.answer.done():
                continue
            elif error := one.error or self._broken:
                one.job.answer.set_exception(error)
            else:
                one.job.answer.set_result(one.value)

    def _serve(self, db: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while group := self._group():
                done = _commit(db, group)
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._settle, done)
        finally:
            db.close()

    def _group(self) -> list[_Job]:
        """The next jobs that go together, at least one; none when the journal is to be closed."""
        if (job := self._jobs.get()) is None:
            return []
        group = [job]
        awaited = job.answer is not None
        while len(group) < GROUP:
            try:
                job = self._jobs.get(timeout=0 if awaited else COMPANY_S)
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            group.append(job)
            awaited = awaited or job.answer is not None
        return group


def _commit(db: sqlite3.Connection, group: Sequence[_Job]) -> list[_Done]:
    """Do the jobs in one transaction, or else each in its own, so that one that fails leaves the others
    untouched."""
    try:
        db.execute("BEGIN IMMEDIATE")
        done = [_Done(job, job.work(db)) for job in group]
        db.execute("COMMIT")
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if len(group) == 1:
            return [_Done(group[0], error=JournalBroken(str(error)))]
        return [done for job in group for done in _commit(db, [job])]
    return done
