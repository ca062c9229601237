"""Seals, gaps, exports and checks: the record as its auditors see it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec import Struct

from chassis.bus import Bus, Outgoing
from chassis.signing import is_signed, signer_of
from schemas import events, subjects
from schemas.audit import (
    CheckSeal,
    LedgerCheck,
    LedgerGap,
    LedgerProof,
    ListGaps,
    ListRows,
    ProveRows,
    ShowLedger,
)
from schemas.ledger import day_of
from schemas.proofs import Finding, Group, ProvenEvent, Title, check_file
from schemas.seals import seal_in
from schemas.wire import encode
from services.inventory.audits import Audits
from tests.fixtures.inventory import (
    LIFE,
    SITE,
    START,
    VM,
    arrivals,
    arrived,
    creation,
    envelopes,
)
from tests.fixtures.record import Audited
from vireo.audit import Audit
from vireo.cli.audit_archive import archived
from vireo.cli.audit_file import checked
from vireo.settings import ClientSettings
from vireo.transport import Transport


async def exported(audited: Audited, query: ListRows) -> list[bytes]:
    """As the SDK writes it."""
    lines = [encode(Title(ledger=1, stream="EVENTS", exported_at=START))]
    answer = await audited.audits.rows(query)
    assert isinstance(answer, bytes)
    proven = msgspec.json.decode(answer, type=_Rows).items
    for day in sorted({day_of(each.row.received_at) for each in proven}):
        group = [each for each in proven if day_of(each.row.received_at) == day]
        numbers = tuple(each.row.number for each in group)
        proof = await audited.audits.prove(ProveRows(rows=",".join(map(str, numbers))))
        assert isinstance(proof, LedgerProof)
        lines.append(encode(Group(seal=proof.seal, rows=numbers, proof=proof.proof)))
        lines += [encode(each) for each in group]
    return lines


class _Rows(Struct):
    items: list[ProvenEvent]


def findings(audited: Audited, lines: list[bytes]) -> tuple[int, list[Finding]]:
    steps = list(check_file(lines, key=audited.signer.public, is_signed=is_signed))
    return steps[-1].proven, [each for step in steps for each in step.findings]


async def test_the_key_is_for_its_owner_alone(audited: Audited) -> None:
    file = audited.settings.signing_key_file
    assert file is not None
    assert file.stat().st_mode & 0o777 == 0o600


async def test_every_day_that_is_over_is_sealed_and_told_once(audited: Audited) -> None:
    await audited.turn()
    await audited.turn()
    said = await audited.told(events.LedgerSealed)
    sealed = [seal_in(each.seal) for each in said]
    assert [(seal.first, seal.last, seal.final) for seal in sealed] == [
        (1, 5, True),
        (6, 10, True),
        (11, 15, True),
    ]
    assert all(is_signed(each.seal) for each in said)
    state = await audited.audits.state(ShowLedger())
    assert (state.sealed_through, state.key) == (sealed[-1].day, audited.signer.public)
    for seal in sealed:
        checked = await audited.audits.check_seal(CheckSeal(day=seal.day))
        assert isinstance(checked, LedgerCheck)
        assert checked.faults == ()


async def test_a_record_that_is_whole_is_found_whole(audited: Audited) -> None:
    await audited.inventory.store.record(arrivals(*creation(500), first=len(LIFE) + 1))
    assert await audited.check() == []


async def test_what_was_changed_by_hand_is_found_through_pieces_and_named(audited: Audited) -> None:
    await audited.by_hand(
        "update events set actor = 'token/innocent' where number = 3",
        "delete from events where number in (6, 7)",
        "update events set vm = gen_random_uuid() where number = 12",
    )
    found = await audited.check()
    assert [(fault.what, fault.number, fault.last) for fault in found] == [
        ("changed", 3, None),
        ("missing", 6, 7),
        ("changed", 12, None),
    ]
    assert found[0].id == arrivals(*LIFE)[2].envelope.id


async def test_a_chain_that_was_made_anew_does_not_fit_its_seals(audited: Audited) -> None:
    await audited.turn()
    await audited.by_hand("update events set hash = sha256(hash) where number = 9")
    checked = await audited.audits.check_seal(CheckSeal(day="2026-01-31"))
    assert isinstance(checked, LedgerCheck)
    (fault,) = checked.faults
    assert (fault.number, fault.last) == (6, 10)
    assert fault.detail == "the rows of 2026-01-31 are not those that were signed"


async def test_days_with_missing_rows_are_not_sealed_but_are_an_alarm(audited: Audited) -> None:
    await audited.by_hand("delete from events where number = 8")
    await audited.turn()
    assert len(await audited.told(events.LedgerSealed)) == 1
    (alarm,) = audited.record.upkeep.alarms()
    assert "2026-01-31" in alarm


@pytest.mark.parametrize("sealed", [True, False])
async def test_exported_events_are_proven_without_the_server(
    audited: Audited, sealed: bool
) -> None:
    if sealed:
        await audited.turn()
    lines = await exported(audited, ListRows(vm=VM, limit=100))
    assert findings(audited, lines) == (len(LIFE), [])


async def test_one_operation_of_a_day_is_proven_by_few_hashes(audited: Audited) -> None:
    operation = LIFE[7][0]
    lines = await exported(audited, ListRows(operation=operation, limit=100))
    assert findings(audited, lines) == (4, [])


async def test_a_file_that_was_tampered_with_is_found_line_by_line(audited: Audited) -> None:
    lines = await exported(audited, ListRows(vm=VM, limit=100))
    changed = [
        line.replace(b"token/admin", b"token/other") if n == 3 else line
        for n, line in enumerate(lines)
    ]
    proven, found = findings(audited, changed)
    assert [(each.line, each.number, each.what) for each in found] == [(4, 2, "was changed")]
    assert proven == len(LIFE) - 1
    _, found = findings(audited, [*lines[:3], *lines[4:]])
    assert [(each.number, each.what) for each in found] == [(2, "was taken out")]
    _, found = findings(audited, [*lines[:4], lines[3], *lines[4:]])
    assert [(each.number, each.what) for each in found] == [(2, "stands here twice")]


async def test_a_seal_under_another_key_proves_nothing(audited: Audited, tmp_path: Path) -> None:
    lines = await exported(audited, ListRows(vm=VM, limit=100))
    other = signer_of(tmp_path / "other.key").public
    steps = list(check_file(lines, key=other, is_signed=is_signed))
    assert steps[-1].proven == 0
    assert all("another key" in each.what for step in steps for each in step.findings)


async def test_a_gap_is_an_alarm_and_filled_from_the_stream(audited: Audited) -> None:
    upkeep = audited.record.upkeep
    late = envelopes(*creation(700), *creation(800), first=900)
    for envelope in late:
        await publish(audited.bus, encode(envelope))
    await publish(audited.bus, b"{}")
    gone = subjects.event(events.HostSilent, site=SITE, source="h1", id="h1")
    for _ in range(2):
        await audited.bus.publish(Outgoing(subject=gone))
    await audited.bus.purge(subjects.EVENTS, gone)
    newest = envelopes(*creation(900), first=950)[0]
    await publish(audited.bus, encode(newest))
    # The record stands at place 15, so this stream is a new one, of which 7 were passed by.
    await audited.inventory.store.record(arrived([newest], first=8))
    await upkeep.look()
    assert upkeep.alarms() == ("7 events were passed by and are being looked for",)
    await audited.turn()
    assert upkeep.alarms() == ("2 events are missing: vireo audit gaps",)
    answer = await audited.audits.gaps(ListGaps(filled=True))
    assert isinstance(answer, bytes)
    found = msgspec.json.decode(answer, type=_Gaps)
    assert [(gap.first, gap.last, gap.state) for gap in found.items] == [
        (1, 4, "filled"),
        (5, 5, "unreadable"),
        (6, 7, "missing"),
    ]
    settled = events.LedgerGapSettled(epoch=1, first=1, last=7, filled=4, unreadable=1, missing=2)
    assert await audited.told(events.LedgerGapSettled) == [settled]
    assert await audited.check() == []


async def publish(bus: Bus, data: bytes) -> None:
    subject = subjects.event(events.VmStarted, site=SITE, source="h1", id=VM)
    await bus.publish(Outgoing(subject=subject, data=data))


class _Gaps(Struct):
    items: list[LedgerGap]


async def test_several_inventories_may_make_the_months_at_one_time(audited: Audited) -> None:
    several = [audited.again().upkeep for _ in range(4)]
    await asyncio.gather(*(upkeep.make_months() for upkeep in several))
    async with audited.inventory.postgres.connection() as connection:
        ahead = await connection.fetchval(
            "select count(*) from pg_inherits where inhparent = 'events'::regclass"
            " and inhrelid::regclass::text >= to_char(now() at time zone 'UTC', '\"events_\"YYYY_MM')"
        )
    assert ahead >= audited.settings.months_ahead + 1


async def test_a_row_outside_of_every_month_is_an_alarm(audited: Audited) -> None:
    await audited.by_hand(
        "insert into events select stream, number + 100, position, id, time, type, source, subject,"
        " operation, cause, actor, vm, host, timestamptz '2199-01-01', previous, hash, envelope"
        " from events where number = 1"
    )
    await audited.turn()
    assert "1 rows of the record lie outside of every month" in audited.record.upkeep.alarms()


class Straight:
    """The way from the SDK to the auditors without HTTP between: paths to what answers them."""

    settings = ClientSettings()
    url = "http://unused"

    def __init__(self, audits: Audits) -> None:
        self._answers: Mapping[str, tuple[type[Any], Any]] = {
            "/v1/ledger": (ShowLedger, audits.state),
            "/v1/ledger/rows": (ListRows, audits.rows),
            "/v1/ledger/proof": (ProveRows, audits.prove),
        }

    async def read(self, path: str, type: Any, *, query: Sequence[tuple[str, str]] = ()) -> Any:
        asked, answer = self._answers[path]
        found = await answer(msgspec.convert(dict(query), asked, strict=False))
        return msgspec.json.decode(found, type=type) if isinstance(found, bytes) else found


async def test_months_that_are_over_become_files_that_are_checked_offline(
    audited: Audited, tmp_path: Path
) -> None:
    await audited.turn()
    audit = Audit(cast("Transport", Straight(audited.audits)))
    into = tmp_path / "archive"
    assert await archived(audit, datetime(2026, 3, 15, tzinfo=UTC), into) == 0
    files = sorted(file.name for file in into.iterdir())
    assert files == ["events-2026-01.jsonl.gz", "events-2026-02.jsonl.gz"]
    key = audited.signer.public
    proven = [checked(into / name, key) for name in files]
    assert [faults for _, faults in proven] == [0, 0]
    assert sum(events for events, _ in proven) == len(LIFE)

    january = into / files[0]
    january.write_bytes(
        gzip.compress(gzip.decompress(january.read_bytes()).replace(b"admin", b"other", 1))
    )
    assert await archived(audit, datetime(2026, 3, 15, tzinfo=UTC), into) == 1
