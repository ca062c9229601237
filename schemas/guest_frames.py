"""What the guest agent and its host say to one another, version 1.

A frame is four bytes of length, big-endian, and so many bytes of JSON in UTF-8. The guest sends one
`GuestFrame` per interval; the host answers with a `HostWish` whenever the interval should be another.
What a guest does not offer is absent, never zero. Whose frame it is stands nowhere in it: the host knows
that from the connection, and believes nothing else. A reader ignores what it does not know; a breaking
change is a new number of `v`.

The guest's side is `guest/vireo_guest_agent.py`, which can import nothing of this.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

VERSION = 1
PORT = 8475
"""The vsock port on which a host waits for its guests."""
HEADER_BYTES = 4
SHORTEST_S = 0.5
"""Of the intervals."""

MOST = 64
"""Of a guest's file systems, interfaces, disks, addresses of an interface and users."""

Text = Annotated[str, Meta(max_length=255)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Load = Annotated[float, Meta(ge=0, le=1_000_000)]
Instant = Annotated[float, Meta(ge=-(10.0**12), le=10.0**12)]
Uptime = Annotated[float, Meta(ge=0, le=10.0**10)]
Interval = Annotated[float, Meta(ge=SHORTEST_S, le=3600)]
Texts = Annotated[tuple[Text, ...], Meta(max_length=MOST)]


class GuestCpu(Struct, frozen=True, kw_only=True):
    """Ticks of all CPUs since boot, as the first line of `/proc/stat` has them."""

    user: Count | None = None
    nice: Count | None = None
    system: Count | None = None
    idle: Count | None = None
    iowait: Count | None = None
    irq: Count | None = None
    softirq: Count | None = None
    steal: Count | None = None


class GuestMemory(Struct, frozen=True, kw_only=True):
    total_kib: Count | None = None
    available_kib: Count | None = None


class GuestFileSystem(Struct, frozen=True, kw_only=True):
    mountpoint: Text
    type: Text = ""
    total_bytes: Count | None = None
    used_bytes: Count | None = None


class GuestInterface(Struct, frozen=True, kw_only=True):
    name: Text
    mac: Text = ""
    addresses: Texts = ()
    """IPv4 and IPv6, without prefix length."""
    receive_bytes: Count | None = None
    transmit_bytes: Count | None = None


class GuestBlockDevice(Struct, frozen=True, kw_only=True):
    name: Text
    read_bytes: Count | None = None
    write_bytes: Count | None = None


class GuestFrame(Struct, frozen=True, kw_only=True):
    """All that a guest says of itself at one moment."""

    v: int
    agent: Text = ""
    """The guest agent's version."""
    at: Instant | None = None
    """The guest's clock, in seconds since 1970. It dates nothing."""
    hostname: Text = ""
    os: Text = ""
    kernel: Text = ""
    uptime_s: Uptime | None = None
    cpus: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    """Online."""
    cpu: GuestCpu | None = None
    load: tuple[Load, Load, Load] | None = None
    """Over one, five and fifteen minutes."""
    memory: GuestMemory | None = None
    file_systems: Annotated[tuple[GuestFileSystem, ...], Meta(max_length=MOST)] = ()
    interfaces: Annotated[tuple[GuestInterface, ...], Meta(max_length=MOST)] = ()
    disks: Annotated[tuple[GuestBlockDevice, ...], Meta(max_length=MOST)] = ()
    users: Texts | None = None
    """Who is logged in, each once."""


class HostWish(Struct, frozen=True, kw_only=True):
    """What the host asks of a guest agent."""

    v: int = VERSION
    interval_s: Interval
    """From now on, a frame so often."""
