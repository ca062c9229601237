"""The inventory's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from chassis.postgres import PostgresSettings
from chassis.settings import ChassisSettings


class RetentionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long events stay in Postgres; after that they are in files."""

    keep_months: Annotated[int, Meta(ge=0, le=1200)] = 0
    """Whole months that stay besides the present one; older ones are put away into files. 0: all stay."""
    archive_dir: Path | None = None
    """Folder of the files. It has to be there: where it is not, nothing is put away. Replays, and what
    makes tables anew, read them there."""
    check_s: Annotated[float, Meta(gt=0, le=86_400)] = 600.0
    """How often to see whether a month's time has come."""
    patience_s: Annotated[float, Meta(ge=1, le=86_400)] = 600.0
    """Patience for a statement over a whole month."""
    lock_wait_s: Annotated[float, Meta(gt=0, le=60)] = 2.0
    """How long readers may have to wait while a month's table is dropped; else it is tried again later."""


class InventorySettings(ChassisSettings, frozen=True, kw_only=True):
    """Settings of the inventory."""

    postgres: PostgresSettings = PostgresSettings()
    retention: RetentionSettings = RetentionSettings()
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 5_000
    """Most events in one transaction."""
    gather_s: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """Where events come fast, a transaction begins no sooner than so long after the one before it began:
    larger ones cost less an event."""
    gather_from: Annotated[int, Meta(ge=1, le=10_000)] = 16
    """They come fast if the transaction before had so many."""
    ack_wait_s: Annotated[float, Meta(ge=1, le=600)] = 5
    """After so long what a killed inventory had in hand is given to another (or to itself, restarted)."""
    waiters: Annotated[int, Meta(ge=1, le=100_000)] = 4096
    """Most requests that may wait for operations at once; beyond it they are answered 503."""
    queries: Annotated[int, Meta(ge=1, le=10_000)] = 64
    """Most requests of each other endpoint that are worked on at once."""
    queries_waiting: Annotated[int, Meta(ge=0, le=100_000)] = 1024
    """Most requests of each of them that wait for their turn; beyond it they are answered 503."""
    poll_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """How often to look for what other replicas committed, and whether Postgres answers."""
    trail_limit: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Most events that an operation's trail shows."""
    definitions: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Most policies, templates, projects or alert rules, of each."""
    config_check_s: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    """How often to see that the bucket CONFIG has all that people have defined."""
    config_look_s: Annotated[float, Meta(gt=0, le=600)] = 10.0
    """Patience for reading what CONFIG has."""
    config_retry_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """Pause before trying again what the bus prevented."""
    config_attempts: Annotated[int, Meta(ge=1, le=100)] = 5
    """Writes of one key to CONFIG at a time when others write it first."""
    signing_key_file: Path | None = None
    """File with the Ed25519 key (PEM) that seals each day of the record; made at the first start if it is
    not there. Left out, no day is sealed. Several inventories of one record share one file's content."""
    upkeep_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    """How often to see to the record: months, gaps, seals."""
    gap_patience_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    """How long an event that was passed by may take to come by itself before it is an alarm."""
    months_ahead: Annotated[int, Meta(ge=1, le=120)] = 3
    """Months whose tables are made ahead."""
    rows_checked: Annotated[int, Meta(ge=1, le=100_000)] = 2_000
    """Rows of the record that one request checks."""
    fleet_patience_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    """Patience for the scheduler to write anew what was lost with FLEET."""
    replays: Annotated[int, Meta(ge=1, le=100)] = 4
    """Most replays at a time; others wait."""
    replay_batch: Annotated[int, Meta(ge=1, le=1000)] = 200
    """Events that a replay reads, and publishes as fast as it goes, at a time."""
    rebuild_batch: Annotated[int, Meta(ge=1, le=100_000)] = 5_000
    """Events in one transaction where tables are made anew."""
    rebuild_patience_s: Annotated[float, Meta(ge=1, le=86_400)] = 600.0
    """Patience for a statement over a whole table where tables are made anew."""
    page_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 900_000
    """Largest page; it must stay below the bus's largest message, or a list cannot be answered."""

    def __post_init__(self) -> None:
        if not self.retention.keep_months:
            return
        needed = {
            "retention.archive_dir": self.retention.archive_dir,
            "signing_key_file": self.signing_key_file,
        }
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise ValueError(f"{' and '.join(missing)}: needed where retention.keep_months is set")
