"""Secrets: a value that doesn't show itself, and reading one from a file.

What belongs here: holding and fetching. Where secrets come from is the business of `chassis.settings`.
"""

from __future__ import annotations

from pathlib import Path

HIDDEN = "***"


class Secret:
    """Text that must not appear in logs, errors or dumps: `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class SecretUnreadable(Exception):
    """A file that should hold a secret cannot be read or is empty."""


def read_secret(value: Secret | None, file: Path | None) -> str | None:
    """The secret: from the file if one is named (surrounding blanks removed), else the value.

    A file is preferred because a process's environment can be read by others and is inherited.
    """
    if file is None:
        return value.reveal() if value is not None else None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretUnreadable(f"cannot read the secret in {file}: {error}") from error
    if not text:
        raise SecretUnreadable(f"the file {file} should hold a secret and is empty")
    return text
