"""The record as a ledger: what is hashed of a stored event, and how each row rests on the one before. Pure.

Whoever holds these functions and the rows can check the record, with or without the service that keeps
it. A row's hash is over its canonical bytes: the hash of the row before, the columns that are not in the
event itself (a line each), and the event's bytes as they were published. The row keeps both hashes, so
that a row whose hash was made anew is told from one that follows it.

What belongs here: canonical bytes, the hash, checking rows against each other. What does not: the trees
over a day's hashes (`merkle`), signed roots (`seals`), files (`proofs`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from msgspec import Struct

from schemas.envelope import Header
from schemas.wire import Undecodable, read_header

GENESIS = bytes(32)
"""What the first row rests on."""

SEQUENCE_BITS = 48
"""A stream's sequence takes the low bits of a position, the stream's epoch the high ones."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
ROW = b"\x00"
"""What is hashed begins with what it is, so that no row can pass for a node of a tree."""


class LedgerRow(Struct, frozen=True, kw_only=True):
    """A stored event with its place in the ledger.

    `number` counts what was stored, without a hole; `position` is the place in the stream (its epoch
    in the high bits, its sequence in the low 48). `operation`, `vm` and `host` are what the event was
    found to concern. The attributes of the event stand in columns of their own besides.
    """

    stream: str
    number: int
    position: int
    received_at: datetime
    operation: str | None
    vm: str | None
    host: str | None
    envelope: bytes
    previous: bytes
    hash: bytes
    id: str
    time: datetime
    type: str
    source: str
    subject: str | None
    cause: str | None
    actor: str | None


class Fault(Struct, frozen=True, kw_only=True):
    """What is wrong with the record, and where: the first number concerned and, if there are more, the
    last; position and id where a row is there to say them."""

    what: str
    number: int
    last: int | None = None
    position: int | None = None
    id: str | None = None
    detail: str = ""


def microseconds(at: datetime) -> int:
    """Since 1970, as it is hashed."""
    return (at - _EPOCH) // _MICROSECOND


def hash_of(
    previous: bytes,
    *,
    stream: str,
    number: int,
    position: int,
    received_us: int,
    operation: str | None,
    vm: str | None,
    host: str | None,
    envelope: bytes,
) -> bytes:
    """SHA-256 of a row's canonical bytes; the migration `ledger` says the same in SQL."""
    head = (
        f"{stream}\n{number}\n{position}\n{received_us}\n"
        f"{operation or ''}\n{vm or ''}\n{host or ''}\n"
    )
    return sha256(b"".join((ROW, previous, head.encode(), envelope))).digest()


def hash_of_row(row: LedgerRow) -> bytes:
    return hash_of(
        row.previous,
        stream=row.stream,
        number=row.number,
        position=row.position,
        received_us=microseconds(row.received_at),
        operation=row.operation,
        vm=row.vm,
        host=row.host,
        envelope=row.envelope,
    )


class Reached(Struct, frozen=True, kw_only=True):
    """How far a check of the chain has come: the last row, which the next one has to rest on."""

    number: int = 0
    hash: bytes = GENESIS
    position: int | None = None
    id: str | None = None


def faults_of(reached: Reached, row: LedgerRow) -> list[Fault]:
    """What is wrong with the row that comes next in the order of numbers."""
    if row.number <= reached.number:
        return [_fault("inserted", row, "another row has this number")]
    found: list[Fault] = []
    if row.number > reached.number + 1:
        found.append(Fault(what="missing", number=reached.number + 1, last=row.number - 1))
    elif row.previous != reached.hash:
        found.append(_exchanged(reached, row))
    if hash_of_row(row) != row.hash:
        found.append(_fault("changed", row, _what_differs(row)))
    elif differing := _differing_columns(row):
        found.append(_fault("changed", row, differing))
    return found


def after(reached: Reached, row: LedgerRow) -> Reached:
    """How far one has come with this row."""
    if row.number <= reached.number:
        return reached
    return Reached(number=row.number, hash=row.hash, position=row.position, id=row.id)


def end_faults(reached: Reached, *, number: int, hash: bytes) -> list[Fault]:
    """What is wrong at the end of the record, whose last row should be this one."""
    if reached.number < number:
        return [Fault(what="missing", number=reached.number + 1, last=number)]
    if reached.number > number:
        return [Fault(what="inserted", number=number + 1, last=reached.number)]
    if reached.hash != hash:
        return [_exchanged(reached, None)]
    return []


def _exchanged(reached: Reached, row: LedgerRow | None) -> Fault:
    by = f"row {row.number} rests on" if row else "the record ends with"
    return Fault(
        what="changed",
        number=reached.number or 1,
        position=reached.position,
        id=reached.id,
        detail=f"{by} another row than this one",
    )


def _fault(what: str, row: LedgerRow, detail: str) -> Fault:
    return Fault(what=what, number=row.number, position=row.position, id=row.id, detail=detail)


def _what_differs(row: LedgerRow) -> str:
    return _differing_columns(row) or "its bytes or its place are not those that were hashed"


def _differing_columns(row: LedgerRow) -> str:
    """Which columns say something else than the event's bytes, as text."""
    try:
        header = read_header(row.envelope)
    except Undecodable:
        return "its bytes are no CloudEvent"
    said, stored = _attributes(header), _attributes(row)
    names = [name for name, value in said.items() if stored[name] != value]
    return f"not as in its bytes: {', '.join(names)}" if names else ""


def _attributes(of: Header | LedgerRow) -> dict[str, object]:
    time = of.time if of.time.tzinfo else of.time.replace(tzinfo=UTC)
    return {
        "id": of.id,
        "time": time,
        "type": of.type,
        "source": stored_text(of.source),
        "subject": stored_text(of.subject),
        "cause": of.cause,
        "actor": stored_text(of.actor),
    }


def stored_text(value: str | None) -> str | None:
    """Text as Postgres can hold it: it knows no NUL."""
    return None if value is None else value.replace("\0", "\ufffd")


def day_of(at: datetime) -> str:
    """The day in UTC to which a row belongs, `2026-03-01`."""
    return at.astimezone(UTC).date().isoformat()


def month_of(at: datetime) -> datetime:
    """The beginning of the month in UTC to which a row belongs."""
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def months_later(month: datetime, count: int) -> datetime:
    """The beginning of the month that comes so many months after one."""
    years, index = divmod(month.month - 1 + count, 12)
    return month.replace(year=month.year + years, month=index + 1)


def archive_name(month: datetime) -> str:
    """What a file with all rows of a month is called."""
    return f"events-{month:%Y-%m}.jsonl.gz"


def embeds(envelope: bytes) -> bool:
    """Whether an event's bytes can stand in a line of a file and be read back byte for byte."""
    if b"\n" in envelope or b"\r" in envelope:
        return False
    return envelope.strip() == envelope
