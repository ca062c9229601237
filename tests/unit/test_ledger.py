"""Rows of the ledger against each other: what was changed, taken away or put in is found and named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.ledger import (
    GENESIS,
    Fault,
    LedgerRow,
    Reached,
    after,
    end_faults,
    faults_of,
    hash_of_row,
)
from schemas.wire import encode
from tests.fixtures.inventory import LIFE, envelopes, id_of

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ledger() -> list[LedgerRow]:
    rows: list[LedgerRow] = []
    for number, envelope in enumerate(envelopes(*LIFE), start=1):
        rows.append(
            rehashed(
                LedgerRow(
                    stream="EVENTS",
                    number=number,
                    position=number,
                    received_at=AT,
                    operation=envelope.operation,
                    vm=None,
                    host=None,
                    envelope=encode(envelope),
                    previous=rows[-1].hash if rows else GENESIS,
                    hash=b"",
                    id=envelope.id,
                    time=envelope.time,
                    type=envelope.type,
                    source=envelope.source,
                    subject=envelope.subject,
                    cause=envelope.cause,
                    actor=envelope.actor,
                )
            )
        )
    return rows


def rehashed(row: LedgerRow) -> LedgerRow:
    return replace(row, hash=hash_of_row(row))


def all_faults(rows: list[LedgerRow]) -> list[Fault]:
    found: list[Fault] = []
    reached = Reached()
    for row in rows:
        found += faults_of(reached, row)
        reached = after(reached, row)
    head = ledger()[-1]
    return found + end_faults(reached, number=head.number, hash=head.hash)


def test_the_bytes_that_are_hashed_can_be_made_by_hand() -> None:
    row = ledger()[1]
    lines = [
        "EVENTS",
        "2",
        "2",
        "1772366400000000",
        str(row.operation),
        "",
        "",
        "",
    ]
    said = b"\x00" + row.previous + "\n".join(lines).encode() + row.envelope
    assert row.hash == sha256(said).digest()


def test_a_record_that_is_whole_has_no_fault() -> None:
    assert all_faults(ledger()) == []


CHANGES: dict[str, Any] = {
    "envelope": b'{"specversion":"1.0"}',
    "position": 77,
    "received_at": AT.replace(year=2025),
    "operation": id_of(99),
    "vm": id_of(98),
    "host": "h9",
    "time": AT.replace(year=2024),
    "type": "vireo.vm.deleted.v1",
    "source": "/vireo/lab/somebody",
    "subject": "vm/other",
    "cause": id_of(97),
    "actor": "token/innocent",
    "id": id_of(96),
}


@pytest.mark.parametrize("column", sorted(CHANGES))
def test_a_changed_column_is_found_and_its_row_named(column: str) -> None:
    rows = ledger()
    rows[4] = replace(rows[4], **{column: CHANGES[column]})
    (fault,) = all_faults(rows)
    assert (fault.what, fault.number) == ("changed", 5)


def test_the_columns_that_differ_from_the_events_bytes_are_named() -> None:
    rows = ledger()
    rows[4] = replace(rows[4], actor="token/innocent", type="vireo.vm.deleted.v1")
    (fault,) = all_faults(rows)
    assert fault.detail == "not as in its bytes: type, actor"


@pytest.mark.parametrize("number", [1, 5, len(LIFE)])
def test_a_row_that_was_changed_and_hashed_anew_is_still_named(number: int) -> None:
    rows = ledger()
    rows[number - 1] = rehashed(replace(rows[number - 1], host="h9"))
    (fault,) = all_faults(rows)
    assert (fault.what, fault.number, fault.id) == ("changed", number, rows[number - 1].id)


def gone(*numbers: int) -> Callable[[list[LedgerRow]], list[LedgerRow]]:
    return lambda rows: [row for row in rows if row.number not in numbers]


@pytest.mark.parametrize(
    ("numbers", "last"), [((1,), 1), ((4, 5, 6), 6), ((len(LIFE) - 1, len(LIFE)), len(LIFE))]
)
def test_rows_that_are_gone_are_found_and_numbered(numbers: tuple[int, ...], last: int) -> None:
    (fault,) = all_faults(gone(*numbers)(ledger()))
    assert fault == Fault(what="missing", number=numbers[0], last=last)


def test_a_row_put_in_between_is_found() -> None:
    rows = ledger()
    stranger = rehashed(replace(rows[3], id=id_of(77), previous=rows[4].hash))
    (fault,) = all_faults([*rows[:5], stranger, *rows[5:]])
    assert (fault.what, fault.number, fault.id) == ("inserted", 4, id_of(77))


def test_a_row_put_in_at_the_end_is_found() -> None:
    rows = ledger()
    stranger = rehashed(replace(rows[-1], number=len(rows) + 1, previous=rows[-1].hash))
    assert all_faults([*rows, stranger]) == [
        Fault(what="inserted", number=len(rows) + 1, last=len(rows) + 1)
    ]
