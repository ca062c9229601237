"""Where `vireo event tail --name` stood: a number in a file of the user's.

`$XDG_STATE_HOME/vireo/positions/<name>`, else `~/.local/state/vireo/…`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


class Position:
    """The last event seen under a name."""

    def __init__(self, environ: Mapping[str, str], name: str) -> None:
        state = environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
        self._file = Path(state) / "vireo" / "positions" / name

    def read(self) -> str | None:
        """None where it was never used. Raises OSError, ValueError if there is no number in it."""
        try:
            text = self._file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        return str(int(text))

    def write(self, sequence: str) -> None:
        """Whole or not at all. Raises OSError."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self._file.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(sequence + "\n")
            Path(path).replace(self._file)
        except OSError:
            Path(path).unlink(missing_ok=True)
            raise
