"""The record's parts, put together: upkeep, retention and audits; and what reads it from front to back."""

from __future__ import annotations

from msgspec import Struct

from chassis.postgres import Postgres
from chassis.service import Rig
from chassis.signing import signer_of
from chassis.threads import Threads
from schemas import subjects
from services.inventory.audits import Audits
from services.inventory.event_source import EventSources
from services.inventory.gap_watch import GapWatch
from services.inventory.month_files import MonthFiles
from services.inventory.retention import Retention
from services.inventory.seal_days import Sealing, Seals
from services.inventory.settings import InventorySettings
from services.inventory.store import Queries, Store
from services.inventory.upkeep import Upkeep


class Record(Struct, frozen=True):
    """What sees to the record, and what answers about it."""

    upkeep: Upkeep
    audits: Audits
    retention: Retention | None
    """None where all months stay."""


def record_of(
    settings: InventorySettings, rig: Rig, postgres: Postgres, queries: Queries, store: Store
) -> Record:
    """Raises SecretUnreadable."""
    seals = seals_of(settings, postgres, queries)
    retention = _retention(settings, rig, postgres, queries, seals)
    upkeep = Upkeep(
        postgres,
        queries,
        stream=subjects.EVENTS,
        clock=rig.clock,
        gaps=GapWatch(
            rig,
            postgres,
            queries,
            store,
            stream=subjects.EVENTS,
            patience_s=settings.gap_patience_s,
            batch=settings.batch,
        ),
        sealing=Sealing(seals, rig) if seals is not None else None,
        retention=retention,
        months_ahead=settings.months_ahead,
        patience_s=settings.gap_patience_s,
    )
    audits = Audits(
        postgres,
        queries,
        stream=subjects.EVENTS,
        seals=seals,
        upkeep=upkeep,
        clock=rig.clock,
        page_bytes=settings.page_bytes,
        rows_checked=settings.rows_checked,
    )
    return Record(upkeep, audits, retention)


def _retention(
    settings: InventorySettings, rig: Rig, postgres: Postgres, queries: Queries, seals: Seals | None
) -> Retention | None:
    folder = settings.retention.archive_dir
    if not settings.retention.keep_months or seals is None or folder is None:
        return None
    files = MonthFiles(
        postgres,
        queries,
        stream=subjects.EVENTS,
        seals=seals,
        threads=Threads(1, name="archive"),
    )
    return Retention(
        rig,
        settings.retention,
        postgres,
        queries,
        stream=subjects.EVENTS,
        seals=seals,
        files=files,
        folder=folder,
    )


def sources_of(settings: InventorySettings, queries: Queries) -> EventSources:
    """Raises SecretUnreadable."""
    key_file = settings.signing_key_file
    return EventSources(
        queries,
        stream=subjects.EVENTS,
        folder=settings.retention.archive_dir,
        key=signer_of(key_file).public if key_file is not None else None,
    )


def seals_of(settings: InventorySettings, postgres: Postgres, queries: Queries) -> Seals | None:
    """None where no key is set."""
    if settings.signing_key_file is None:
        return None
    return Seals(
        postgres=postgres,
        queries=queries,
        stream=subjects.EVENTS,
        signer=signer_of(settings.signing_key_file),
    )
