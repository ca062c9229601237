"""What the agent must not forget, in SQLite: assignments, records, unsent events, actions done.

Every change is one transaction, on disk (WAL, `synchronous=FULL`) before the call returns. Changes that
wait at the same time are committed together: one fsync for all of them, each in a savepoint of its own.
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

VERSION = 1
GROUP = 256
"""At most so many changes share one commit."""
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
    body BLOB NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX outbox_unsent ON outbox (number) WHERE sent = 0;
"""

_assignment = msgspec.json.Decoder(VmAssignment)
_record = msgspec.json.Decoder(Record)
_guest = msgspec.json.Decoder(GuestFacts)


class JournalBroken(Exception):
    """The journal cannot be read or written: the agent must not go on."""


class Unsent(Struct, frozen=True):
    """An event that waits in the outbox."""

    number: int
    message: Outgoing


class _Job(Struct, frozen=True):
    work: Work[object]
    done: Callable[[object, BaseException | None], None]


class Journal:
    """One SQLite file, written by one thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.unsent = asyncio.Event()
        """Set whenever something was put into the outbox."""

    async def open(self) -> None:
        """Raises JournalBroken where the file cannot be used."""
        db = await asyncio.to_thread(_connect, self._path)
        # A daemon: a process that is told to end at once must not wait for it.
        self._thread = threading.Thread(target=self._serve, args=(db,), name="journal", daemon=True)
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
            record = _read_record(db, assignment.vm)
            if row is not None and row[0] > record.generation and superseded is not None:
                _post(db, [superseded])
            db.execute(
                "INSERT OR REPLACE INTO assignments (vm, generation, body) VALUES (?, ?, ?)",
                (assignment.vm, assignment.generation, msgspec.json.encode(assignment)),
            )
            return True

        newer = await self._do(work)
        self.unsent.set()
        return newer

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
            _post(db, [m for m in messages if not (late and m.message_id in ends)])
            db.execute(
                "INSERT OR REPLACE INTO records (vm, body) VALUES (?, ?)",
                (record.vm, msgspec.json.encode(record)),
            )

        await self._do(work)
        if messages:
            self.unsent.set()

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

        await self._do(work)
        self.unsent.set()

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

        await self._do(work)
        self.unsent.set()

    async def post(self, messages: Sequence[Outgoing]) -> None:
        """Put events into the outbox that no record goes with."""
        await self._do(lambda db: _post(db, messages))
        self.unsent.set()

    # the outbox

    async def waiting(self, limit: int) -> list[Unsent]:
        """The oldest unsent events, in the order in which they were told."""

        def work(db: sqlite3.Connection) -> list[Unsent]:
            rows = db.execute(
                "SELECT number, id, subject, body FROM outbox WHERE sent = 0"
                " ORDER BY number LIMIT ?",
                (limit,),
            ).fetchall()
            return [Unsent(n, Outgoing(subject=s, data=b, message_id=i)) for n, i, s, b in rows]

        return await self._do(work)

    async def sent(self, up_to: int, *, keep: int) -> None:
        """Everything up to this number is on the bus. The newest `keep` are remembered."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE outbox SET sent = 1 WHERE sent = 0 AND number <= ?", (up_to,))
            db.execute("DELETE FROM outbox WHERE sent = 1 AND number <= ?", (up_to - keep,))

        await self._do(work)

    # the thread

    async def _do(self, work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(value: object, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

        def done(value: object, error: BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, value, error)

        self._jobs.put(_Job(work, done))
        return await future

    def _serve(self, db: sqlite3.Connection) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                group = [job]
                stop = False
                while len(group) < GROUP and not self._jobs.empty():
                    following = self._jobs.get()
                    if following is None:
                        stop = True
                        break
                    group.append(following)
                _commit(db, group)
                if stop:
                    return
        finally:
            db.close()


def _commit(db: sqlite3.Connection, group: Sequence[_Job]) -> None:
    """Do the jobs in one transaction; a job that fails leaves the others untouched."""
    results: list[tuple[_Job, object, BaseException | None]] = []
    try:
        db.execute("BEGIN IMMEDIATE")
        results += [(job, *_attempt(db, job)) for job in group]
        db.execute("COMMIT")
    except sqlite3.Error as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        broken = JournalBroken(str(error))
        for job in group:
            job.done(None, broken)
        return
    for job, value, failure in results:
        job.done(value, failure)


def _attempt(db: sqlite3.Connection, job: _Job) -> tuple[object, BaseException | None]:
    db.execute("SAVEPOINT job")
    try:
        value = job.work(db)
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        db.execute("ROLLBACK TO job")
        return None, JournalBroken(str(error))
    finally:
        db.execute("RELEASE job")
    return value, None


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
