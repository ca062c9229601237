"""What the host's network cards count, from `/proc/net/dev` (the kernel's net/core/net-procfs.c).

Only interfaces behind which there is a device are told of. What is made of them or beside them (bridges,
bonds, VLANs, guests' taps) carries the same packets once more, or packets that never leave the host; and
a virtual function of a card is counted by the card.
"""

from __future__ import annotations

from pathlib import Path

from schemas.telemetry import HostInterface
from services.hostagent import sysfs

MOST = 64
"""As many as a frame takes."""

RECEIVED = ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")
SENT = ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")
"""The columns of `/proc/net/dev`, after the name."""


def interfaces(proc: Path, sys: Path) -> tuple[HostInterface, ...]:
    """By name."""
    counted = (counts(line) for line in sysfs.text(proc / "net/dev").splitlines())
    found = (one for one in counted if one is not None and _is_card(sys, one.name))
    return tuple(sorted(found, key=lambda one: one.name))[:MOST]


def counts(line: str) -> HostInterface | None:
    """A line of `/proc/net/dev`; None for its heads."""
    name, _, rest = line.rpartition(":")
    fields = rest.split()
    if not name or len(fields) != len(RECEIVED) + len(SENT):
        return None
    received = dict(zip(RECEIVED, map(int, fields), strict=False))
    sent = dict(zip(SENT, map(int, fields[len(RECEIVED) :]), strict=True))
    return HostInterface(
        name=name.strip(),
        receive_bytes=received["bytes"],
        receive_packets=received["packets"],
        receive_errors=received["errs"],
        receive_drops=received["drop"],
        transmit_bytes=sent["bytes"],
        transmit_packets=sent["packets"],
        transmit_errors=sent["errs"],
        transmit_drops=sent["drop"],
    )


def _is_card(sys: Path, name: str) -> bool:
    device = sys / "class/net" / name / "device"
    return device.exists() and not (device / "physfn").exists()
