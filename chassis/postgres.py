"""Postgres: the pool, transactions that ask for another try, and named queries from a file.

What belongs here: reaching the database and outliving its restarts. Which tables there are is a
service's; migrations are `chassis.migrations`'. `jsonb` is text on our side: values are encoded and
decoded once, by msgspec, where they are used.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import structlog
from msgspec import Meta, Struct

from chassis.secret import read_secret
from chassis.service import Retry

log = structlog.get_logger()

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Connection = Any
"""An asyncpg connection (asyncpg has no types)."""


class PostgresSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Postgres."""

    host: str = "/var/run/postgresql"
    """Host name, address, or the directory of the server's Unix socket."""
    port: Annotated[int, Meta(ge=1, le=65_535)] = 5432
    """Port; it is part of a Unix socket's name, too."""
    database: str = "vireo"
    """Name of the database."""
    user: str = "vireo"
    """Role to connect as."""
    password_file: Path | None = None
    """File that holds its password; left out where the server trusts or knows the peer."""
    tls: bool = False
    """Insist on TLS with a certificate that the system's authorities vouch for."""
    pool_min: Annotated[int, Meta(ge=0, le=1000)] = 1
    """Connections kept open."""
    pool_max: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Connections at most."""
    connect_timeout_s: Seconds = 5
    """Patience for one try to connect."""
    statement_timeout_s: Seconds = 30
    """After which a statement is given up."""
    retry_first_s: Seconds = 0.1
    """Pause before the second try to connect; it doubles from try to try."""
    retry_most_s: Seconds = 2
    """The longest pause between two tries."""


GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""The server is away, starting, stopping, full or read-only: another try may find it otherwise."""

CLASHED = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""The transaction met another one: the same again may go through."""


class _Unchanged(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose session nobody changes: it needs no statement to put it back after each use.

    What is set is set for its transaction (`SET LOCAL`), and who takes a lock gives it back.
    """

    def get_reset_query(self) -> str:
        return ""


