"""The last hour of every host and its VMs, tick by tick.

What belongs here: keeping, forgetting, and cutting out. How a frame becomes values is `columns`', how
values are summed up is `entries`'. Time comes in as an argument; a gap is NaN, never zero.

A host's ring is a row of blocks. A block holds some minutes: its memory is taken at once, one line per
tick and in it one place per VM. So a tick is one write, and a series is a slice. A VM that appears takes
one of the block's spare places; when there is none, or the block is full, the next block begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from services.metrics.columns import Measured, host_values, vm_values
from services.metrics.series import HOST_SERIES, VM_SERIES, Kind
from services.metrics.timing import grown_over, placed_at

Floats = NDArray[np.float64]
Values = NDArray[np.float32]
Key = tuple[str, str]
"""A host's site and name."""

MIB = 1024 * 1024
DEFAULT_TICK_S = 5.0
"""Of what nothing is known."""


class RingLimits(Struct, frozen=True, kw_only=True):
    """What bounds the rings; times in seconds, memory in MiB."""

    window_s: float = 3600
    memory_mib: int = 4096
    host_mib: int = 256
    skew_s: float = 30
    block_ticks: int = 60


class Tick(Struct, frozen=True, kw_only=True):
    """What goes into a ring: a frame's arrays, when it was made by the host's clock and when it came by
    ours (`now_s` of the day, `heard_s` of the steady clock)."""

    measured: Measured
    at_s: float
    now_s: float
    heard_s: float
    sequence: int
    interval_s: float


class Block:
    """Some ticks of one host, with a fixed number of places for VMs."""

    def __init__(self, *, ticks: int, places: int) -> None:
        self.used = 0
        self.times = np.zeros(ticks)
        self.host = np.full((ticks, len(HOST_SERIES)), np.nan, dtype=np.float32)
        self.vms = np.full((ticks, places, len(VM_SERIES)), np.nan, dtype=np.float32)
        self.place_of: dict[str, int] = {}
        self._ids: tuple[str, ...] | None = None
        self._places: Any = slice(0)

    @property
    def nbytes(self) -> int:
        return self.times.nbytes + self.host.nbytes + self.vms.nbytes

    def takes(self, ids: tuple[str, ...]) -> bool:
        """Whether there is a line left, and a place for each of these."""
        if self.used == len(self.times):
            return False
        if ids == self._ids:
            return True
        new = sum(id not in self.place_of for id in ids)
        return len(self.place_of) + new <= self.vms.shape[1]

    def add(self, at_s: float, host: Floats, ids: tuple[str, ...], vms: Values) -> list[str]:
        """Write a line; returns those VMs that had no place before."""
        new = [] if ids == self._ids else self._seat(ids)
        line, self.used = self.used, self.used + 1
        self.times[line] = at_s
        with np.errstate(over="ignore"):
            self.host[line] = host
        self.vms[line, self._places] = vms
        return new

    def _seat(self, ids: tuple[str, ...]) -> list[str]:
        new = [id for id in ids if id not in self.place_of]
        for id in new:
            self.place_of[id] = len(self.place_of)
        self._ids = ids
        places = [self.place_of[id] for id in ids]
        whole = places == list(range(len(places)))
        self._places = slice(len(places)) if whole else np.array(places, dtype=np.intp)
        return new

    def between(self, from_s: float, to_s: float) -> slice:
        """The lines of this time, its end not included."""
        first, last = np.searchsorted(self.times[: self.used], (from_s, to_s))
        return slice(int(first), int(last))


class HostRing:
    """One host's blocks, oldest first, and its counters as they were last."""

    def __init__(self) -> None:
        self.blocks: deque[Block] = deque()
        self.last: Tick | None = None
        self.last_s: float | None = None
        self.lost_s = 0.0
        """Up to when something was dropped before its time, for want of memory."""
        self.nbytes = 0

    def values_of(self, tick: Tick) -> tuple[Floats, Values]:
        """The host's and its VMs', with the rates since the tick before."""
        now, last = tick.measured, self.last
        if last is None:
            return host_values(now, None, 0.0), vm_values(now, None, 0.0)
        grown_s = grown_over(
            by_host_s=tick.at_s - last.at_s,
            by_arrival_s=tick.heard_s - last.heard_s,
            frames=tick.sequence - last.sequence,
            interval_s=tick.interval_s,
        )
        over_s = grown_s or 0.0
        return host_values(now, last.measured, over_s), vm_values(now, last.measured, over_s)

    def oldest_s(self) -> float | None:
        return float(self.blocks[0].times[0]) if self.blocks else None


