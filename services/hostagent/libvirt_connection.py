"""One connection to libvirt that comes back, its events, and its calls off the event loop.

libvirt's own event loop runs in a thread of this process, so that nothing that blocks asyncio can make
libvirt believe that we are dead, and the other way round.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import libvirt
import structlog

from chassis.threads import Threads
from services.hostagent.hypervisor import (
    Changed,
    Connected,
    Disconnected,
    GuestAnswers,
    HypervisorFailure,
    HypervisorUnavailable,
    Notice,
    Panicked,
    Rebooted,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")

KEEPALIVE_COUNT = 3
RECONNECT_FIRST_S = 0.2
RECONNECT_LONGEST_S = 3.0

LOST = frozenset(
    {
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    }
)
"""Errors that say nothing about the request: try again."""

PANICKED = (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED)

_loop_lock = threading.Lock()
_loop_started = False


class Own:
    """A lifecycle event that our own doing brings about. `comes`: whether it does."""

    comes = True


class Gone(Exception):
    """There is no such domain."""


def _ensure_event_loop() -> None:
    """libvirt's event loop is one per process, and must run before the first connection."""
    global _loop_started  # noqa: PLW0603 — libvirt keeps it process-wide too
    with _loop_lock:
        if _loop_started:
            return
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        # Without a timer the loop sleeps until a socket moves, and would overlook new connections.
        libvirt.virEventAddTimeout(500, lambda *_: None, None)
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _loop_started = True


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            log.error("libvirt_event_loop", error=str(error))
            time.sleep(1)


