"""What the agent must not forget, in SQLite: assignments, records, unsent events, actions done.

Every change is on disk (WAL, `synchronous=FULL`) before the call returns; which are committed together is
`commits.py`'s.
No decision is made here but one: an older generation never replaces a newer one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from chassis.bus import Outgoing
from schemas.assignments import VmAssignment
from schemas.ids import VmId
from schemas.resources import GuestFacts
from services.hostagent.commits import Commits, JournalBroken
from services.hostagent.model import Record

VERSION = 2
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


class Unsent(Struct, frozen=True):
    """An event that waits in the outbox."""

    number: int
    message: Outgoing


class Journal:
    """One SQLite file, written by nobody else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.unsent = asyncio.Event()
        """Set whenever something was put into the outbox."""
        self._commits = Commits(posted=self.unsent.set)

    async def open(self) -> None:
        """Raises JournalBroken where the file cannot be used."""
        db = await asyncio.to_thread(_connect, self._path)
        self._commits.start(db)
        self.unsent.set()

    async def close(self) -> None:
        """Finish what was handed in, then close the file."""
        await self._commits.stop()

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

        return await self._commits.do(work, posts=superseded is not None)

    async def load(self) -> list[tuple[VmAssignment, Record]]:
        """Every assignment with its record."""

        def work(db: sqlite3.Connection) -> list[tuple[VmAssignment, Record]]:
            rows = db.execute("SELECT body FROM assignments ORDER BY vm").fetchall()
            assignments = [_assignment.decode(row[0]) for row in rows]
            return [(one, _read_record(db, one.vm)) for one in assignments]

        return await self._commits.do(work)

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

        await self._commits.do(work, posts=bool(messages))

    def hand_in(self, messages: Sequence[Outgoing]) -> None:
        """Write events soon, in the order of the calls, from whatever thread: for what would be said
        again after a crash. If it fails, whatever waits for the journal next does."""
        self._commits.hand_in(lambda db: _post(db, messages), posts=True)

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

        return await self._commits.do(work)

    # actions, guests, facts

    async def is_done(self, operation: str) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            found = db.execute("SELECT 1 FROM actions WHERE operation = ?", (operation,))
            return found.fetchone() is not None

        return await self._commits.do(work)

    async def finish(self, operation: str, messages: Sequence[Outgoing]) -> None:
        """An action was done (or refused): never again."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO actions (operation) VALUES (?)", (operation,))
            db.execute(
                "DELETE FROM actions WHERE rowid <= (SELECT max(rowid) FROM actions) - ?",
                (ACTIONS_KEPT,),
            )
            _post(db, messages)

        await self._commits.do(work, posts=True)

    async def guests(self) -> dict[VmId, tuple[int, GuestFacts]]:
        """What each guest's agent said last, and how often it has changed."""

        def work(db: sqlite3.Connection) -> dict[VmId, tuple[int, GuestFacts]]:
            rows = db.execute("SELECT vm, changes, body FROM guests").fetchall()
            return {vm: (changes, _guest.decode(body)) for vm, changes, body in rows}

        return await self._commits.do(work)

    async def guest_changed(
        self, vm: VmId, changes: int, facts: GuestFacts, message: Outgoing
    ) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO guests (vm, changes, body) VALUES (?, ?, ?)",
                (vm, changes, msgspec.json.encode(facts)),
            )
            _post(db, [message])

        await self._commits.do(work, posts=True)

    async def post(self, messages: Sequence[Outgoing]) -> None:
        """Put events into the outbox that no record goes with."""
        await self._commits.do(lambda db: _post(db, messages), posts=True)

    # the outbox

    async def waiting(self, limit: int) -> list[Unsent]:
        """The oldest unsent events, in the order in which they were told."""

        return await self._commits.do(lambda db: _unsent(db, limit))

    async def sent(self, up_to: int, *, keep: int, limit: int) -> list[Unsent]:
        """Everything up to this number is on the bus; answers what is `waiting` now. The newest `keep`
        are remembered."""

        def work(db: sqlite3.Connection) -> list[Unsent]:
            db.execute("UPDATE sent SET up_to = max(up_to, ?)", (up_to,))
            db.execute("DELETE FROM outbox WHERE number <= ?", (up_to - keep,))
            return _unsent(db, limit)

        return await self._commits.do(work)


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
