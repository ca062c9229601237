"""What was put away is told without a hole, by who may tell it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from chassis.settings import SettingsError, load
from chassis.signing import Signer, is_signed, signer_of
from schemas.anchors import faults_of_anchors
from schemas.ledger import Fault, archive_name, month_of, months_later
from schemas.seals import Anchor, SignedAnchor, SignedSeal
from services.inventory.settings import InventorySettings

AT = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return signer_of(tmp_path / "ledger.key")


def anchor(month: str, first: int, last: int) -> Anchor:
    return Anchor(
        stream="EVENTS",
        month=month,
        first=first,
        last=last,
        hash=32 * "0a",
        received_at=AT,
        file=f"events-{month}.jsonl.gz",
        sha256=32 * "0b",
        put_away_at=AT,
    )


def faults(signer: Signer, *signed: SignedAnchor) -> list[tuple[str, int, int | None]]:
    found: list[Fault] = [*faults_of_anchors(signed, key=signer.public, is_signed=is_signed)]
    return [(each.what, each.number, each.last) for each in found]


def test_anchors_that_follow_each_other_are_without_fault(signer: Signer) -> None:
    signed = [signer.anchor(anchor("2026-01", 1, 10)), signer.anchor(anchor("2026-02", 11, 11))]
    assert faults(signer, *signed) == []


def test_rows_of_which_no_anchor_tells_are_missing(signer: Signer) -> None:
    assert faults(signer, signer.anchor(anchor("2026-02", 11, 12))) == [("missing", 1, 10)]


def test_rows_of_two_anchors_are_put_in(signer: Signer) -> None:
    signed = [signer.anchor(anchor("2026-01", 1, 10)), signer.anchor(anchor("2026-02", 10, 11))]
    assert faults(signer, *signed) == [("inserted", 10, 11)]


def test_an_anchor_counts_under_the_trusted_key_and_as_it_was_signed(
    signer: Signer, tmp_path: Path
) -> None:
    said = anchor("2026-01", 1, 10)
    signed = signer.anchor(said)
    strange = signer_of(tmp_path / "other.key").anchor(said)
    changed = replace(signed, statement=signed.statement.replace("10", "12"))
    sealed = SignedSeal(statement=signed.statement, signature=signed.signature, key=signed.key)
    assert faults(signer, strange) == [("unsealed", 1, 10)]
    assert faults(signer, changed) == [("unsealed", 1, 12)]
    assert not is_signed(sealed), "what is signed as an anchor is no seal"


def test_months_are_counted_over_the_end_of_a_year() -> None:
    november = month_of(datetime(2026, 11, 29, 17, 4, tzinfo=UTC))
    assert november == datetime(2026, 11, 1, tzinfo=UTC)
    assert months_later(november, 2) == datetime(2027, 1, 1, tzinfo=UTC)
    assert months_later(november, 13) == datetime(2027, 12, 1, tzinfo=UTC)
    assert archive_name(november) == "events-2026-11.jsonl.gz"


def test_who_lets_months_go_says_where_to_and_signs_for_it() -> None:
    def wrong(**environ: str) -> str:
        with pytest.raises(SettingsError) as error:
            load(InventorySettings, service="inventory", file=None, environ=environ)
        return str(error.value)

    keep = {"VIREO_INVENTORY_RETENTION_KEEP_MONTHS": "12"}
    needed = "needed where retention.keep_months is set"
    assert f"retention.archive_dir and signing_key_file: {needed}" in wrong(**keep)
    kept = keep | {"VIREO_INVENTORY_RETENTION_ARCHIVE_DIR": "/srv/archive"}
    assert f"settings: signing_key_file: {needed}" in wrong(**kept)
