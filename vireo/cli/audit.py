"""`vireo audit`: whether the record is what it was, and pieces of it with their proof."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from vireo.cli import audit_archive, audit_away, audit_search, completion, options, session
from vireo.cli.audit_file import checked, progress, written
from vireo.cli.exits import Exit
from vireo.cli.options import examples, moment_of
from vireo.cli.printing import Output, note, show_data, show_lines, show_table

if TYPE_CHECKING:
    from schemas.ledger import Fault
    from vireo.client import Client

app = typer.Typer(
    help="The record: searches, checks and proofs.", no_args_is_help=True, rich_markup_mode=None
)

Since = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="What was stored then or later: 2026-03-01T12:30 (UTC), or 2h ago as 2h.",
        metavar="TIME",
    ),
]
Until = Annotated[
    str | None,
    typer.Option("--to", help="What was stored before.", metavar="TIME"),
]
Key = Annotated[
    str | None,
    typer.Option(help="The public key that one trusts, 64 hexadecimal digits.", metavar="PUB"),
]


@app.callback()
def audit() -> None:
    """The record: whether anything in it was changed, and proofs for others."""


app.command("log", epilog=audit_search.LOG_EXAMPLES)(audit_search.log)
app.command("show", epilog=audit_search.SHOW_EXAMPLES)(audit_search.show)
app.command("archives", epilog=audit_away.EXAMPLES)(audit_away.archives)
app.command("archive", epilog=audit_archive.EXAMPLES)(audit_archive.archive)


@app.command(
    epilog=examples(
        "vireo audit verify",
        "vireo audit verify --from 2026-03-01 --to 2026-04-01",
        "vireo audit verify --archives /srv/archive --key 3b6a27bc...",
        "vireo audit verify web1.jsonl --key 3b6a27bc...",
    )
)
def verify(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="A file of 'vireo audit export', checked offline.", metavar="FILE"),
    ] = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--archives",
            help="Check the files of months that were put away, too.",
            metavar="DIRECTORY",
        ),
    ] = None,
) -> None:
    """Check the record, or a file taken from it; name every row that is not what it was.

    Without a file the server's rows are checked against each other and against each signed day. Where
    months were put away into files, the rows go on from the signed anchor of the last one.
    """
    if file is not None:
        if key is None:
            session.refuse("a file is checked with --key", hint="'vireo audit key' shows it")
        raise typer.Exit(_verify_file(file, key))

    begin, end = moment_of("--from", since), moment_of("--to", until)

    async def body(client: Client) -> None:
        faults = await _verify_anchors(client, key, folder)
        faults += await _verify_record(client, key, since=begin, until=end)
        if faults:
            raise typer.Exit(Exit.FAILED)

    session.run(context, body)


@app.command(
    epilog=examples(
        "vireo audit export --vm web1 -o web1.jsonl",
        "vireo audit export --operation 0198c0de-0000-7000-8000-000000000001",
        "vireo audit export --from 2026-03-01 --to 2026-03-02 -o day.jsonl",
    )
)
def export(
    context: typer.Context,
    operation: Annotated[
        str | None,
        typer.Option(
            help="Events of this operation.",
            autocompletion=completion.operations,
            metavar="OPERATION",
        ),
    ] = None,
    vm: Annotated[
        str | None,
        typer.Option(help="Events of this VM.", autocompletion=completion.vms, metavar="VM"),
    ] = None,
    since: Since = None,
    until: Until = None,
    file: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write it here.", metavar="FILE")
    ] = None,
) -> None:
    """Write events with the proof that they stand in the record: JSON Lines, checked without a server."""
    if not any((operation, vm, since, until)):
        session.refuse("name an --operation or a --vm, or a time --from or --to")
    begin, end = moment_of("--from", since), moment_of("--to", until)

    async def body(client: Client) -> None:
        about = await audit_search.vm_ever(client, vm) if vm else None
        await audit_away.note_what_is_away(client, begin)
        lines = client.audit.export(operation=operation, vm=about, since=begin, until=end)
        with _opened(file) as out:
            async for line in lines:
                out.write(line + b"\n")

    session.run(context, body)


@app.command(epilog=examples("vireo audit gaps", "vireo audit gaps --filled -o json"))
def gaps(
    context: typer.Context,
    filled: Annotated[
        bool, typer.Option("--filled", help="Those too that were filled since.")
    ] = False,
    output: options.Output = Output.TABLE,
) -> None:
    """List what was passed by in the stream and not stored."""

    async def body(client: Client) -> None:
        from vireo.cli.layout import Table

        found = [gap async for gap in client.audit.gaps(filled=filled)]
        if output.is_data:
            show_data(found, output)
            return
        rows = tuple(
            (
                *(str(gap.epoch), str(gap.first), str(gap.last), gap.state),
                gap.found_at.isoformat(timespec="seconds"),
            )
            for gap in found
        )
        show_table(
            Table(columns=("EPOCH", "FIRST", "LAST", "STATE", "FOUND"), rows=rows),
            empty="no gaps",
        )

    session.run(context, body)


@app.command(epilog=examples("vireo audit key", "vireo audit key > vireo.pub"))
def key(context: typer.Context) -> None:
    """Show the public key by which each day of the record is sealed. Keep it where Vireo is not."""

    async def body(client: Client) -> None:
        state = await client.audit.state()
        if state.key is None:
            note("error: the inventory has no signing key")
            raise typer.Exit(Exit.NOT_FOUND)
        sys.stdout.write(state.key + "\n")

    session.run(context, body)


@app.command(epilog=examples("vireo audit seals", "vireo audit seals -o json > seals.json"))
def seals(context: typer.Context, output: options.Output = Output.TABLE) -> None:
    """List the signed days. Who keeps them can hold the record to them."""

    async def body(client: Client) -> None:
        from schemas.seals import seal_in
        from vireo.cli.layout import Table

        found = [seal async for seal in client.audit.seals()]
        if output.is_data:
            show_data(found, output)
            return
        days = [seal_in(each) for each in found]
        rows = tuple((day.day, str(day.first), str(day.last), day.root) for day in days)
        show_table(Table(columns=("DAY", "FIRST", "LAST", "ROOT"), rows=rows), empty="no seals")

    session.run(context, body)


async def _verify_anchors(client: Client, key: str | None, folder: Path | None) -> int:
    from chassis.signing import is_signed
    from schemas.anchors import faults_of_anchors
    from schemas.seals import anchor_in

    state = await client.audit.state()
    for alarm in state.alarms:
        note(f"alarm: {alarm}")
    if not state.archives:
        return 0
    trusted = key or state.key or ""
    faults = tuple(faults_of_anchors(state.archives, key=trusted, is_signed=is_signed))
    anchors = [anchor_in(each) for each in state.archives]
    note(f"put away into files: {audit_away.said(anchors)}")
    found = audit_away.verify_files(anchors, folder, trusted) if folder else 0
    found += _show(faults)
    what = "months and their files" if folder else "months' anchors"
    note(f"{len(anchors)} {what} checked: {_verdict(found)}")
    return found


async def _verify_record(
    client: Client, key: str | None, *, since: datetime | None, until: datetime | None
) -> int:
    faults = rows = 0
    with progress() as bar:
        task = bar.add_task("rows", total=None)
        async for piece in client.audit.check(since=since, until=until):
            rows += piece.rows
            bar.update(task, completed=piece.through, total=piece.last)
            faults += _show(piece.faults)
        days, away, wrong = await _verify_seals(client, key, since=since, until=until)
    faults += wrong
    note(f"{rows} rows and {days} sealed days checked: {_verdict(faults)}")
    if away:
        note(f"of {away} sealed days the rows are in files: their signatures alone were checked")
    return faults


async def _verify_seals(
    client: Client, key: str | None, *, since: datetime | None, until: datetime | None
) -> tuple[int, int, int]:
    """How many days were checked against their rows, how many have them in files, and the faults."""
    from chassis.signing import is_signed
    from schemas.ledger import Fault, day_of
    from schemas.seals import seal_in

    trusted = key or (await client.audit.state()).key
    days = away = faults = 0
    async for signed in client.audit.seals():
        seal = seal_in(signed)
        if (since and seal.day < day_of(since)) or (until and seal.day > day_of(until)):
            continue
        check = await client.audit.check_seal(seal.day)
        days, away = (days, away + 1) if check.away else (days + 1, away)
        found = list(check.faults)
        if signed.key != trusted or not is_signed(signed):
            detail = f"the seal of {seal.day} is not under the key {trusted}"
            found.append(Fault(what="unsealed", number=seal.first, last=seal.last, detail=detail))
        faults += _show(tuple(found))
    return days, away, faults


def _show(faults: tuple[Fault, ...]) -> int:
    show_lines([_fault_line(fault) for fault in faults])
    return len(faults)


def _fault_line(fault: Fault) -> str:
    rows = f"row {fault.number}"
    if fault.last is not None and fault.last != fault.number:
        rows = f"rows {fault.number} to {fault.last}"
    parts = [f"{fault.what}: {rows}"]
    if fault.position is not None:
        parts.append(f"position {fault.position}")
    if fault.id is not None:
        parts.append(f"event {fault.id}")
    return ", ".join(parts) + (f" ({fault.detail})" if fault.detail else "")


def _verify_file(file: Path, key: str) -> Exit:
    proven, found = checked(file, key)
    note(f"{proven} events proven: {_verdict(found)}")
    return Exit.FAILED if found else Exit.OK


def _verdict(faults: int) -> str:
    return f"{faults} faults" if faults else "no fault"


def _opened(file: Path | None) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(sys.stdout.buffer) if file is None else written(file)
