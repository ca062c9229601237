"""What the scheduler hears: FLEET, CONFIG, leases and telemetry into the table, silence out of it.

Nothing is decided before the table is warm: FLEET, LEASES and CONFIG read to their ends, and what the
last run left untold told.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from chassis.bus import BusError, CaughtUp, Conflict, Expect, Incoming, Start
from chassis.kv import entry, stream_of, subject_of
from chassis.service import Rig
from schemas import subjects
from schemas.events import HostReturned, HostSilent
from schemas.ids import HostName, is_name
from schemas.telemetry import HostSample
from services.scheduler.config import CONFIG, FOLLOWED, define
from services.scheduler.fleet import Fleet
from services.scheduler.ledger import FLEET, Ledger, learn
from services.scheduler.messages import SENDER, silent
from services.scheduler.model import Refused
from services.scheduler.settings import SchedulerSettings
from services.scheduler.silence import newly_silent, returned

LEASES = stream_of(subjects.KV_LEASES)
NEWEST = Start(at="last_per_subject")
NOT_YET = "the scheduler has not heard the fleet yet"

log = structlog.get_logger()


class FrameHead(Struct, frozen=True, kw_only=True):
    """The part of a `HostFrame` that is weighed; the guests' columns are not even decoded."""

    host: HostName
    sample: HostSample


_head = msgspec.json.Decoder(FrameHead)


