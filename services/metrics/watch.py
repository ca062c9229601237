"""The shell that asks how the control plane is: its services, its streams, its record, the names of VMs.

What belongs here: asking, and waiting. What is known afterwards is a value (`plane`). Whoever does not
answer makes nothing else unknown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from chassis.bus import BusError, CaughtUp, Start
from chassis.kv import stream_of, subject_of
from chassis.micro import ask
from chassis.service import Rig
from schemas import subjects
from schemas.audit import CheckLedger, LedgerCheck, LedgerState, ListGaps
from schemas.problems import Problem
from schemas.queries import Empty, ListHosts
from schemas.resources import Host
from services.metrics.plane import (
    SERVICES,
    LedgerFacts,
    Plane,
    VmName,
    gap_counts,
    learn_name,
    walked,
)
from services.metrics.settings import WatchSettings

log = structlog.get_logger()

T = TypeVar("T")

PAGE_ITEMS = 1000
WATCHED_STREAMS = (subjects.COMMANDS, subjects.EVENTS)
"""Whose consumers may fall behind; those of agents are as many as there are hosts."""


class _Page(Struct, frozen=True, kw_only=True):
    """A page whose items are read by whoever asked."""

    items: tuple[msgspec.Raw, ...]
    next: str | None = None


class _Silent(Exception):
    """Whoever was asked gave no answer, or refused."""


class Watch:
    """Knows the newest of what was asked for."""

    def __init__(self, rig: Rig, settings: WatchSettings) -> None:
        self._rig = rig
        self._settings = settings
        self._names: dict[str, VmName] = {}
        self._seen = Plane()

    @property
    def plane(self) -> Plane:
        """As it is now; what is learnt later does not change it."""
        return replace(self._seen, names=dict(self._names))

    async def follow_names(self) -> None:
        """What VMs are called stands in their assignments."""
        stream, keys = stream_of(subjects.KV_FLEET), subject_of(subjects.KV_FLEET, "vm.*.*")
        start = Start(at="last_per_subject")
        async with self._rig.bus.follow(stream, [keys], start=start) as messages:
            async for message in messages:
                if not isinstance(message, CaughtUp):
                    learn_name(self._names, message)

    async def look_around(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await self._rig.clock.sleep(self._settings.every_s)

    async def look(self) -> None:
        before = self._seen
        ledger = await _known(self._ledger())
        walk = await _known(self._walk()) if ledger is not None else None
        self._seen = Plane(
            hosts=await _known(self._hosts()),
            ready={service: await self._is_ready(service) for service in SERVICES},
            behind=await _known(self._behind()) or {},
            dead_letters=await _known(self._rig.bus.last_sequence(subjects.DEADLETTERS)),
            ledger=ledger,
            walk=before.walk if walk is None else walked(before.walk, walk),
        )

    async def _hosts(self) -> tuple[Host, ...]:
        raw = await self._all("host.list", lambda after: ListHosts(limit=PAGE_ITEMS, after=after))
        return tuple(msgspec.json.decode(each, type=Host) for each in raw)

    async def _ledger(self) -> LedgerFacts:
        state = await self._ask("inventory", "ledger.show", Empty(), LedgerState)
        raw = await self._all("ledger.gaps", lambda after: ListGaps(limit=PAGE_ITEMS, after=after))
        gaps: list[dict[str, Any]] = [msgspec.json.decode(each) for each in raw]
        return LedgerFacts(rows=state.rows, gaps=gap_counts(gaps), alarms=len(state.alarms))

    async def _walk(self) -> LedgerCheck:
        query = CheckLedger(after=self._seen.walk.through)
        return await self._ask("inventory", "ledger.check", query, LedgerCheck)

    async def _behind(self) -> Mapping[tuple[str, str], int]:
        return {
            (stream, each.consumer): each.messages
            for stream in WATCHED_STREAMS
            for each in await self._rig.bus.backlogs(stream)
        }

    async def _is_ready(self, service: str) -> bool:
        return await _known(self._ask(service, "ready", Empty(), Empty)) is not None

    async def _all(self, endpoint: str, query: Callable[[str | None], Struct]) -> list[msgspec.Raw]:
        """At most `most` items: beyond that the rest is not told."""
        found: list[msgspec.Raw] = []
        after: str | None = None
        while len(found) < self._settings.most:
            page = await self._ask("inventory", endpoint, query(after), _Page)
            found += page.items
            after = page.next
            if after is None:
                break
        return found[: self._settings.most]

    async def _ask(self, service: str, endpoint: str, query: Struct, kind: type[T]) -> T:
        timeout_s = self._settings.timeout_s
        answer = await ask(self._rig.bus, service, endpoint, query, timeout_s=timeout_s)
        if isinstance(answer, Problem):
            raise _Silent(answer.detail or answer.title)
        return msgspec.json.decode(answer, type=kind)


async def _known(asked: Awaitable[T]) -> T | None:
    """None: it could not be had now."""
    try:
        return await asked
    except (BusError, _Silent, msgspec.MsgspecError) as error:
        log.debug("plane_not_told", why=str(error))
        return None
