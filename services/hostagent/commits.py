"""Changes to one SQLite file, committed together if they wait together.

Changes that wait at the same time share one transaction and one fsync; if one of them fails, each gets a
transaction of its own. What nobody waits for is held back a moment for company. What is written is the
journal's (`journal.py`).

Statements run in the event loop: they take microseconds, and in a thread each would give the interpreter's
lock away and ask for it again. What waits for the disk is the commit, and it alone goes into a thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from chassis.threads import Threads

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
    """What is handed in, and the task that sees it committed."""

    def __init__(self, *, posted: Callable[[], None]) -> None:
        """`posted` is called in the loop whenever something was put into the outbox."""
        self._posted = posted
        self._jobs: deque[_Job] = deque()
        self._due = asyncio.Event()
        self._company_due = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._broken: JournalBroken | None = None

    def start(self, db: sqlite3.Connection) -> None:
        """Write to this file, which nobody else uses from now on."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._serve(db), name="journal")

    async def stop(self) -> None:
        """Finish what was handed in, then close the file."""
        if self._task is not None:
            self._closing = True
            self._due.set()
            await self._task
            self._task = None

    async def do(self, work: Work[T], *, posts: bool = False) -> T:
        """Raises JournalBroken if it fails, or something that nobody waited for has failed before."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(work, answer, posts))  # type: ignore[arg-type]
        self._due.set()
        return await answer

    def hand_in(self, work: Work[object], *, posts: bool = False) -> None:
        """Do it without anybody waiting for it; from whatever thread."""
        self._jobs.append(_Job(work, None, posts))
        if not self._company_due and not self._loop.is_closed():
            self._company_due = True
            self._loop.call_soon_threadsafe(self._loop.call_later, COMPANY_S, self._end_company)

    def _end_company(self) -> None:
        self._company_due = False
        self._due.set()

    async def _serve(self, db: sqlite3.Connection) -> None:
        threads = Threads(1, name="journal")
        try:
            while self._jobs or not self._closing:
                await self._due.wait()
                self._due.clear()
                while group := self._group():
                    self._settle(await _commit_together(db, group, threads))
                if self._closing:
                    self._due.set()
        finally:
            threads.close()
            db.close()

    def _group(self) -> list[_Job]:
        """The next jobs that go together."""
        return [self._jobs.popleft() for _ in range(min(GROUP, len(self._jobs)))]

    def _settle(self, done: Sequence[_Done]) -> None:
        """Tell everybody who waits for one of a group, or for the outbox."""
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


async def _commit_together(
    db: sqlite3.Connection, group: Sequence[_Job], threads: Threads
) -> list[_Done]:
    """Do the jobs in one transaction, or else each in its own, so that one that fails leaves the others
    untouched."""
    before = db.total_changes
    try:
        db.execute("BEGIN IMMEDIATE")
        done = [_Done(job, job.work(db)) for job in group]
        if db.total_changes == before:
            db.execute("COMMIT")
        else:
            await threads.run(lambda: db.execute("COMMIT"))
    except (sqlite3.Error, msgspec.MsgspecError):
        if db.in_transaction:
            db.execute("ROLLBACK")
        return await threads.run(lambda: [_commit(db, job) for job in group])
    return done


def _commit(db: sqlite3.Connection, job: _Job) -> _Done:
    try:
        db.execute("BEGIN IMMEDIATE")
        value = job.work(db)
        db.execute("COMMIT")
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        return _Done(job, error=JournalBroken(str(error)))
    return _Done(job, value)