class LibvirtConnection:
    """Keeps one connection open. `pools` names groups of threads, so that calls of one kind that hang
    take nothing from the others."""

    def __init__(
        self, uri: str, *, pools: dict[str, int], timeout_s: float, keepalive_s: int
    ) -> None:
        self._uri = uri
        self._timeout_s = timeout_s
        self._keepalive_s = keepalive_s
        self._pools = {
            name: Threads(threads, name=f"libvirt-{name}") for name, threads in pools.items()
        }
        self._listeners: list[Callable[[Notice], None]] = []
        self._conn: Any = None
        self._lost: asyncio.Event | None = None
        self._callbacks: list[int] = []
        self._own: set[tuple[str, int]] = set()

    @property
    def connected(self) -> bool:
        return self._conn is not None

    def listen(self, listener: Callable[[Notice], None]) -> None:
        self._listeners.append(listener)

    async def run(self) -> None:
        """Connect, and again whenever the connection is lost; until cancelled."""
        wait_s = RECONNECT_FIRST_S
        try:
            while True:
                try:
                    await self._connect()
                except HypervisorUnavailable as error:
                    log.warning("libvirt_unreachable", uri=self._uri, error=str(error))
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, RECONNECT_LONGEST_S)
                    continue
                wait_s = RECONNECT_FIRST_S
                log.info("libvirt_connected", uri=self._uri)
                self.tell(Connected())
                assert self._lost is not None
                await self._lost.wait()
                log.warning("libvirt_lost", uri=self._uri)
                await self._disconnect()
                self.tell(Disconnected(reason="connection lost"))
        finally:
            await self._disconnect()
            for pool in self._pools.values():
                pool.close()

    async def call(
        self, pool: str, work: Callable[[Any], T], *, timeout_s: float | None = None
    ) -> T:
        """Run `work` with libvirt's connection in a thread of `pool`.

        Raises Gone, HypervisorUnavailable, HypervisorFailure."""
        conn = self._conn
        if conn is None:
            raise HypervisorUnavailable("not connected to libvirt")
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                return await self._pools[pool].run(partial(work, conn))
        except TimeoutError as error:
            raise HypervisorUnavailable("libvirt did not answer in time") from error
        except libvirt.libvirtError as error:
            raise self._translated(error, conn) from error

    @contextmanager
    def own(self, domain: str, event: int) -> Iterator[Own]:
        """In a thread: the next lifecycle event of this kind about this domain is our own doing, and is
        not told. Should it not come, somebody else's is missed once: surveys are for that."""
        own, key = Own(), (domain, event)
        own.comes = True
        self._own.add(key)
        try:
            yield own
        except BaseException:
            own.comes = False
            raise
        finally:
            if not own.comes:
                self._own.discard(key)

    def in_flight(self, pool: str) -> int:
        """How many calls of a pool have not come back from libvirt, given up or not."""
        return self._pools[pool].in_hand

    def _translated(self, error: libvirt.libvirtError, conn: Any) -> Exception:
        code, text = error.get_error_code(), str(error)
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            return Gone(text)
        if not _is_alive(conn):
            if self._lost is not None and conn is self._conn:
                self._lost.set()
            return HypervisorUnavailable(text)
        return HypervisorUnavailable(text) if code in LOST else HypervisorFailure(text)

    async def _connect(self) -> None:
        _ensure_event_loop()
        loop = asyncio.get_running_loop()
        self._lost = lost = asyncio.Event()
        try:
            # A thread of its own: a connect that hangs must not hold a pool's thread.
            async with asyncio.timeout(self._timeout_s):
                self._conn = await asyncio.to_thread(self._open, loop, lost)
        except TimeoutError as error:
            raise HypervisorUnavailable("libvirt did not answer in time") from error
        except libvirt.libvirtError as error:
            raise HypervisorUnavailable(str(error)) from error

    def _open(self, loop: asyncio.AbstractEventLoop, lost: asyncio.Event) -> Any:
        conn = libvirt.open(self._uri)

        def post(notice: Notice) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.tell, notice)

        def is_own(domain: str, event: int) -> bool:
            found = (domain, event) in self._own
            self._own.discard((domain, event))
            return found

        def closed(_conn: Any, _reason: int, _opaque: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(lost.set)

        _where_supported(lambda: conn.setKeepAlive(self._keepalive_s, KEEPALIVE_COUNT))
        _where_supported(lambda: conn.registerCloseCallback(closed, None))
        callbacks = [
            _where_supported(partial(conn.domainEventRegisterAny, None, event, callback, None))
            for event, callback in _event_callbacks(post, is_own).items()
        ]
        self._callbacks = [number for number in callbacks if number is not None]
        return conn

    async def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        self._own.clear()
        if conn is not None:
            callbacks, self._callbacks = self._callbacks, []
            await asyncio.to_thread(_close, conn, callbacks)

    def tell(self, notice: Notice) -> None:
        """Give a notice to every listener; in the event loop."""
        for listener in self._listeners:
            listener(notice)


def _event_callbacks(
    post: Callable[[Notice], None], is_own: Callable[[str, int], bool]
) -> dict[int, Callable[..., None]]:
    def lifecycle(_conn: Any, domain: Any, event: int, detail: int, *_rest: object) -> None:
        uuid = domain.UUIDString()
        if is_own(uuid, event):
            return
        if (event, detail) == PANICKED:
            post(Panicked(domain=uuid))
        post(Changed(domain=uuid))

    def rebooted(_conn: Any, domain: Any, *_rest: object) -> None:
        post(Rebooted(domain=domain.UUIDString()))

    def agent(_conn: Any, domain: Any, state: int, *_rest: object) -> None:
        if state == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED:
            post(GuestAnswers(domain=domain.UUIDString()))

    return {
        libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lifecycle,
        libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: rebooted,
        libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: agent,
    }


def _where_supported(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return None


def _is_alive(conn: Any) -> bool:
    try:
        return bool(conn.isAlive())
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT)


def _close(conn: Any, callbacks: list[int]) -> None:
    """Callbacks go first: libvirt keeps a connection open as long as it has any."""
    for call in (
        *(partial(conn.domainEventDeregisterAny, number) for number in callbacks),
        conn.unregisterCloseCallback,
        conn.close,
    ):
        try:
            call()
        except libvirt.libvirtError as error:
            log.debug("libvirt_close", error=str(error))
