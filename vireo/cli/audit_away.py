"""What is in files and not in the database any more: said wherever it may be missed, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vireo.cli import options, session
from vireo.cli.audit_file import checked
from vireo.cli.options import examples
from vireo.cli.printing import Output, note, show_data, show_lines, show_table

if TYPE_CHECKING:
    from schemas.seals import Anchor
    from vireo.client import Client

EXAMPLES = examples("vireo audit archives", "vireo audit archives -o json > anchors.json")


def archives(context: typer.Context, output: options.Output = Output.TABLE) -> None:
    """List the months that were put away into files. Who keeps this knows what has to be in them."""

    async def body(client: Client) -> None:
        from schemas.seals import anchor_in
        from vireo.cli.layout import Table

        found = (await client.audit.state()).archives
        if output.is_data:
            show_data(found, output)
            return
        rows = tuple(
            (each.month, str(each.first), str(each.last), each.file, each.sha256)
            for each in map(anchor_in, found)
        )
        table = Table(columns=("MONTH", "FIRST", "LAST", "FILE", "SHA256"), rows=rows)
        show_table(table, empty="all months are in the database")

    session.run(context, body)


async def note_what_is_away(client: Client, since: datetime | None) -> None:
    """Say which rows cannot be among those shown that were stored at a time or later."""
    from schemas.seals import anchor_in

    known = [anchor_in(each) for each in (await client.audit.state()).archives]
    away = [each for each in known if since is None or since <= each.received_at]
    if away:
        note(f"not in the database any more: {said(away)}")


def said(away: Sequence[Anchor]) -> str:
    until = away[-1].received_at.isoformat(timespec="seconds")
    files = ", ".join(each.file for each in away)
    return f"rows {away[0].first} to {away[-1].last}, stored until {until}: {files}"


def verify_files(anchors: Sequence[Anchor], folder: Path, key: str) -> int:
    """How many faults the files of these months have; each is shown."""
    faults = 0
    for anchor in anchors:
        wrong = _differs(anchor, folder / anchor.file)
        if wrong:
            show_lines([f"{anchor.file}: {wrong}"])
            faults += 1
            continue
        proven, found = checked(folder / anchor.file, key)
        note(f"{anchor.file}: {proven} events proven, {found or 'no'} faults")
        faults += found
    return faults


def _differs(anchor: Anchor, file: Path) -> str:
    try:
        with file.open("rb") as opened:
            digest = file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if digest == anchor.sha256 else "is not the file that was written"
