"""Checking a file of the record, plain or gzip, without a server."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from vireo.cli import session
from vireo.cli.printing import show_lines

if TYPE_CHECKING:
    from schemas.proofs import Finding

GZIP = b"\x1f\x8b"


def checked(file: Path, key: str) -> tuple[int, int]:
    """How many events are proven, and how many faults were found and shown."""
    from chassis.signing import is_signed
    from schemas.proofs import check_file

    found = proven = 0
    try:
        with _opened(file) as lines, progress() as bar:
            task = bar.add_task("lines", total=None)
            for step in check_file(lines, key=key.strip().lower(), is_signed=is_signed):
                proven = step.proven
                found += len(step.findings)
                bar.update(task, completed=step.line)
                show_lines([_finding_line(each) for each in step.findings])
    except (OSError, EOFError) as error:
        session.refuse(f"cannot read {file}: {getattr(error, 'strerror', None) or error}")
    return proven, found


def _finding_line(finding: Finding) -> str:
    row = f"row {finding.number} " if finding.number is not None else ""
    event = f"(event {finding.id}) " if finding.id is not None else ""
    return f"line {finding.line}: {row}{event}{finding.what}"


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    with file.open("rb") as plain:
        packed = plain.read(len(GZIP)) == GZIP
        plain.seek(0)
        if not packed:
            yield plain
            return
        with gzip.open(plain) as unpacked:
            yield cast("IO[bytes]", unpacked)


@contextmanager
def written(file: Path) -> Iterator[IO[bytes]]:
    """A file to write: it comes to its place whole or not at all. What is no plain file is written to as
    it goes."""
    plain = file.is_file() or not file.exists()
    part = file.with_name(f"{file.name}.part") if plain else file
    try:
        with part.open("wb") as out:
            yield out
        if plain:
            part.replace(file)
    except OSError as error:
        session.refuse(f"cannot write {file}: {error.strerror}")
    finally:
        if plain:
            part.unlink(missing_ok=True)


def progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
