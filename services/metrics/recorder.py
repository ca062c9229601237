"""The shell: minute by minute from the rings to Postgres, and level by level from the finer to the coarser.

While Postgres is away nothing is queued: the rings hold the last hour anyway, and what is older by the
time it is back is a gap. Whoever starts anew goes on with the minute in which it started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import structlog

from chassis.service import Clock, Retry
from schemas.telemetry import MAX_VMS_PER_FRAME
from services.metrics.entries import Entries, joined, summed_up
from services.metrics.levels import FINEST, Level, floored
from services.metrics.rings import Block, Key, Rings
from services.metrics.store import Store, entity

log = structlog.get_logger()

FORGET_S = 3600.0
"""How often to look for what is older than its level keeps."""


class Recorder:
    """Writes what the rings hold. `settle_s`: how long after its end a minute may still be told of.
    `vms_per_host`: most VMs of one host in a minute; what a host tells of beyond it is not stored."""

    def __init__(
        self, rings: Rings, clock: Clock, *, settle_s: float, vms_per_host: int = MAX_VMS_PER_FRAME
    ) -> None:
        self._rings = rings
        self._clock = clock
        self._settle_s = settle_s
        self._vms_per_host = vms_per_host
        self.refused = 0
        """VMs that were not stored, one of too many of their host, counted in each minute anew."""
        self._done_s = floored(clock.now().timestamp(), FINEST.step_s)
        self._forgot_s = 0.0

    @property
    def behind_s(self) -> float:
        """How long ago the first moment was that is not stored yet."""
        return max(0.0, self._clock.now().timestamp() - self._done_s)

    async def run(self, store: Store) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(self._until_next_s())
            try:
                await self.catch_up(store)
            except Retry as away:
                log.warning("history_waits", reason=str(away), behind_s=round(self.behind_s))

    def _until_next_s(self) -> float:
        now_s = self._clock.now().timestamp()
        past_s = (now_s - self._settle_s) % FINEST.step_s
        return FINEST.step_s - past_s

    async def catch_up(self, store: Store) -> None:
        """Write every minute that is over, and what follows from them. Raises Retry."""
        now_s = self._clock.now().timestamp()
        await self._write_until(store, floored(now_s - self._settle_s, FINEST.step_s))
        for finer, level in pairwise(store.levels):
            await self._sum_up(store, finer, level, now_s)
        if now_s - self._forgot_s >= FORGET_S:
            await store.forget(now_s=now_s)
            self._forgot_s = now_s

    async def finish(self, store: Store) -> None:
        """Write all there is, the minute under way with it: nobody will hold it after us."""
        try:
            await self._write_until(store, int(self._clock.now().timestamp()) + 1)
        except Retry as away:
            log.warning("history_lost", reason=str(away), behind_s=round(self.behind_s))

    async def _write_until(self, store: Store, until_s: int) -> None:
        oldest_s = floored(until_s - self._rings.limits.window_s, FINEST.step_s)
        self._done_s = max(self._done_s, oldest_s)
        while self._done_s < until_s:
            told = await self._minute(self._done_s)
            if told:
                await store.append(FINEST, self._done_s, told)
            await store.advance(FINEST, self._done_s + FINEST.step_s)
            self._done_s += FINEST.step_s

    async def _minute(self, at_s: int) -> dict[str, bytes]:
        """The entry of everything that was told of in this minute."""
        found: dict[str, Entries] = {}
        told: dict[Key, set[str]] = {}
        for key, block, lines in self._rings.slices(at_s, at_s + FINEST.step_s):
            _join(found, entity("host", key[1]), summed_up(at_s, block.host[lines, None]))
            for name, entry in self._heeded(told.setdefault(key, set()), block, lines, at_s):
                _join(found, name, entry)
            await asyncio.sleep(0)
        return {name: entry.tobytes() for name, entry in found.items()}

    def _heeded(
        self, told: set[str], block: Block, lines: slice, at_s: int
    ) -> Iterator[tuple[str, Entries]]:
        """The VMs of a block but for those beyond their host's most; `told` are its so far."""
        for name, entry in _vms(block, lines, at_s):
            if name not in told and len(told) >= self._vms_per_host:
                self.refused += 1
            else:
                told.add(name)
                yield name, entry

    async def _sum_up(self, store: Store, finer: Level, level: Level, now_s: float) -> None:
        progress = await store.progress()
        ready_s = floored(progress.get(finer.number, 0), level.step_s)
        oldest_s = floored(now_s - finer.keep_s, level.step_s)
        # What was never summed up begins with what there is.
        next_s = max(progress.get(level.number, 0), oldest_s)
        while next_s < ready_s:
            await store.sum_up(level, next_s)
            next_s += level.step_s
            await store.advance(level, next_s)


def _vms(block: Block, lines: slice, at_s: int) -> list[tuple[str, Entries]]:
    entries = summed_up(at_s, block.vms[lines])
    told: Any = np.any(entries["count"], axis=1).tolist()
    return [
        (entity("vm", id), entries[place : place + 1])
        for id, place in block.place_of.items()
        if told[place]
    ]


def _join(found: dict[str, Entries], name: str, entry: Entries) -> None:
    """A VM that moved, and a host whose block was full, are told of twice in a minute."""
    before = found.get(name)
    found[name] = entry if before is None else joined([before, entry], at_s=int(entry["at"][0]))
