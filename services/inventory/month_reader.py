"""Reading the files of months again, from the front, with no more in hand than is asked for at a time.

A file is held against the anchor's SHA-256 before any of it is handed out, and against the chain as it is
read. Everything here blocks: `event_source` has it done in a thread.
"""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Generator
from hashlib import file_digest
from pathlib import Path

from schemas.proofs import Chain
from schemas.seals import Anchor
from services.inventory.recorded import Damaged, Recorded, Selection, Stretch, recorded_in

LOOKED_AT = 10_000
"""Rows of a file that are looked at in one call, if fewer are asked for."""


class MonthReader:
    """One file, for one who goes from front to back. Every method may raise Damaged, FileNotFoundError."""

    def __init__(self, file: Path, anchor: Anchor, previous: str, selection: Selection) -> None:
        """`previous` is the hash of the row before the month's first one."""
        self._last = anchor.last
        self._selection = selection
        self._rows = _rows(file, anchor, previous)
        self._through = anchor.first - 1
        self._ended = False
        self._found: deque[Recorded] = deque()

    def pass_by(self, after: int) -> bool:
        """Whether all rows up to one are behind us; else it has come nearer."""
        for _ in range(LOOKED_AT):
            if self._through >= after or self._ended:
                return True
            self._read_one()
        return False

    def next(self, after: int, limit: int) -> Stretch:
        """What follows that row, which is not before that of the call before."""
        while self._found and self._found[0].number <= after:
            self._found.popleft()
        for _ in range(max(limit, LOOKED_AT)):
            if self._ended or len(self._found) >= limit:
                break
            found = self._read_one()
            if found is not None and found.number > after and self._selection.holds(found):
                self._found.append(found)
        events = [*self._found][:limit]
        rest = len(self._found) > limit
        return Stretch(
            events=events,
            through=events[-1].number if rest else self._through,
            more=rest or not self._ended,
        )

    def _read_one(self) -> Recorded | None:
        found = next(self._rows, None)
        if found is None or self._selection.ends_before(found):
            self._ended, self._through = True, self._last
            return None
        self._through = found.number
        return found

    def close(self) -> None:
        self._rows.close()


def _rows(file: Path, anchor: Anchor, previous: str) -> Generator[Recorded, None, None]:
    chain = Chain(first=anchor.first, previous=previous, last=anchor.last, hash=anchor.hash)
    try:
        with file.open("rb") as opened, gzip.open(opened) as lines:
            digest = file_digest(opened, "sha256").hexdigest()
            opened.seek(0)
            rows = recorded_in(lines, chain, stream=anchor.stream)
            if digest != anchor.sha256:
                deque(rows, maxlen=0)  # says from where on, if it is one of the rows
                raise Damaged(f"all rows are there, but its SHA-256 is {digest}")
            yield from rows
    except FileNotFoundError:
        raise
    except EOFError as error:
        raise Damaged("it is cut off") from error
    except (OSError, zlib.error) as error:
        raise Damaged(f"it cannot be read: {error}") from error
