"""The connections of guest agents: whose each is, what may come over it, and what becomes of it.

A guest is a stranger. It is known by its connection alone, has one connection at a time, speaks within
rates, and is held off when it misbehaves; whatever one does costs the others nothing. What is taken goes
to `take`, which answers how often the guest is to speak from now on.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from chassis.service import Clock
from schemas.guest_frames import GuestFrame, HostWish
from schemas.ids import VmId
from services.hostagent import cids, guest_frames, guest_sockets
from services.hostagent.guest_frames import Reason, Refusal, Standing, bucket
from services.hostagent.guest_sockets import Dropped, Transport
from services.hostagent.hypervisor import HypervisorFailure
from services.hostagent.settings import GuestPushSettings

log = structlog.get_logger(__name__)

LOOK_S = 0.5
"""How often it is looked who runs."""
AGAIN_S = 5.0
"""How long after a socket could not be had, or has failed, it is tried again."""
REFUSED_S = 0.01
"""The least time between two refusals at the socket that all guests share."""
BURST = 10
"""At once, so many times what is allowed per second; of connections, so many."""

Take = Callable[[VmId, GuestFrame], Awaitable[float | None]]
"""Takes a frame in; answers the interval that the guest is to keep, or None where no such guest runs."""


class GuestLines:
    """All guests' connections. `running` says which VMs run, `folder` where a VM has its folder."""

    def __init__(
        self,
        *,
        transport: Transport,
        running: Callable[[], frozenset[VmId]],
        folder: Callable[[VmId], Path],
        take: Take,
        clock: Clock,
        settings: GuestPushSettings,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Frames taken, and what was dropped, by reason."""
        self._transport = transport
        self._running = running
        self._folder = folder
        self._take = take
        self._clock = clock
        self._settings = settings
        self._group: asyncio.TaskGroup | None = None
        self._standings: dict[VmId, Standing] = {}
        self._lines: dict[VmId, asyncio.Task[None]] = {}
        self._listeners: dict[VmId, asyncio.Task[None]] = {}
        self._cids: dict[int, VmId] = {}
        self._complaints: dict[VmId, str] = {}

    @property
    def connected(self) -> int:
        """How many guests have a connection."""
        return len(self._lines)

    async def run(self) -> None:
        """Hear guests until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            if self._transport == "vsock":
                self._group.create_task(self._shared(), name="guests-vsock")
            while True:
                self._follow(self._running())
                await self._clock.sleep(LOOK_S)

    # who is expected

    def _follow(self, running: frozenset[VmId]) -> None:
        for vm in sorted({*self._standings, *self._cids.values(), *self._listeners} - running):
            self._part(vm)
        if self._transport == "unix":
            for vm in sorted(running - set(self._listeners)):
                self._expect_on_unix(vm)
        elif self._transport == "vsock":
            for vm in sorted(running - set(self._cids.values())):
                self._expect_on_vsock(vm)

    def _part(self, vm: VmId) -> None:
        for tasks in (self._listeners, self._lines):
            if (task := tasks.pop(vm, None)) is not None:
                task.cancel()
        self._standings.pop(vm, None)
        self._complaints.pop(vm, None)
        self._cids = {cid: other for cid, other in self._cids.items() if other != vm}

    def _expect_on_unix(self, vm: VmId) -> None:
        folder = self._folder(vm)
        if folder.is_dir() and self._group is not None:
            path = guest_sockets.unix_path(folder, self._settings.port)
            listening = self._group.create_task(self._alone(vm, path), name=f"guest-socket-{vm}")
            self._listeners[vm] = listening

    def _expect_on_vsock(self, vm: VmId) -> None:
        """A domain that was defined before its host had vsock has no CID: nobody is expected."""
        try:
            cid = cids.held_by(self._folder(vm))
        except HypervisorFailure as failure:
            log.debug("guest_cid_unknown", vm=vm, error=str(failure))
        else:
            if cid is not None:
                self._cids[cid] = vm

    # who comes

    async def _shared(self) -> None:
        """The one socket of all guests."""
        while True:
            try:
                with guest_sockets.vsock_listener(self._settings.port) as listener:
                    while True:
                        line, peer = await guest_sockets.accepted(listener)
                        if not self._admit_by_cid(line, peer):
                            await self._clock.sleep(REFUSED_S)
            except OSError as error:
                self._complain("", f"vsock port {self._settings.port}: {error}")
                await self._clock.sleep(AGAIN_S)

    async def _alone(self, vm: VmId, path: Path) -> None:
        """One guest's own socket. While it is held off, what it wants waits there."""
        if not guest_sockets.fits(path):
            log.debug("guest_not_heard", vm=vm, error=f"too long for a socket: {path}")
            return
        while True:
            try:
                with guest_sockets.unix_listener(path, self._settings.socket_group) as listener:
                    while True:
                        line, _ = await guest_sockets.accepted(listener)
                        self._admit(vm, line)
                        await self._clock.sleep(self._held_off_s(vm))
            except (OSError, LookupError) as error:
                self._complain(vm, f"{path}: {error}")
                await self._clock.sleep(AGAIN_S)

    def _complain(self, vm: VmId, error: str) -> None:
        """Once, and again when it is something else; `vm` is empty where it is about all of them."""
        if self._complaints.get(vm) != error:
            log.warning("guest_not_heard", vm=vm, error=error)
        self._complaints[vm] = error

    def _admit_by_cid(self, line: socket.socket, peer: object) -> bool:
        cid, port = peer if isinstance(peer, tuple) else (-1, -1)
        vm = self._cids.get(cid)
        if vm is None:
            return self._turn_away(line, "unknown")
        if self._settings.reserved_ports_only and port >= guest_sockets.RESERVED_PORTS:
            return self._turn_away(line, "unprivileged")
        return self._admit(vm, line)

    def _admit(self, vm: VmId, line: socket.socket) -> bool:
        """A guest has one connection: the newest, for the older may be half of one."""
        if self._held_off_s(vm) > 0 or self._group is None:
            return self._turn_away(line, "held_off")
        standing = guest_frames.admitted(self._standing(vm), self._clock.monotonic())
        self._standings[vm] = standing
        if standing.connections.overdrawn:
            self._offended(vm, Refusal("flood", "too many connections"))
            return self._turn_away(line, "held_off")
        if (older := self._lines.pop(vm, None)) is not None:
            older.cancel()
        serving = self._group.create_task(self._serve(vm, line), name=f"guest-line-{vm}")
        serving.add_done_callback(lambda _: line.close())
        self._lines[vm] = serving
        return True

    def _turn_away(self, line: socket.socket, reason: Reason) -> bool:
        self.counts[reason] += 1
        line.close()
        return False

    # what comes

    async def _serve(self, vm: VmId, line: socket.socket) -> None:
        log.info("guest_connected", vm=vm)
        try:
            await self._hear(vm, line)
        except Dropped as dropped:
            log.info("guest_disconnected", vm=vm)
            if dropped.refusal is not None:
                self._offended(vm, dropped.refusal)
        finally:
            if self._lines.get(vm) is asyncio.current_task():
                del self._lines[vm]

    async def _hear(self, vm: VmId, line: socket.socket) -> None:
        """Frame after frame. Raises Dropped."""
        settings, clock = self._settings, self._clock
        told_s, floods = 0.0, 0
        while True:
            body = await guest_sockets.frame(
                line,
                clock,
                limit=settings.frame_bytes,
                silence_s=settings.silence_s + max(told_s, settings.interval_s),
                stall_s=settings.stall_s,
            )
            if not self._within_rates(vm, len(body)):
                floods += 1
                await self._flooded(floods)
                continue
            interval_s = await self._taken(vm, body)
            if interval_s != told_s:
                wish = guest_frames.encoded(HostWish(interval_s=interval_s))
                await guest_sockets.send(line, wish, clock, stall_s=settings.stall_s)
                told_s = interval_s

    async def _taken(self, vm: VmId, body: bytes) -> float:
        frame = guest_frames.read(body)
        if isinstance(frame, Refusal):
            raise Dropped(frame)
        interval_s = await self._take(vm, frame)
        if interval_s is None:
            # It has ended, or nobody has seen it start yet: no fault of its own.
            self.counts["unknown"] += 1
            raise Dropped
        self.counts["taken"] += 1
        forgiven_after = self._settings.forgiven_after
        self._standings[vm] = guest_frames.taken(self._standing(vm), forgiven_after=forgiven_after)
        return interval_s

    def _within_rates(self, vm: VmId, size: int) -> bool:
        standing = guest_frames.spoken(self._standing(vm), self._clock.monotonic(), size)
        self._standings[vm] = standing
        return guest_frames.within_rates(standing)

    async def _flooded(self, floods: int) -> None:
        """A frame too many is read and dropped; the next is read only when there may be one."""
        if floods >= self._settings.floods:
            raise Dropped(Refusal("flood", f"{floods} frames over the rates"))
        self.counts["flood"] += 1
        await self._clock.sleep(1 / self._settings.frames_per_s)

    # how it stands

    def _standing(self, vm: VmId) -> Standing:
        found = self._standings.get(vm)
        if found is None:
            settings, now_s = self._settings, self._clock.monotonic()
            found = Standing(
                frames=bucket(settings.frames_per_s, BURST * settings.frames_per_s, now_s),
                bytes_=bucket(settings.bytes_per_s, BURST * settings.bytes_per_s, now_s),
                connections=bucket(settings.connections_per_s, BURST, now_s),
            )
            self._standings[vm] = found
        return found

    def _held_off_s(self, vm: VmId) -> float:
        return max(0.0, self._standing(vm).held_off_until_s - self._clock.monotonic())

    def _offended(self, vm: VmId, refusal: Refusal) -> None:
        self.counts[refusal.reason] += 1
        self._standings[vm] = guest_frames.offended(
            self._standing(vm),
            self._clock.monotonic(),
            first_s=self._settings.hold_off_first_s,
            longest_s=self._settings.hold_off_longest_s,
        )
        held_off_s = round(self._held_off_s(vm), 1)
        log.warning(
            "guest_held_off",
            vm=vm,
            reason=refusal.reason,
            detail=refusal.detail,
            held_off_s=held_off_s,
        )
