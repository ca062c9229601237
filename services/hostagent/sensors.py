"""The host's temperatures, from `/sys/class/hwmon` (the kernel's hwmon/sysfs-interface).

What a machine has no sensor of is not told. A sensor that says of itself that it is broken, or that
refuses to be read, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from schemas.telemetry import Temperature
from services.hostagent import sysfs

MOST = 64
"""As many as a frame takes."""
PER_DEGREE = 1000
CPUS = re.compile(r"coretemp|k10temp|zenpower|cpu.*_thermal")
DISKS = re.compile(r"nvme|drivetemp")
WHOLE = "Package "
"""How Intel's chips call the sensor of a whole processor."""
LONGEST_NAME = 64

Part = Literal["cpu", "disk", "other"]


def temperatures(sys: Path) -> tuple[Temperature, ...]:
    """In the order of their devices' names: numbers of hwmon change from boot to boot."""
    found = [one for folder in sys.glob("class/hwmon/hwmon*") for one in _of_chip(folder)]
    return tuple(sorted(found, key=lambda one: (one.part, one.device, one.sensor)))[:MOST]


def _of_chip(folder: Path) -> Iterator[Temperature]:
    chip, device = sysfs.text(folder / "name")[:LONGEST_NAME], _device(folder)
    for channel, sensor in _wanted(_channels(folder)):
        milli = sysfs.number(folder / f"{channel}_input")
        if chip and milli is not None and sysfs.number(folder / f"{channel}_fault") != 1:
            critical = sysfs.number(folder / f"{channel}_crit")
            yield Temperature(
                part=_part(chip),
                chip=chip,
                device=device,
                sensor=sensor,
                celsius=milli / PER_DEGREE,
                critical_celsius=None if critical is None else critical / PER_DEGREE,
            )


def _device(folder: Path) -> str:
    """A chip without a device is known by its number alone."""
    device = folder / "device"
    return (device.resolve() if device.exists() else folder).name[:LONGEST_NAME]


def _channels(folder: Path) -> list[tuple[str, str]]:
    """`temp1` and what it is called."""
    names = (path.name.removesuffix("_input") for path in sorted(folder.glob("temp*_input")))
    return [(n, sysfs.text(folder / f"{n}_label")[:LONGEST_NAME] or n) for n in names]


def _wanted(channels: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Where a processor has a sensor as a whole, its cores' are not read: each would be woken for it."""
    return [one for one in channels if one[1].startswith(WHOLE)] or channels


def _part(chip: str) -> Part:
    if CPUS.fullmatch(chip):
        return "cpu"
    return "disk" if DISKS.fullmatch(chip) else "other"
