"""The one main of every service: settings → logs and traces → bus → streams → work → a clean end.

What belongs here: starting and stopping, in order. On SIGTERM or SIGINT a service stops fetching,
finishes what is in hand (`grace_s`), closes its stores, says good-bye to the bus and exits with 0.
Exit codes: 0 told to stop, 1 it broke, 2 its settings are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import structlog
import uvloop

from chassis import logs, tracing
from chassis.bus import Bus
from chassis.catalogue import config_of, ensure_streams
from chassis.clock import SystemClock
from chassis.ids import SystemIds
from chassis.nats.connect import connect
from chassis.notify import Notifier
from chassis.service import Clock, Ids, Rig, Service
from chassis.settings import ChassisSettings, SettingsError, load
from chassis.work import Work
from schemas.subjects import STREAMS

S = TypeVar("S", bound=ChassisSettings)
Build = Callable[[S, Rig], Awaitable[Service]]

log = structlog.get_logger()

OK, BROKEN, BAD_SETTINGS = 0, 1, 2
GARBAGE_LOOK = 100_000
"""So many new containers, net, before the youngest are looked through for cycles; Python says 700."""


def main(
    name: str,
    settings_type: type[S],
    build: Build[S],
    *,
    make_streams: bool = True,
    wait_for_bus: bool = True,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Run a service as this process.

    `make_streams`: whether it makes the catalogue's streams; an agent may not, and waits for them.
    `wait_for_bus`: whether it can do nothing before the bus is there; an agent can, and must.
    """
    wishes = _parser(name).parse_args(arguments)
    try:
        settings = load(settings_type, service=name, file=wishes.config, environ=os.environ)
    except SettingsError as error:
        _end(BAD_SETTINGS, f"{name}: {error}")
    if wishes.check_settings:
        _end(OK, f"{name}: the settings are good")
    instance = settings.instance or default_instance()
    logs.configure(settings.log, service=name, instance=instance, site=settings.site)
    try:
        provider = tracing.configure(
            settings.trace, service=name, instance=instance, site=settings.site
        )
    except (tracing.ExporterMissing, OSError) as error:
        _end(BAD_SETTINGS, f"{name}: trace: {error}")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(
                _until_signalled(
                    name, settings, build, make_streams=make_streams, wait_for_bus=wait_for_bus
                )
            )
    finally:
        tracing.close(provider)
    sys.exit(code)


def version() -> str:
    """The version of the distribution that runs."""
    try:
        return importlib.metadata.version("vireo")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"


def default_instance() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{name}",
        description=f"Run Vireo's {name} until SIGTERM or SIGINT.",
        epilog=f"Every setting can also be given as VIREO_… or VIREO_{name.upper()}_… in the "
        "environment; docs/reference/settings.md lists them.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="read settings from this TOML file"
    )
    parser.add_argument(
        "--check-settings", action="store_true", help="only say whether the settings are good"
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    return parser


def _end(code: int, text: str) -> NoReturn:
    (sys.stdout if code == OK else sys.stderr).write(text + "\n")
    sys.exit(code)


async def _until_signalled(
    name: str, settings: S, build: Build[S], *, make_streams: bool, wait_for_bus: bool
) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. A second signal ends it without any grace."""
    stop, started = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        run_until(
            stop,
            name,
            settings,
            build,
            make_streams=make_streams,
            wait_for_bus=wait_for_bus,
            notifier=Notifier(os.environ),
            started=started,
        )
    )

    def on_signal() -> None:
        if stop.is_set() or not started.is_set():
            task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        await task
    except asyncio.CancelledError:
        return OK
    except Exception:
        log.exception("service_broke")
        return BROKEN
    return OK


async def run_until(
    stop: asyncio.Event,
    name: str,
    settings: S,
    build: Build[S],
    *,
    make_streams: bool = True,
    wait_for_bus: bool = True,
    notifier: Notifier | None = None,
    started: asyncio.Event | None = None,
) -> None:
    """Run a service in this process until `stop` is set. Raises what broke it."""
    said = notifier or Notifier({})
    async with running(
        name,
        settings,
        build,
        make_streams=make_streams,
        wait_for_bus=wait_for_bus,
        notifier=said,
    ) as service:
        if started is not None:
            # A process of its own.
            _settle_memory()
            started.set()
        await service.until(stop)


@asynccontextmanager
async def running(
    name: str,
    settings: S,
    build: Build[S],
    *,
    make_streams: bool = True,
    wait_for_bus: bool = True,
    bus: Bus | None = None,
    clock: Clock | None = None,
    ids: Ids | None = None,
    notifier: Notifier | None = None,
) -> AsyncIterator[Work]:
    """A service at work while the context lasts; its end is the clean end.

    `bus`, `clock` and `ids` may be given, as scenarios do; else they are the real ones.
    """
    instance = settings.instance or default_instance()
    said = notifier or Notifier({})
    said.status("connecting")
    async with AsyncExitStack() as stack:
        if bus is None:
            bus = await stack.enter_async_context(
                _connected(name, instance, settings, wait=wait_for_bus)
            )
        rig = Rig(
            service=name,
            instance=instance,
            site=settings.site,
            bus=bus,
            clock=clock or SystemClock(),
            ids=ids or SystemIds(),
        )
        if make_streams:
            await ensure_streams(rig.bus, rig.clock)
        said.status("starting")
        service = await build(settings, rig)
        stack.push_async_callback(_close, service)
        work = Work(rig, service, settings, version=version(), notifier=said)
        log.info("service_started", description=service.description, version=version())
        async with work:
            yield work
    log.info("service_stopped")


def _settle_memory() -> None:
    """What was made until now stays for good: the garbage collector need not look at it again, and
    what comes and goes with each message makes few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_LOOK, 20, 20)


def _connected(
    name: str, instance: str, settings: ChassisSettings, *, wait: bool
) -> AbstractAsyncContextManager[Bus]:
    streams = [config_of(stream) for stream in STREAMS]
    return connect(settings.nats, name=f"vireo {name} {instance}", streams=streams, wait=wait)


async def _close(service: Service) -> None:
    if service.close is not None:
        await service.close()
