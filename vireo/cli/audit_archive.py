"""`vireo audit archive`: the months of the record that are over, as files that need no server."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vireo.cli import session
from vireo.cli.audit_file import checked, written
from vireo.cli.exits import Exit
from vireo.cli.options import examples, moment_of
from vireo.cli.printing import note

if TYPE_CHECKING:
    from vireo.audit import Audit
    from vireo.client import Client

EXAMPLES = examples(
    "vireo audit archive --before 2026-03-01 --into archive/",
    "vireo audit verify archive/events-2026-02.jsonl.gz --key $(cat vireo.pub)",
)


def archive(
    context: typer.Context,
    before: Annotated[
        str, typer.Option(help="Months that were over by then, in UTC.", metavar="DATE")
    ],
    into: Annotated[Path, typer.Option(help="The folder of the files.", metavar="DIRECTORY")],
) -> None:
    """Write each month that is over into a file with its proof, and check the file.

    What is there already is checked and kept. Nothing is taken out of the record.
    """
    end = moment_of("--before", before)
    if end is None or end > datetime.now(UTC):
        session.refuse("--before must be a time that is over")

    async def body(client: Client) -> None:
        if await archived(client.audit, end, into):
            raise typer.Exit(Exit.FAILED)

    session.run(context, body)


async def archived(audit: Audit, end: datetime, into: Path) -> int:
    """How many faults the files of all months have that are over by `end`; they are written where there
    are none."""
    from schemas.ledger import month_of, months_later

    key = (await audit.state()).key
    if key is None:
        session.refuse("the inventory has no signing key: nothing can be proven")
    faults = 0
    async for first in audit.rows(limit=1):
        month = month_of(first.row.received_at)
        while (following := months_later(month, 1)) <= end:
            faults += await _keep(audit, month, into, key)
            month = following
    return faults


async def _keep(audit: Audit, month: datetime, into: Path, key: str) -> int:
    from schemas.ledger import archive_name, months_later

    file = into / archive_name(month)
    if not file.exists():
        await _write(audit, file, month, months_later(month, 1))
    proven, findings = checked(file, key)
    note(f"{file}: {proven} events proven, {findings or 'no'} faults")
    return findings


async def _write(audit: Audit, file: Path, since: datetime, until: datetime) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        session.refuse(f"cannot make {file.parent}: {error.strerror}")
    with written(file) as out, gzip.open(out, "wb") as packed:
        async for line in audit.export(since=since, until=until):
            packed.write(line + b"\n")
