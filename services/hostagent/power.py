"""What a host draws, in watts, from `/sys`: a meter of the whole machine, else its processors' counters.

`hwmon/hwmon*` named `power_meter` is ACPI's meter at the supply (the kernel's acpi_power_meter). RAPL
(`powercap/intel-rapl:*`, AMD's too) counts the energy of processor packages and of memory; its files are
root's alone. What a machine does not have is None, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

MICRO = 1e-6
METER = "power_meter"


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
        name = _text(folder / "name")
        if not name.startswith("package") and name != "dram":
            continue
        counted = _number(folder / "energy_uj")
        if counted is not None:
            found[folder.name] = Counter(counted, _number(folder / "max_energy_range_uj") or 0)
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


def metered_watts(sys: Path) -> float | None:
    """What the machine's own meters show, all of them together."""
    shown = [
        value
        for folder in sorted(sys.glob("class/hwmon/hwmon*"))
        if _text(folder / "name") == METER
        for path in sorted(folder.glob("power*_average"))
        if (value := _number(path)) is not None
    ]
    return sum(shown) * MICRO if shown else None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
