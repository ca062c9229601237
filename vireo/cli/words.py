"""Values in words for people: sizes, ages, shares. Pure; the time comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from schemas.problems import Problem

NOTHING = "-"


def of_mib(size: int | None) -> str:
    """`512 MiB`, `1.5 GiB`."""
    return of_bytes(None if size is None else size << 20)


def of_kib(size: int | None) -> str:
    return of_bytes(None if size is None else size << 10)


def of_bytes(size: int | None) -> str:
    if size is None:
        return NOTHING
    number, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while abs(number) >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{_short(number)} {units[0]}"


def share(part: float | None) -> str:
    return NOTHING if part is None else f"{part * 100:.0f} %"


def counted(many: int, noun: str) -> str:
    """`1 host`, `3 hosts`."""
    return f"{many} {noun}{'' if many == 1 else 's'}"


def celsius(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f} °C"


def number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}" if value >= 100 else f"{value:.2f}"


def numbers(values: Sequence[float | None]) -> str:
    """`0.07 0.02 0.00`; nothing where none of them is known."""
    known = any(value is not None for value in values)
    return " ".join(number(value) for value in values) if known else NOTHING


def part(value: float | None, whole: int | None) -> str:
    """`0.03 of 2`."""
    return number(value) if value is None or not whole else f"{number(value)} of {whole}"


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, without what was asked of it said once more."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 (byte {error.start + 1})"
    return error.strerror or str(error)


def duration(seconds: float | None) -> str:
    """`850 ms`, `3.4 s`, `5 min`, `2 h`, `3 d`: the largest unit that fits."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    raise AssertionError("a minute or more has a unit")


def age(at: datetime, now: datetime) -> str:
    """How long ago, without a fraction: `12 s`."""
    gone = max(0.0, (now - at).total_seconds())
    return f"{gone:.0f} s" if gone < 60 else duration(gone)


def problem(refusal: Problem) -> str:
    """`No host fits: …` in one line."""
    return ": ".join(filter(None, (refusal.title, refusal.detail)))


def when(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def precisely(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def clock(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(values.items())) or NOTHING


def listed(values: tuple[str, ...]) -> str:
    return ", ".join(values) or NOTHING


def shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text: str) -> str:
    """Without the control characters by which a guest's or image's name could steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0") if number < 100 else f"{number:.0f}"