class Postgres:
    """A pool of connections to one database; made by `open_pool` or `connect`."""

    def __init__(
        self,
        pool: Any,
        settings: PostgresSettings,
        *,
        dial: Callable[[], Awaitable[Connection]],
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._dial = dial
        self._aside: Connection | None = None
        self._glancing = False
        self._closing = False
        self._answers = True

    @property
    def answers(self) -> bool:
        """Whether the last transaction reached the server."""
        return self._answers

    @asynccontextmanager
    async def transaction(
        self, *, isolation: str = "read_committed", readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """One transaction: committed when the block ends, undone when it raises.

        Raises Retry if the server is away or the transaction clashed with another.
        """
        with self._as_retry():
            async with self._pool.acquire(timeout=self._settings.connect_timeout_s) as connection:
                async with connection.transaction(isolation=isolation, readonly=readonly):
                    yield connection
                self._answers = True

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection without a transaction around it: for single reads. Raises Retry as above."""
        with self._as_retry():
            async with self._pool.acquire(timeout=self._settings.connect_timeout_s) as connection:
                yield connection
                self._answers = True

    async def glance(self, statement: str) -> list[Any]:
        """The records of one small read. It has a connection beside the pool, which costs more than such
        a read; whoever comes while that is in use is given one of the pool's. Raises Retry as above."""
        if self._glancing or self._closing:
            async with self.connection() as connection:
                pooled: list[Any] = await connection.fetch(statement)
                return pooled
        self._glancing = True
        try:
            with self._as_retry():
                if self._aside is None or self._aside.is_closed():
                    self._aside = await self._dial()
                found: list[Any] = await self._aside.fetch(statement)
                self._answers = True
                return found
        finally:
            self._glancing = False

    @contextmanager
    def _as_retry(self) -> Iterator[None]:
        try:
            yield
        except asyncpg.InterfaceError as error:
            # asyncpg has one type for a connection that went away and for calls that are wrong.
            if "clos" not in str(error):
                raise
            raise self._away(error) from error
        except asyncpg.InternalClientError as error:
            # The server's farewell was read, the end of the connection not yet.
            raise self._away(error) from error
        except CLASHED as error:
            raise Retry(self._settings.retry_first_s, type(error).__name__) from error
        except GONE as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> Retry:
        self._answers = False
        log.warning("postgres_away", error=type(error).__name__)
        return Retry(self._settings.retry_most_s, f"Postgres: {type(error).__name__}")

    async def check(self) -> bool:
        """Ask the server whether it is there; what readiness rests on while nothing else happens."""
        try:
            async with self.connection() as connection:
                await connection.execute("SELECT 1")
        except Retry:
            return False
        return True

    async def close(self) -> None:
        """Let what is under way finish, but not for ever."""
        self._closing = True
        aside, self._aside = self._aside, None
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                if aside is not None:
                    await aside.close()
                await self._pool.close()
        except (asyncpg.InterfaceError, *GONE):
            if aside is not None:
                aside.terminate()
            self._pool.terminate()

    async def watch(self, every_s: float = 2.0) -> None:
        """Keep `answers` true to the facts; for ever."""
        while True:
            await self.check()
            await asyncio.sleep(every_s)


async def open_pool(settings: PostgresSettings, *, name: str) -> Postgres:
    """A pool to the database; waits for the server for as long as it takes, saying so in the log.

    Whoever opens it closes it; `connect` does so by itself.
    """
    pool = await _pool_at_last(settings, name)
    return Postgres(pool, settings, dial=lambda: asyncpg.connect(**_arguments(settings, name)))


@asynccontextmanager
async def connect(settings: PostgresSettings, *, name: str) -> AsyncIterator[Postgres]:
    """`open_pool` while the context lasts."""
    postgres = await open_pool(settings, name=name)
    try:
        yield postgres
    finally:
        await postgres.close()


async def _pool_at_last(settings: PostgresSettings, name: str) -> Any:
    wait_s = settings.retry_first_s
    while True:
        try:
            return await asyncpg.create_pool(
                **_arguments(settings, name), min_size=settings.pool_min, max_size=settings.pool_max
            )
        except GONE as error:
            log.warning(
                "postgres_awaited",
                host=settings.host,
                database=settings.database,
                error=type(error).__name__,
                detail=str(error),
            )
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, settings.retry_most_s)


def _arguments(settings: PostgresSettings, name: str) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "database": settings.database,
        "user": settings.user,
        # Empty rather than None: else asyncpg would look into the user's ~/.pgpass.
        "password": read_secret(None, settings.password_file) or "",
        "ssl": "verify-full" if settings.tls else False,
        "connection_class": _Unchanged,
        "timeout": settings.connect_timeout_s,
        "command_timeout": settings.statement_timeout_s,
        "server_settings": {
            "application_name": name,
            "timezone": "UTC",
            "statement_timeout": str(int(settings.statement_timeout_s * 1000)),
        },
    }


_NAME = re.compile(r"^--\s*name:\s*(?P<name>\S+)\s*$")


def queries(text: str) -> Mapping[str, str]:
    """The queries of a `queries.sql` by their names, each under a line `-- name: vm_by_id`.

    Comments stay with their query. Raises ValueError if a name is repeated or malformed, or if a query
    is empty.
    """
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        match = _NAME.match(line)
        if match:
            lines = _opened(found, match["name"], number)
        elif lines is not None:
            lines.append(line)
    result = {name: "\n".join(body).strip() for name, body in found.items()}
    empty = [name for name, sql in result.items() if not _has_statement(sql)]
    if empty:
        raise ValueError(f"no SQL under {', '.join(empty)}")
    return result


def _opened(found: dict[str, list[str]], name: str, number: int) -> list[str]:
    if not name.isidentifier() or name in found:
        raise ValueError(f"line {number}: {name!r} is repeated or no plain name")
    return found.setdefault(name, [])


def _has_statement(sql: str) -> bool:
    return any(line.strip() and not line.strip().startswith("--") for line in sql.splitlines())


def load_queries(file: Path) -> Mapping[str, str]:
    """`queries` of a file."""
    return queries(file.read_text(encoding="utf-8"))
