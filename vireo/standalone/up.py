"""`vireo up`: everything on this machine, until it is told to stop.

The shell around `plan` and `supervisor`. What was started is stopped again; state and guests stay.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

import vireo
from chassis import logs
from chassis.settings import LogSettings
from vireo.client import Client
from vireo.errors import Unavailable, VireoError
from vireo.standalone import binaries, postgres
from vireo.standalone.credentials import ensure_passwords, password_file, write_private
from vireo.standalone.nats import ADDRESS, OPERATOR_USER, natscli_context
from vireo.standalone.options import UpOptions
from vireo.standalone.plan import (
    DATABASES,
    Plan,
    Programs,
    credentials_dir,
    plan_children,
    secret_names,
)
from vireo.standalone.supervisor import Limits, Supervisor

NOT_INHERITED = ("VIREO_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "OTEL_")


class UpError(Exception):
    """`vireo up` cannot go on; the text says why and what to do."""


ONLINE_S = 20.0
"""Hosts that have not registered by then are told of, and nobody waits for them any longer."""
LOOK_S = 0.1


class Ready(Struct, frozen=True, kw_only=True):
    """What there is once everything runs."""

    url: str
    metrics_url: str | None
    """What Prometheus scrapes, if it is to."""
    admin_token_file: Path
    log_dir: Path
    pids: dict[str, int]
    missing: tuple[str, ...] = ()
    """Hosts that cannot take VMs yet."""


OnReady = Callable[[Ready], Awaitable[None]]


async def up(options: UpOptions, on_ready: OnReady, *, limits: Limits | None = None) -> None:
    """Start everything, call `on_ready` once, and return after SIGINT or SIGTERM when all has stopped.

    Raises UpError, ChildFailed, PostgresUnusable, ProgramMissing.
    """
    with _locked(options.state_dir):
        _log_to_stderr(options)
        refuse_taken(_listens(options))
        plan, place = await _prepare(options)
        supervisor = _supervisor(plan, place, options, limits)

        async def announce() -> None:
            await on_ready(
                Ready(
                    url=options.gateway_url,
                    metrics_url=options.metrics_url,
                    admin_token_file=options.admin_token_file,
                    log_dir=options.state_dir / "logs",
                    pids=supervisor.pids,
                    missing=await _not_online(options),
                )
            )

        async with _stopped_by_signals(supervisor):
            await supervisor.run(announce)


async def _not_online(options: UpOptions) -> tuple[str, ...]:
    """The hosts that are not there after a while, if the gateway lets itself be asked. A VM that is asked
    for before any is, is refused."""
    missing: set[str] | None = None
    # Whoever has taken the token elsewhere has taken its file away; a revoked one asks nothing. The end
    # of the patience is an OSError, too.
    with suppress(OSError, VireoError):
        token = options.admin_token_file.read_text(encoding="ascii").strip()
        async with asyncio.timeout(ONLINE_S), Client(options.gateway_url, token) as client:
            while missing is None or missing:
                with suppress(Unavailable):
                    there = {host.name async for host in client.hosts.list(state="online")}
                    missing = {host.name for host in options.hosts} - there
                await asyncio.sleep(LOOK_S)
    return tuple(sorted(missing or ()))


def _log_to_stderr(options: UpOptions) -> None:
    """Our own log lines; those of the children are in their files."""
    try:
        settings = msgspec.convert({"level": options.log_level}, LogSettings)
    except msgspec.ValidationError as error:
        raise UpError(f"--log-level: {error}") from error
    logs.configure(settings, service="up", instance=f"up-{os.getpid()}", site=options.site)


async def _prepare(options: UpOptions) -> tuple[Plan, postgres.Place]:
    """Everything that must be on disk before the first child starts."""
    setpriv = binaries.setpriv()
    if setpriv is None:
        raise binaries.ProgramMissing("no setpriv: install util-linux")
    programs = Programs(
        python=sys.executable, nats_server=str(binaries.nats_server()), setpriv=setpriv
    )
    place = postgres.find_place(
        options.state_dir / "postgres",
        binaries.postgres_installation(),
        system_user=options.system_user,
    )
    passwords = ensure_passwords(credentials_dir(options), secret_names(options))
    plan = plan_children(options, programs=programs, place=place, passwords=passwords)
    for file in plan.files:
        write_private(file.path, file.text)
    _make_directories(options)
    await postgres.initialize(place, passwords[postgres.SUPERUSER], setpriv=setpriv)
    return plan, place


def _make_directories(options: UpOptions) -> None:
    # QEMU may run as a user of its own and must reach disks and images; it may not list them.
    for directory in (options.images, options.state_dir / "hosts"):
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)


def _supervisor(
    plan: Plan, place: postgres.Place, options: UpOptions, limits: Limits | None
) -> Supervisor:
    async def ensure_databases() -> None:
        await postgres.ensure_databases(place, credentials_dir(options), DATABASES)

    return Supervisor(
        plan.children,
        run_dir=options.state_dir / "run",
        log_dir=options.state_dir / "logs",
        environment=inherited(os.environ),
        once_ready={"postgres": ensure_databases},
        limits=limits,
    )


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What children get of our environment: their settings come from files alone."""
    kept = {name: value for name, value in environ.items() if not name.startswith(NOT_INHERITED)}
    # The children are to run the code that we run, wherever it lies.
    return kept | {"PYTHONPATH": str(Path(vireo.__file__).parents[1])}


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    """One `vireo up` per state directory. Raises UpError."""
    state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    with (state_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UpError(f"vireo up runs already on {state_dir}") from error
        yield


Listens = tuple[str, int, str]
"""An address, a port, and the option that names it."""


def _listens(options: UpOptions) -> list[Listens]:
    of_metrics = (ADDRESS, options.metrics_port, "--metrics-port")
    return [
        (options.gateway_address, options.gateway_port, "--port"),
        (ADDRESS, options.nats_port, "--nats-port"),
        *([of_metrics] if options.metrics_url is not None else []),
    ]


def refuse_taken(listens: Iterable[Listens]) -> None:
    """Raises UpError that names every port on which another program listens already."""
    taken = [
        f"cannot listen on {address} port {port} ({reason}): choose another {option}"
        for address, port, option in listens
        if (reason := _why_taken(address, port))
    ]
    if taken:
        raise UpError("; ".join(taken))


def _why_taken(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


@asynccontextmanager
async def _stopped_by_signals(supervisor: Supervisor) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, supervisor.stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def write_nats_context(state_dir: Path, *, nats_port: int, environ: Mapping[str, str]) -> Path:
    """Write a natscli context `vireo` for the operator; returns its file. Raises UpError."""
    secret = password_file(state_dir / "credentials", OPERATOR_USER)
    try:
        password = secret.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UpError(f"{secret} cannot be read ({error.strerror}): has vireo up run?") from error
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    file = Path(home) / "nats" / "context" / "vireo.json"
    write_private(file, natscli_context(url=f"nats://{ADDRESS}:{nats_port}", password=password))
    return file
