"""Durations as people write them in a query: `30s`, `500ms`, `2m`, `7d`; and moments. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)", re.ASCII)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float | None:
    """The duration in seconds, or None when `text` is none."""
    found = _FORM.fullmatch(text)
    return None if found is None else float(found[1]) * _UNIT_S[found[2]]


def moment_s(text: str, *, now_s: float) -> float | None:
    """A moment in Unix seconds: a time in RFC 3339, or how long ago it was; None when `text` is neither."""
    ago_s = seconds(text)
    if ago_s is not None:
        return max(0.0, now_s - ago_s)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