class Hearing:
    """Keeps the table true. Its loops run until cancelled."""

    def __init__(self, settings: SchedulerSettings, rig: Rig, fleet: Fleet, ledger: Ledger) -> None:
        self._settings = settings
        self._rig = rig
        self._fleet = fleet
        self._ledger = ledger
        self._caught_up = {stream: asyncio.Event() for stream in (FLEET, LEASES, CONFIG)}
        self._warm = asyncio.Event()
        self._hearing_since = 0.0
        self._first_seen_at: dict[str, float] = {}
        self._silent: set[str] = set()

    async def wait_until_warm(self) -> None:
        await self._warm.wait()

    @property
    def warm(self) -> bool:
        return self._warm.is_set()

    @property
    def settled(self) -> bool:
        """Whether a lease that is not there would have been heard by now."""
        heard_s = self._rig.clock.monotonic() - self._hearing_since
        return self.warm and heard_s > self._settings.settle_s

    async def may_turn(self, refused: Refused) -> bool:
        """Whether what is about to be heard may turn a refusal."""
        key, missing = refused.rests_on, refused.unregistered
        if key is not None and await self._ledger.define_again(key):
            return True
        if self.settled:
            return False
        return refused.unheard or (missing is not None and await self._ledger.has_called(missing))

    async def follow_fleet(self) -> None:
        everything = subject_of(subjects.KV_FLEET, ">")
        async with self._rig.bus.follow(FLEET, [everything], start=NEWEST) as messages:
            async for message in messages:
                if isinstance(message, CaughtUp):
                    self._caught_up[FLEET].set()
                else:
                    learn(self._fleet, entry(message))
                    self._ledger.term.heard(message.sequence)

    async def follow_config(self) -> None:
        async with self._rig.bus.follow(CONFIG, FOLLOWED, start=NEWEST) as messages:
            async for message in messages:
                if isinstance(message, CaughtUp):
                    self._caught_up[CONFIG].set()
                else:
                    define(self._fleet.definitions, entry(message))

    async def follow_leases(self) -> None:
        everything = subject_of(subjects.KV_LEASES, ">")
        async with self._rig.bus.follow(LEASES, [everything], start=NEWEST) as messages:
            async for message in messages:
                if isinstance(message, CaughtUp):
                    self._caught_up[LEASES].set()
                else:
                    self._hear_lease(message)

    def _hear_lease(self, message: Incoming) -> None:
        """A marker (the lease ran out) says nothing that the scheduler's own clock does not."""
        lease = entry(message)
        if lease.value is not None and is_name(lease.key):
            now = self._rig.clock.monotonic()
            self._fleet.heard_lease(lease.key, at=now, lease_s=self._settings.lease_s)

    async def listen_to_telemetry(self) -> None:
        frames = subjects.site_telemetry(site=self._rig.site)
        async with self._rig.bus.listen(frames) as messages:
            async for message in messages:
                self._hear_frame(message)

    def _hear_frame(self, message: Incoming) -> None:
        try:
            head = _head.decode(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.debug("frame_unreadable", subject=message.subject, why=str(error))
            return
        if message.subject == subjects.telemetry(site=self._rig.site, host=head.host):
            self._fleet.heard_sample(head.host, head.sample, at=self._rig.clock.monotonic())

    # silence

    async def keep_watch(self) -> None:
        """Warm up, then look for hosts that fall silent or return."""
        for heard in self._caught_up.values():
            await heard.wait()
        self._hear_anew()
        await self._finish_last_run()
        self._warm.set()
        log.info("scheduler_warm", hosts=len(self._fleet.hosts()))
        last_at = self._rig.clock.monotonic()
        while True:
            connected = self._rig.bus.connected
            await self._rig.clock.sleep(self._settings.watch_tick_s)
            now = self._rig.clock.monotonic()
            away = not connected or not self._rig.bus.connected
            if away or now - last_at > self._settings.lease_s:
                self._hear_anew()
            else:
                await self._watch(now)
            last_at = now

    async def _finish_last_run(self) -> None:
        while True:
            try:
                await self._ledger.tell_what_was_left()
                await self._recall_silence()
                return
            except BusError as error:
                log.warning("warming_up_again", why=str(error))
                await self._rig.clock.sleep(self._settings.retry_s)

    def _hear_anew(self) -> None:
        """The bus was away, or this process was: from now on silence counts again."""
        self._hearing_since = self._rig.clock.monotonic()
        self._fleet.hear_anew()

    async def _recall_silence(self) -> None:
        """Which hosts were told silent by the last run and have not been told to be back."""
        for host in self._fleet.hosts():
            gone = await self._told_last(HostSilent, host.name)
            if gone > await self._told_last(HostReturned, host.name):
                self._silent.add(host.name)

    async def _told_last(self, event: type[HostSilent | HostReturned], host: str) -> int:
        subject = subjects.event(event, site=self._rig.site, source=SENDER, id=host)
        last = await self._rig.bus.last(subjects.EVENTS, subject)
        return last.sequence if last else 0

    async def _watch(self, now: float) -> None:
        hosts = self._fleet.hosts()
        for host in hosts:
            self._first_seen_at.setdefault(host.name, now)
        since = {name: max(at, self._hearing_since) for name, at in self._first_seen_at.items()}
        was, limits = frozenset(self._silent), self._settings.limits
        gone = newly_silent(hosts, silent=was, listening_since=since, now=now, limits=limits)
        for name, silent_s in gone.items():
            await self._tell(HostSilent(host=name, silent_s=round(silent_s, 1)))
        for name in returned(hosts, silent=was, now=now, limits=limits):
            await self._tell(HostReturned(host=name))

    async def _tell(self, said: HostSilent | HostReturned) -> None:
        """Told again at the next tick if the bus does not take it; once, however many schedulers watch."""
        gone = isinstance(said, HostSilent)
        try:
            told = await self._told_last(type(said), said.host)
            if told <= await self._told_last(HostReturned if gone else HostSilent, said.host):
                message = silent(said, self._ledger.voice, id=self._rig.ids.new())
                expect = Expect(sequence=told, over=message.subject)
                await self._ledger.say([replace(message, expect=expect)])
        except Conflict:
            log.debug("silence_told_by_another", host=said.host)
        except BusError as error:
            log.warning("silence_not_told", host=said.host, why=str(error))
            return
        (self._silent.add if gone else self._silent.discard)(said.host)
        log.warning("host_silent" if gone else "host_returned", host=said.host)
