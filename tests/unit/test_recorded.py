"""A month's file read again: what is asked for of it, no more at a time, and nothing of another file."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from schemas import events
from schemas.ledger import GENESIS
from schemas.proofs import Chain, Place, Title, hash_of_event, proven_event
from schemas.seals import Anchor, SignedAnchor
from schemas.wire import encode
from services.inventory import month_reader
from services.inventory.archives import Archive, last_before, last_until
from services.inventory.month_reader import MonthReader
from services.inventory.recorded import EVERYTHING, Damaged, Recorded, Selection, recorded_in
from tests.fixtures.inventory import CREATE, LIFE, VM, envelopes

FIRST = datetime(2026, 1, 5, tzinfo=UTC)


def minute(number: int) -> datetime:
    return FIRST + timedelta(minutes=number)


class Month(Struct, frozen=True):
    """What became of a VM, a row a minute, as a file has it; its creation is found to concern it."""

    rows: list[Recorded]
    lines: list[bytes]
    """A title, then the rows."""
    chain: Chain

    def read(self, lines: Sequence[bytes]) -> list[Recorded]:
        return [*recorded_in(lines, self.chain, stream="EVENTS")]


def month() -> Month:
    rows: list[Recorded] = []
    lines = [encode(Title(ledger=1, stream="EVENTS", exported_at=FIRST))]
    hash = GENESIS.hex()
    for number, envelope in enumerate(envelopes(*LIFE), start=1):
        row = Recorded(
            number=number,
            position=number + 100,
            received_at=minute(number),
            operation=envelope.operation,
            vm=VM if envelope.operation == CREATE else None,
            host="h1" if isinstance(envelope.data, events.VmStopped) else None,
            envelope=encode(envelope),
        )
        rows.append(row)
        lines.append(line_of(row, hash))
        hash = hash_of_row(row, hash)
    chain = Chain(first=1, previous=GENESIS.hex(), last=len(rows), hash=hash)
    return Month(rows, lines, chain)


def place_of(row: Recorded, previous: str) -> Place:
    return Place(
        number=row.number,
        position=row.position,
        received_at=row.received_at,
        previous=previous,
        hash=previous,
        operation=row.operation,
        vm=row.vm,
        host=row.host,
    )


def hash_of_row(row: Recorded, previous: str) -> str:
    return hash_of_event("EVENTS", place_of(row, previous), row.envelope).hex()


def line_of(row: Recorded, previous: str) -> bytes:
    place = replace(place_of(row, previous), hash=hash_of_row(row, previous))
    return encode(proven_event(row.envelope, place))


MONTH = month()
ROWS = MONTH.rows
LAST = len(ROWS)


def test_a_file_has_the_rows_that_were_put_away() -> None:
    assert MONTH.read(MONTH.lines) == ROWS


def exchanged(lines: list[bytes]) -> list[bytes]:
    """Row 4 made anew with all that follow, as somebody would who knows how."""
    made = lines[:4]
    hash = "".join(["ab" * 32])
    for row in ROWS[3:]:
        made.append(line_of(row, hash))
        hash = hash_of_row(row, hash)
    return made


def last_made_anew(lines: list[bytes]) -> list[bytes]:
    previous = MONTH_HASHES[-2]
    return [*lines[:-1], line_of(replace(ROWS[-1], host="h9"), previous)]


def hashes() -> list[str]:
    found = [GENESIS.hex()]
    for row in ROWS:
        found.append(hash_of_row(row, found[-1]))
    return found


MONTH_HASHES = hashes()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda lines: lines[:-2], f"rows {LAST - 1} to {LAST} are missing"),
        (lambda lines: lines[:1], f"rows 1 to {LAST} are missing"),
        (lambda lines: [], f"rows 1 to {LAST} are missing"),
        (lambda lines: lines[:4] + lines[5:], "row 5 stands after row 3"),
        (lambda lines: lines[:5] + lines[4:], "row 4 stands after row 4"),
        (lambda lines: [*lines, lines[-1]], f"row {LAST} stands after row {LAST}"),
        (lambda lines: [each.replace(b"web-1", b"web-2") for each in lines], "row 2 was changed"),
        (exchanged, "row 4 rests on another row than the one before it"),
        (last_made_anew, f"row {LAST} is not the one with which the month ended"),
        (lambda lines: [*lines[:3], lines[3][:-9]], "line 4 cannot be read"),
    ],
)
def test_where_it_ceases_to_be_what_was_put_away_it_says_so(
    change: Callable[[list[bytes]], list[bytes]], wrong: str
) -> None:
    with pytest.raises(Damaged, match=wrong):
        MONTH.read(change(MONTH.lines))


def written(directory: Path, lines: Sequence[bytes] = MONTH.lines) -> tuple[Path, Anchor]:
    file = directory / "events-2026-01.jsonl.gz"
    file.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    anchor = Anchor(
        stream="EVENTS",
        month="2026-01",
        first=1,
        last=LAST,
        hash=MONTH.chain.hash,
        received_at=ROWS[-1].received_at,
        file=file.name,
        sha256=sha256(file.read_bytes()).hexdigest(),
        put_away_at=FIRST,
    )
    return file, anchor


def reader(directory: Path, selection: Selection = EVERYTHING) -> MonthReader:
    return MonthReader(*written(directory), GENESIS.hex(), selection)


def test_it_is_read_piece_by_piece_to_its_end(tmp_path: Path) -> None:
    months = reader(tmp_path)
    first = months.next(0, 4)
    assert (first.events, first.through, first.more) == (ROWS[:4], 4, True)
    # Asked for again, and more of it: as who takes whole transactions does, or waits until one is due.
    again = months.next(2, 4)
    assert (again.events, again.through, again.more) == (ROWS[2:6], 6, True)
    less = months.next(2, 2)
    assert (less.events, less.through, less.more) == (ROWS[2:4], 4, True)
    rest = months.next(6, LAST)
    assert (rest.events, rest.through, rest.more) == (ROWS[6:], LAST, False)


def test_who_was_killed_goes_on_behind_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(month_reader, "LOOKED_AT", 4)
    months = reader(tmp_path)
    assert [months.pass_by(9) for _ in range(3)] == [False, False, True]
    assert months.next(9, 2).events == ROWS[9:11]


@pytest.mark.parametrize(
    "selection",
    [
        Selection(vm=VM),
        Selection(host="h1"),
        Selection(operation=CREATE),
        Selection(types=["vireo.vm.stopped.v1", "vireo.vm.deleted.v1"]),
        Selection(vm=VM, types=["vireo.vm.deleted.v1"]),
        Selection(since=minute(4), until=minute(9)),
        Selection(last=5),
        Selection(types=[]),
    ],
)
def test_what_is_asked_for_is_what_fits_however_little_is_looked_at_a_time(
    selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(month_reader, "LOOKED_AT", 3)
    months, after = reader(tmp_path, selection), 0
    found: list[Recorded] = []
    while after < LAST:
        stretch = months.next(after, 2)
        assert stretch.through > after
        found += stretch.events
        after = stretch.through
    fitting = [row for row in ROWS if selection.holds(row) and not selection.ends_before(row)]
    assert found == fitting
    assert len(found) < LAST


def test_behind_the_end_of_the_time_nothing_is_looked_at(tmp_path: Path) -> None:
    stretch = reader(tmp_path, Selection(until=minute(1))).next(0, 2)
    assert (stretch.events, stretch.through, stretch.more) == ([], LAST, False)


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        (lambda content: content[:-40], "it is cut off"),
        (lambda content: b"", "rows 1 to 15 are missing"),
        (lambda content: b"no gzip" + content, "it cannot be read: Not a gzipped file"),
        (lambda content: content + gzip.compress(b""), "all rows are there, but its SHA-256 is "),
        (lambda content: gzip.compress(b"\n".join(MONTH.lines[:4])), "rows 4 to 15 are missing"),
    ],
)
def test_of_another_file_than_was_put_away_nothing_is_handed_out(
    damage: Callable[[bytes], bytes], wrong: str, tmp_path: Path
) -> None:
    file, anchor = written(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    months = MonthReader(file, anchor, GENESIS.hex(), EVERYTHING)
    with pytest.raises(Damaged, match=wrong):
        months.next(0, 1)


def test_a_file_that_is_not_there_is_missing_and_not_damaged(tmp_path: Path) -> None:
    file, anchor = written(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        MonthReader(file, anchor, GENESIS.hex(), EVERYTHING).next(0, 1)


def test_a_time_begins_behind_the_months_before_it_and_ends_with_the_month_that_it_reaches() -> (
    None
):
    january, february = datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 27, tzinfo=UTC)
    known = [archive(1, 10, january), archive(11, 13, february)]
    times = (
        FIRST,
        january,
        datetime(2026, 2, 1, tzinfo=UTC),
        february,
        datetime(2026, 3, 1, tzinfo=UTC),
    )
    assert all(one < other for one, other in pairwise(times))
    assert [last_before(known, at) for at in times] == [0, 0, 10, 10, 13]
    assert [last_until(known, at) for at in times] == [10, 10, 13, 13, 13]
    assert (last_before([], FIRST), last_until([], FIRST)) == (0, 0)


def archive(first: int, last: int, at: datetime) -> Archive:
    anchor = Anchor(
        stream="EVENTS",
        month=f"{at:%Y-%m}",
        first=first,
        last=last,
        hash=GENESIS.hex(),
        received_at=at,
        file="",
        sha256=GENESIS.hex(),
        put_away_at=at,
    )
    signed = SignedAnchor(statement="", signature=128 * "0", key=GENESIS.hex())
    return Archive(anchor=anchor, signed=signed, position=last)
