"""Migrations: numbered SQL files, each applied once and for good, in order.

A file `0001_name.sql` in a package runs in a transaction of its own, under an advisory lock, so that
several processes may start at once. Its checksum is kept: a file that was changed after it was applied is
an error, and so are a gap and a database that is ahead of the program.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources

import structlog
from msgspec import Struct

from chassis.postgres import Connection, Postgres
from chassis.service import Retry

LOCK_TIMEOUT_S = 3600
"""Patience for another process's migrations, and for one of ours."""

log = structlog.get_logger()

_FILE = re.compile(r"^(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql$")

_TABLE = """
CREATE TABLE IF NOT EXISTS vireo_migrations (
    package text NOT NULL,
    number int NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, number)
)
"""


class Migration(Struct, frozen=True, kw_only=True):
    """One file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class MigrationError(Exception):
    """The files and the database don't go together; only a person can tell what to do."""


async def migrate(postgres: Postgres, package: str, *, last: int | None = None) -> list[Migration]:
    """Bring the database up to the package's migrations, or to one of them; returns those applied now.

    Waits for Postgres while it is away. Raises MigrationError.
    """
    wanted = read(package)[:last]
    done: list[Migration] = []
    while True:
        try:
            await _migrate(postgres, package, wanted, done)
            return done
        except Retry as retry:
            await asyncio.sleep(retry.after_s)


async def _migrate(
    postgres: Postgres, package: str, wanted: Sequence[Migration], done: list[Migration]
) -> None:
    # An advisory lock needs a number; the same package gives the same one everywhere.
    lock = zlib.crc32(package.encode())
    async with postgres.connection() as connection:
        # Waiting for others and migrating may take longer than any other statement.
        await connection.execute("SET statement_timeout = 0")
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", lock, timeout=LOCK_TIMEOUT_S)
            await connection.execute(_TABLE)
            for migration in pending(wanted, await _applied(connection, package)):
                await _apply(connection, package, migration)
                done.append(migration)
        finally:
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock_all()")
                await connection.execute("RESET statement_timeout")


def read(package: str) -> list[Migration]:
    """The migrations of a package, in order. Raises MigrationError on a gap or a strange name."""
    files = [file for file in resources.files(package).iterdir() if file.name.endswith(".sql")]
    return numbered({file.name: file.read_text(encoding="utf-8") for file in files})


def numbered(files: Mapping[str, str]) -> list[Migration]:
    """Files by name as migrations in order. Pure."""
    strange = sorted(name for name in files if not _FILE.match(name))
    if strange:
        raise MigrationError(f"no names of migrations (0001_name.sql): {', '.join(strange)}")
    found = [
        Migration(number=int(match["number"]), name=match["name"], sql=sql)
        for name, sql in sorted(files.items())
        if (match := _FILE.match(name))
    ]
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"migrations must count up from 0001: {', '.join(sorted(files))}")
    return found


def pending(wanted: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """What is still to be applied, given the checksums of what was. Pure. Raises MigrationError."""
    changed = [
        f"{migration.number:04}_{migration.name}"
        for migration in wanted
        if applied.get(migration.number, migration.checksum) != migration.checksum
    ]
    if changed:
        raise MigrationError(f"changed after they were applied: {', '.join(changed)}")
    ahead = sorted(set(applied) - {migration.number for migration in wanted})
    if ahead:
        raise MigrationError(
            f"the database is ahead of this program: it knows migration {ahead[-1]}"
        )
    return [migration for migration in wanted if migration.number not in applied]


async def _applied(connection: Connection, package: str) -> dict[int, str]:
    rows = await connection.fetch(
        "SELECT number, checksum FROM vireo_migrations WHERE package = $1", package
    )
    return {row["number"]: row["checksum"] for row in rows}


async def _apply(connection: Connection, package: str, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.sql, timeout=LOCK_TIMEOUT_S)
        await connection.execute(
            "INSERT INTO vireo_migrations (package, number, name, checksum) VALUES ($1, $2, $3, $4)",
            package,
            migration.number,
            migration.name,
            migration.checksum,
        )
    log.info("migration_applied", package=package, number=migration.number, name=migration.name)
