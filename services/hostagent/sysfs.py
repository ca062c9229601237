"""Small files of `/proc` and `/sys`: what is not there, or cannot be read, is nothing."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """Without the space around it. Some files are there and refuse to be read: so does pressure stall
    accounting that is switched off, and a sensor that is."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def number(path: Path) -> int | None:
    try:
        return int(text(path))
    except ValueError:
        return None
