"""Durations as people write them in a query: `30s`, `500ms`, `2m`. Pure."""

from __future__ import annotations

import re

_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)", re.ASCII)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float | None:
    """The duration in seconds, or None when `text` is none."""
    found = _FORM.fullmatch(text)
    return None if found is None else float(found[1]) * _UNIT_S[found[2]]
