"""Sizes, durations and labels as people type them. Pure; raises ValueError with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)

_BINARY_MIB = {"m": 1, "mib": 1, "g": 1024, "gib": 1024, "t": 1024**2, "tib": 1024**2}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def mib(text: str, *, default_unit: str) -> int:
    """`128MiB`, `1.5GiB`, `2G` as whole MiB; a bare number is in `default_unit`."""
    number, unit = _split(text, example="512MiB or 2GiB")
    factor = _BINARY_MIB.get((unit or default_unit).lower())
    if factor is None:
        raise ValueError(f"{text!r}: the unit is MiB, GiB or TiB")
    size = number * factor
    if size != int(size):
        raise ValueError(f"{text!r} is no whole number of MiB")
    return int(size)


def memory_mib(text: str) -> int:
    return mib(text, default_unit="MiB")


def disk_gib(text: str) -> int:
    size = mib(text, default_unit="GiB")
    if size % 1024:
        raise ValueError(f"{text!r} is no whole number of GiB")
    return size // 1024


def seconds(text: str) -> float:
    """`500ms`, `30s`, `2m`, `1h`; a bare number is in seconds."""
    number, unit = _split(text, example="30s or 2m")
    if unit not in _SECONDS:
        raise ValueError(f"{text!r}: the unit is ms, s, m or h")
    return number * _SECONDS[unit]


_AGO_S = {**_SECONDS, "d": 86_400.0, "w": 604_800.0}


def moment(text: str, *, now: datetime) -> datetime:
    """`2026-03-01`, `2026-03-01T12:30`, in UTC unless it has a zone; or how long ago: `90s`, `2h`, `3d`."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return now - timedelta(seconds=_ago_s(text))
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _ago_s(text: str) -> float:
    number, unit = _split(text, example="2026-03-01T12:30 or 2h")
    if unit not in _AGO_S or not unit:
        raise ValueError(
            f"{text!r} is no time (2026-03-01T12:30) and no time ago (90s, 10m, 2h, 3d)"
        )
    return min(number * _AGO_S[unit], 1e10)


def labels(pairs: Iterable[str]) -> dict[str, str]:
    """`key=value` each; no key twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ValueError(f"{pair!r} is no KEY=VALUE")
        if key in found:
            raise ValueError(f"the label {key!r} is given twice")
        found[key] = value
    return found


def disks(image: str | None, sizes: Sequence[str]) -> list[dict[str, object]]:
    """The first size is the root disk's, on the image if there is one; the others are `NAME=SIZE`.
    `@POOL` after a size is the storage pool."""
    root: dict[str, object] = {"name": "root"}
    if image is not None:
        root["image"] = image
    if sizes:
        root |= _sized(sizes[0].removeprefix("root="))
    return [root, *(_further_disk(text) for text in sizes[1:])]


def _further_disk(text: str) -> dict[str, object]:
    name, equals, size = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: a further disk is NAME=SIZE, like data=20GiB")
    return {"name": name, **_sized(size)}


def _sized(text: str) -> dict[str, object]:
    size, at, pool = text.partition("@")
    if at and not pool:
        raise ValueError(f"{text!r} names no pool after @")
    return {"size_gib": disk_gib(size), **({"pool": pool} if at else {})}


def _split(text: str, *, example: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or len(text) > 32:
        raise ValueError(f"{text!r} is no quantity (like {example})")
    return float(match[1]), match[2]
