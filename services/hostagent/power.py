"""What a host draws, in watts, from `/sys`: a meter of the whole machine, else its processors' counters.

A meter is a chip of `hwmon/hwmon*`: `power_meter` is ACPI's at the supply (the kernel's acpi_power_meter),
which a server's BMC reads by IPMI; others are power supplies that tell of themselves. RAPL
(`powercap/intel-rapl:*`, AMD's too) counts the energy of processor packages and of memory; its files are
root's alone. What a machine does not have is None, never zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct

from services.hostagent import sysfs

MICRO = 1e-6
SHOWN = ("power1_average", "power1_input")
"""A meter's first channel is the whole; further ones are parts of it."""


class Counter(Struct, frozen=True):
    """One zone's energy in microjoules. It starts at zero again after `wraps_at`."""

    energy_uj: int
    wraps_at: int


class Energy(Struct, frozen=True):
    """Every zone's counter, by its folder's name, at a time in seconds."""

    at_s: float
    zones: Mapping[str, Counter]


def energy(sys: Path, *, at_s: float) -> Energy:
    """The counters of packages and memory. A package's own counter holds its cores' too."""
    found = {}
    for folder in sorted(sys.glob("class/powercap/intel-rapl:*")):
        name = sysfs.text(folder / "name")
        if not name.startswith("package") and name != "dram":
            continue
        counted = sysfs.number(folder / "energy_uj")
        if counted is not None:
            wraps_at = sysfs.number(folder / "max_energy_range_uj") or 0
            found[folder.name] = Counter(counted, wraps_at)
    return Energy(at_s, found)


def watts_between(before: Energy | None, now: Energy) -> float | None:
    """On average between two readings: None where there is nothing to compare, or a zone is missing."""
    if before is None or not now.zones or before.zones.keys() != now.zones.keys():
        return None
    seconds = now.at_s - before.at_s
    spent = [_spent(before.zones[zone], counter) for zone, counter in now.zones.items()]
    if seconds <= 0 or min(spent) < 0:
        return None
    return sum(spent) * MICRO / seconds


def _spent(before: Counter, now: Counter) -> int:
    spent = now.energy_uj - before.energy_uj
    return spent + now.wraps_at if spent < 0 else spent


def metered_watts(sys: Path, meters: Collection[str]) -> float | None:
    """What the machine's own meters show, all of them together. `meters`: their chips' names."""
    shown = [
        value
        for folder in sys.glob("class/hwmon/hwmon*")
        if sysfs.text(folder / "name") in meters and (value := _shown(folder)) is not None
    ]
    return sum(shown) * MICRO if shown else None


def _shown(folder: Path) -> int | None:
    values = (sysfs.number(folder / name) for name in SHOWN)
    return next((value for value in values if value is not None), None)
