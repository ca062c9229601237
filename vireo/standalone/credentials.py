"""Passwords of the embedded servers: made at the first start, kept in files that only their owner reads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

BYTES = 32


def ensure_passwords(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """The password of each name, from `<directory>/<name>.password`; made where there is none."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {name: _ensure(password_file(directory, name)) for name in names}


def password_file(directory: Path, name: str) -> Path:
    return directory / f"{name}.password"


def _ensure(file: Path) -> str:
    try:
        password = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        password = ""
    if not password:
        password = secrets.token_urlsafe(BYTES)
        write_private(file, password + "\n")
    return password


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read: whole or not at all, never readable in between."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
