"""What guest agents push, taken for what it is: words of a stranger. Pure.

Bytes become a `GuestFrame` or a refusal, a frame becomes a sample, and how much a guest may say before it
is hung up on is counted here. The connections themselves are `guest_lines.py`'s.
"""

from __future__ import annotations

import ipaddress
import unicodedata
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas.guest_frames import (
    HEADER_BYTES,
    VERSION,
    GuestBlockDevice,
    GuestCpu,
    GuestFileSystem,
    GuestFrame,
    GuestInterface,
    GuestMemory,
    HostWish,
)
from schemas.ids import VmId
from schemas.telemetry import FileSystem, GuestDisk, GuestSample, NetworkInterface
from services.hostagent.host_sample import CpuTimes, busy_share

Reason = Literal[
    "garbled", "version", "too_long", "flood", "stalled", "unknown", "unprivileged", "held_off"
]
"""Why a frame, or a connection with all that it would have brought, is dropped."""

CLOCK_S = 100 * 366 * 86_400.0
"""A guest's clock that is further off is no clock."""

_frame = msgspec.json.Decoder(GuestFrame)


class Refusal(Struct, frozen=True):
    """A frame that is dropped, and why, for people."""

    reason: Reason
    detail: str


def length_of(header: bytes) -> int:
    return int.from_bytes(header, "big")


def encoded(wish: HostWish) -> bytes:
    body = msgspec.json.encode(wish)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def read(body: bytes) -> GuestFrame | Refusal:
    """One frame's body. Whatever it holds, this answers."""
    try:
        frame = _frame.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Refusal("garbled", str(error)[:200])
    if frame.v != VERSION:
        return Refusal("version", f"frames of version {frame.v}; this host reads {VERSION}")
    return frame


def sample_of(
    vm: VmId, at: datetime, frame: GuestFrame, *, before: CpuTimes | None
) -> tuple[GuestSample, CpuTimes | None]:
    """One sample, dated by the host, and the counters the next is measured from."""
    times = _cpu_times(frame.cpu)
    load1, load5, load15 = frame.load or (None, None, None)
    memory = frame.memory or GuestMemory()
    sample = GuestSample(
        vm=vm,
        at=at,
        source="guest-agent",
        os=_clean(frame.os) or None,
        kernel=_clean(frame.kernel) or None,
        hostname=_clean(frame.hostname) or None,
        agent_version=_clean(frame.agent) or None,
        load1=load1,
        load5=load5,
        load15=load15,
        cpus_online=frame.cpus,
        cpu_busy=busy_share(before, times),
        memory_total_kib=memory.total_kib,
        memory_available_kib=memory.available_kib,
        uptime_s=frame.uptime_s,
        clock_offset_s=_clock_offset_s(frame.at, at),
        users=None if frame.users is None else tuple(map(_clean, frame.users)),
        file_systems=tuple(map(_file_system, frame.file_systems)),
        interfaces=tuple(map(_interface, frame.interfaces)),
        disks=tuple(map(_disk, frame.disks)),
    )
    return sample, times


def _clock_offset_s(said: float | None, at: datetime) -> float | None:
    if said is None:
        return None
    offset_s = said - at.timestamp()
    return round(offset_s, 3) if abs(offset_s) <= CLOCK_S else None


def _cpu_times(cpu: GuestCpu | None) -> CpuTimes | None:
    if cpu is None or cpu.user is None or cpu.system is None or cpu.idle is None:
        return None
    idle = cpu.idle + (cpu.iowait or 0)
    others = (cpu.nice, cpu.irq, cpu.softirq, cpu.steal)
    busy = cpu.user + cpu.system + sum(ticks or 0 for ticks in others)
    return CpuTimes(busy, busy + idle)


def _file_system(found: GuestFileSystem) -> FileSystem:
    return FileSystem(
        mountpoint=_clean(found.mountpoint),
        type=_clean(found.type),
        total_bytes=found.total_bytes,
        used_bytes=found.used_bytes,
    )


def _interface(found: GuestInterface) -> NetworkInterface:
    return NetworkInterface(
        name=_clean(found.name),
        mac=_clean(found.mac),
        addresses=tuple(text for text in map(_address, found.addresses) if text),
        receive_bytes=found.receive_bytes,
        transmit_bytes=found.transmit_bytes,
    )


def _disk(found: GuestBlockDevice) -> GuestDisk:
    return GuestDisk(
        name=_clean(found.name), read_bytes=found.read_bytes, write_bytes=found.write_bytes
    )


def _address(text: str) -> str:
    """In its one spelling; empty where it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def _clean(text: str) -> str:
    """Without what could steer a terminal or break a line: controls, formats, surrogates, separators."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    category = unicodedata.category(char)
    return category.startswith("C") or category in ("Zl", "Zp")


# how much a guest may say


class Bucket(Struct, frozen=True, kw_only=True):
    """So much at once, and so much per second again."""

    per_s: float
    most: float
    left: float
    at_s: float
    overdrawn: bool = False
    """Whether what was wanted last was too much; then it was not taken."""

    def after(self, now_s: float, wanted: float = 1.0) -> Bucket:
        """Once so much more was wanted."""
        left = min(self.most, self.left + max(0.0, now_s - self.at_s) * self.per_s)
        overdrawn = wanted > left
        taken = 0.0 if overdrawn else wanted
        return replace(self, left=left - taken, at_s=now_s, overdrawn=overdrawn)


def bucket(per_s: float, most: float, now_s: float) -> Bucket:
    return Bucket(per_s=per_s, most=most, left=most, at_s=now_s)


class Standing(Struct, frozen=True, kw_only=True):
    """How far one guest is trusted to behave, over all its connections."""

    frames: Bucket
    bytes_: Bucket
    connections: Bucket
    offences: int = 0
    """Connections in a row that ended badly."""
    good: int = 0
    """Frames taken since."""
    held_off_until_s: float = 0.0


def admitted(standing: Standing, now_s: float) -> Standing:
    """One more connection has come."""
    return replace(standing, connections=standing.connections.after(now_s))


def spoken(standing: Standing, now_s: float, size: int) -> Standing:
    """One more frame has come."""
    return replace(
        standing,
        frames=standing.frames.after(now_s),
        bytes_=standing.bytes_.after(now_s, size),
    )


def within_rates(standing: Standing) -> bool:
    return not (standing.frames.overdrawn or standing.bytes_.overdrawn)


def taken(standing: Standing, *, forgiven_after: int) -> Standing:
    """A frame was good; enough of them, and old offences are forgotten."""
    good = standing.good + 1
    return replace(standing, good=good, offences=0 if good >= forgiven_after else standing.offences)


def offended(standing: Standing, now_s: float, *, first_s: float, longest_s: float) -> Standing:
    """A connection ended badly: the guest is held off, twice as long each time."""
    pause_s = min(longest_s, first_s * 2 ** min(standing.offences, 32))
    return replace(
        standing,
        offences=standing.offences + 1,
        good=0,
        held_off_until_s=now_s + pause_s,
    )