class Rings:
    """All hosts' rings, bounded by `limits`: a host that tells of ever new VMs shortens its own past,
    and when all is full everybody's oldest goes first."""

    def __init__(self, limits: RingLimits) -> None:
        self.limits = limits
        self.nbytes = 0
        self.dropped = 0
        """Blocks that went before their time, for want of memory."""
        self._rings: dict[Key, HostRing] = {}
        self._told_by: dict[str, dict[Key, int]] = {}

    def put(self, key: Key, tick: Tick) -> float | None:
        """Keep a tick; returns when it counts as made, None if it was left out for lack of such a time."""
        ring = self._rings.setdefault(key, HostRing())
        at_s = placed_at(tick.at_s, now_s=tick.now_s, skew_s=self.limits.skew_s, last_s=ring.last_s)
        host, vms = ring.values_of(tick)
        ring.last = tick
        if at_s is None:
            return None
        ring.last_s = at_s
        ids = tick.measured.vms.ids
        for id in self._block(key, ring, ids).add(at_s, host, ids, vms):
            tellers = self._told_by.setdefault(id, {})
            tellers[key] = tellers.get(key, 0) + 1
        return at_s

    def forget(self, *, now_s: float) -> None:
        """Drop what is older than the window, and hosts of which nothing is left."""
        for key in sorted(self._rings):
            ring = self._rings[key]
            while ring.blocks and self._newest_s(ring.blocks[0]) < now_s - self.limits.window_s:
                self._drop(key, ring)
            if not ring.blocks:
                del self._rings[key]

    def _newest_s(self, block: Block) -> float:
        return float(block.times[block.used - 1]) if block.used else 0.0

    def _block(self, key: Key, ring: HostRing, ids: tuple[str, ...]) -> Block:
        if ring.blocks and ring.blocks[-1].takes(ids):
            return ring.blocks[-1]
        spare = max(4, len(ids) // 4)
        block = Block(ticks=self.limits.block_ticks, places=len(ids) + spare)
        self._make_room(key, ring, block.nbytes)
        ring.blocks.append(block)
        ring.nbytes += block.nbytes
        self.nbytes += block.nbytes
        return block

    def _make_room(self, key: Key, ring: HostRing, wanted: int) -> None:
        while ring.blocks and ring.nbytes + wanted > self.limits.host_mib * MIB:
            self._lose(key, ring)
        while self.nbytes + wanted > self.limits.memory_mib * MIB:
            oldest = self._oldest()
            if oldest is None:
                return
            self._lose(oldest, self._rings[oldest])

    def _oldest(self) -> Key | None:
        """The host that has the oldest block."""
        held = [(ring.oldest_s() or 0.0, key) for key, ring in self._rings.items() if ring.blocks]
        return min(held, default=(0.0, None))[1]

    def _lose(self, key: Key, ring: HostRing) -> None:
        ring.lost_s = self._newest_s(ring.blocks[0])
        self._drop(key, ring)
        self.dropped += 1

    def _drop(self, key: Key, ring: HostRing) -> None:
        block = ring.blocks.popleft()
        ring.nbytes -= block.nbytes
        self.nbytes -= block.nbytes
        for id in block.place_of:
            tellers = self._told_by[id]
            tellers[key] -= 1
            if not tellers[key]:
                del tellers[key]
            if not tellers:
                del self._told_by[id]

    # what is asked

    def host(self, name: str, from_s: float, to_s: float) -> list[tuple[Floats, Values]]:
        """Pieces of a host's series: times, and a row for each."""
        return [
            (block.times[lines], block.host[lines])
            for (_, host), ring in sorted(self._rings.items())
            if host == name
            for block in ring.blocks
            if (lines := block.between(from_s, to_s)).stop > lines.start
        ]

    def vm(self, id: str, from_s: float, to_s: float) -> list[tuple[Floats, Values]]:
        """Pieces of a VM's series, from every host that told of it."""
        return [
            (block.times[lines], block.vms[lines, block.place_of[id]])
            for key in sorted(self._told_by.get(id, ()))
            for block in self._rings[key].blocks
            if id in block.place_of and (lines := block.between(from_s, to_s)).stop > lines.start
        ]

    def whole_since(self, kind: Kind, name: str) -> float:
        """Since when nothing of a VM or a host was dropped before its time."""
        return max((ring.lost_s for ring in self._tellers(kind, name)), default=0.0)

    def tick_s(self, kind: Kind, name: str) -> float:
        """How often a VM or a host is told of."""
        told = [ring.last.interval_s for ring in self._tellers(kind, name) if ring.last is not None]
        return min(told, default=DEFAULT_TICK_S)

    def _tellers(self, kind: Kind, name: str) -> list[HostRing]:
        if kind == "vm":
            return [self._rings[key] for key in self._told_by.get(name, ())]
        return [ring for (_, host), ring in self._rings.items() if host == name]

    def slices(self, from_s: float, to_s: float) -> Iterator[tuple[Key, Block, slice]]:
        """All that was told in this time, by host and block; the rings may change meanwhile."""
        for key in sorted(self._rings):
            ring = self._rings.get(key)
            for block in tuple(ring.blocks) if ring is not None else ():
                lines = block.between(from_s, to_s)
                if lines.stop > lines.start:
                    yield key, block, lines
