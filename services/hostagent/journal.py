"""What the agent must not forget, in SQLite: assignments, records, unsent events, actions done.

Every change is on disk (WAL, `synchronous=FULL`) before the call returns. Changes that wait at the same
time are committed together: one transaction and one fsync for all of them; if one of them fails, each gets
a transaction of its own. What nobody waits for is held back a moment for company.
No decision is made here but one: an older generation never replaces a newer one.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from chassis.bus import Outgoing
from schemas.assignments import VmAssignment
from schemas.ids import VmId
from schemas.resources import GuestFacts
from services.hostagent.model import Record

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

VERSION = 2
GROUP = 256
"""At most so many changes share one commit."""
COMPANY_S = 0.005
"""How long changes that nobody waits for wait for one that somebody does."""
ACTIONS_KEPT = 10_000
"""Far more than can come again: the bus keeps an action for a day at most."""

SCHEMA = """
CREATE TABLE assignments (vm TEXT PRIMARY KEY, generation INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE records (vm TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE guests (vm TEXT PRIMARY KEY, changes INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE actions (operation TEXT PRIMARY KEY);
CREATE TABLE facts (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE sent (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), up_to INTEGER NOT NULL);
INSERT INTO sent VALUES (1, 0);
"""
FROM_1 = """
CREATE TABLE sent (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), up_to INTEGER NOT NULL);
INSERT INTO sent SELECT 1, coalesce(max(number), 0) FROM outbox WHERE sent = 1;
DROP INDEX outbox_unsent;
ALTER TABLE outbox DROP COLUMN sent;
"""
"""Version 1 marked each event that was sent, where one number says it of all."""

_assignment = msgspec.json.Decoder(VmAssignment)
_record = msgspec.json.Decoder(Record)
_guest = msgspec.json.Decoder(GuestFacts)


class JournalBroken(Exception):
    """The journal cannot be read or written: the agent must not go on."""


class Unsent(Struct, frozen=True):
    """An event that waits in the outbox."""

    number: int
    message: Outgoing


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


class Journal:
    """One SQLite file, written by one thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._broken: JournalBroken | None = None
        self.unsent = asyncio.Event()
        """Set whenever something was put into the outbox."""

    async def open(self) -> None:
        """Raises JournalBroken where the file cannot be used."""
        db = await asyncio.to_thread(_connect, self._path)
        loop = asyncio.get_running_loop()
        # A daemon: a process that is told to end at once must not wait for it.
        self._thread = threading.Thread(
            target=self._serve, args=(db, loop), name="journal", daemon=True
        )
        self._thread.start()
        self.unsent.set()

    async def close(self) -> None:
        """Finish what was handed in, then close the file."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    # assignments and records

    async def accept(self, assignment: VmAssignment, superseded: Outgoing | None) -> bool:
        """Keep an assignment if it is newer than the one kept. `superseded` is told if that other one's
        operation had not ended. Answers whether it was newer."""

        def work(db: sqlite3.Connection) -> bool:
            row = db.execute(
                "SELECT generation FROM assignments WHERE vm = ?", (assignment.vm,)
            ).fetchone()
            if row is not None and row[0] >= assignment.generation:
                return False
            if (
                superseded is not None
                and row is not None
                and row[0] > _read_record(db, assignment.vm).generation
            ):
                _post(db, [superseded])
            db.execute(
                "INSERT OR REPLACE INTO assignments (vm, generation, body) VALUES (?, ?, ?)",
                (assignment.vm, assignment.generation, msgspec.json.encode(assignment)),
            )
            return True

        return await self._do(work, posts=superseded is not None)

    async def load(self) -> list[tuple[VmAssignment, Record]]:
        """Every assignment with its record."""

        def work(db: sqlite3.Connection) -> list[tuple[VmAssignment, Record]]:
            rows = db.execute("SELECT body FROM assignments ORDER BY vm").fetchall()
            assignments = [_assignment.decode(row[0]) for row in rows]
            return [(one, _read_record(db, one.vm)) for one in assignments]

        return await self._do(work)

    async def say(
        self,
        record: Record,
        messages: Sequence[Outgoing],
        *,
        generation: int,
        ends: frozenset[str] = frozenset(),
    ) -> None:
        """Write a record and its events, decided under `generation`. Where a newer assignment has come
        in between, the events with the ids `ends` stay untold: their operation was ended by it."""

        def work(db: sqlite3.Connection) -> None:
            row = db.execute(
                "SELECT generation FROM assignments WHERE vm = ?", (record.vm,)
            ).fetchone()
            late = row is not None and row[0] > generation
            _write(db, record, [m for m in messages if not (late and m.message_id in ends)])

        await self._do(work, posts=bool(messages))

    def hand_in(self, messages: Sequence[Outgoing]) -> None:
        """Write events soon, in the order of the calls, from whatever thread: for what would be said
        again after a crash. If it fails, whatever waits for the journal next does."""
        self._jobs.put(_Job(lambda db: _post(db, messages), None, posts=True))

    async def forget(self, vm: VmId) -> bool:
        """Forget a VM that was ended and is told to be gone; any other is kept. Answers which."""

        def work(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT body FROM assignments WHERE vm = ?", (vm,)).fetchone()
            if row is None:
                return True
            assignment, record = _assignment.decode(row[0]), _read_record(db, vm)
            gone = record.known == "absent" and record.generation >= assignment.generation
            if not (assignment.ended and gone):
                return False
            db.execute("DELETE FROM assignments WHERE vm = ?", (vm,))
            db.execute("DELETE FROM records WHERE vm = ?", (vm,))
            db.execute("DELETE FROM guests WHERE vm = ?", (vm,))
            return True

        return await self._do(work)

    # actions, guests, facts

    async def is_done(self, operation: str) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            found = db.execute("SELECT 1 FROM actions WHERE operation = ?", (operation,))
            return found.fetchone() is not None

        return await self._do(work)

    async def finish(self, operation: str, messages: Sequence[Outgoing]) -> None:
        """An action was done (or refused): never again."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO actions (operation) VALUES (?)", (operation,))
            db.execute(
                "DELETE FROM actions WHERE rowid <= (SELECT max(rowid) FROM actions) - ?",
                (ACTIONS_KEPT,),
            )
            _post(db, messages)

        await self._do(work, posts=True)

    async def guests(self) -> dict[VmId, tuple[int, GuestFacts]]:
        """What each guest's agent said last, and how often it has changed."""

        def work(db: sqlite3.Connection) -> dict[VmId, tuple[int, GuestFacts]]:
            rows = db.execute("SELECT vm, changes, body FROM guests").fetchall()
            return {vm: (changes, _guest.decode(body)) for vm, changes, body in rows}

        return await self._do(work)

    async def guest_changed(
        self, vm: VmId, changes: int, facts: GuestFacts, message: Outgoing
    ) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO guests (vm, changes, body) VALUES (?, ?, ?)",
                (vm, changes, msgspec.json.encode(facts)),
            )
            _post(db, [message])

        await self._do(work, posts=True)

    async def post(self, messages: Sequence[Outgoing]) -> None:
        """Put events into the outbox that no record goes with."""
        await self._do(lambda db: _post(db, messages), posts=True)

    # the outbox

    async def waiting(self, limit: int) -> list[Unsent]:
        """The oldest unsent events, in the order in which they were told."""

        return await self._do(lambda db: _unsent(db, limit))

    async def sent(self, up_to: int, *, keep: int, limit: int) -> list[Unsent]:
        """Everything up to this number is on the bus; answers what is `waiting` now. The newest `keep`
        are remembered."""

        def work(db: sqlite3.Connection) -> list[Unsent]:
            db.execute("UPDATE sent SET up_to = max(up_to, ?)", (up_to,))
            db.execute("DELETE FROM outbox WHERE number <= ?", (up_to - keep,))
            return _unsent(db, limit)

        return await self._do(work)

    # the thread

    async def _do(self, work: Work[T], *, posts: bool = False) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(work, answer, posts))  # type: ignore[arg-type]
        return await answer

    def _settle(self, done: Sequence[_Done]) -> None:
        """In the loop: tell everybody who waits for one of a group, or for the outbox."""
        if any(one.job.posts for one in done):
            self.unsent.set()
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


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file in modes that outlive a power cut; its tables are made at the first time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        # Opened here, used by the journal's thread alone from then on.
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        _prepare(db)
    except (sqlite3.Error, OSError) as error:
        raise JournalBroken(f"{path}: {error}") from error
    return db


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION:d}; COMMIT;")
    elif version == 1:
        db.executescript(f"BEGIN; {FROM_1} PRAGMA user_version = {VERSION:d}; COMMIT;")
    elif version != VERSION:
        raise JournalBroken(f"journal has version {version}, this agent reads {VERSION}")


def _read_record(db: sqlite3.Connection, vm: VmId) -> Record:
    row = db.execute("SELECT body FROM records WHERE vm = ?", (vm,)).fetchone()
    return Record(vm=vm) if row is None else _record.decode(row[0])


def _post(db: sqlite3.Connection, messages: Sequence[Outgoing]) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO outbox (id, subject, body) VALUES (?, ?, ?)",
        [(message.message_id, message.subject, message.data) for message in messages],
    )


def _write(db: sqlite3.Connection, record: Record, messages: Sequence[Outgoing]) -> None:
    _post(db, messages)
    db.execute(
        "INSERT OR REPLACE INTO records (vm, body) VALUES (?, ?)",
        (record.vm, msgspec.json.encode(record)),
    )


def _unsent(db: sqlite3.Connection, limit: int) -> list[Unsent]:
    rows = db.execute(
        "SELECT number, id, subject, body FROM outbox"
        " WHERE number > (SELECT up_to FROM sent) ORDER BY number LIMIT ?",
        (limit,),
    ).fetchall()
    return [Unsent(n, Outgoing(subject=s, data=b, message_id=i)) for n, i, s, b in rows]
