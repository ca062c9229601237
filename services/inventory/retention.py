"""Retention: months whose time has come are put into files, and only then taken out of the database.

First the file is written, synced and read back as an auditor would; then one transaction stores the signed
anchor from which the rest of the record goes on, and drops the month's table. Whoever is killed in between
begins with the file that is there. What cannot be put away stays, and is an alarm.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from pathlib import Path

import asyncpg
import structlog

from chassis.bus import BusError, Outgoing
from chassis.postgres import Connection, Postgres
from chassis.service import Retry, Rig
from schemas import events, subjects
from schemas.ids import uuid7
from schemas.ledger import GENESIS, archive_name, month_of, months_later
from schemas.seals import Anchor, SignedAnchor, anchor_in
from schemas.wire import encode, wrap
from services.inventory.archives import Archive, Queries, archives
from services.inventory.month_files import Month, MonthFiles, Unfit
from services.inventory.seal_days import Broken, Seals
from services.inventory.settings import RetentionSettings

log = structlog.get_logger()


class Retention:
    """Puts months away, one after the other. Several processes may."""

    def __init__(
        self,
        rig: Rig,
        settings: RetentionSettings,
        postgres: Postgres,
        queries: Queries,
        *,
        stream: str,
        seals: Seals,
        files: MonthFiles,
        folder: Path,
    ) -> None:
        self._rig = rig
        self._settings = settings
        self._postgres = postgres
        self._queries = queries
        self._stream = stream
        self._seals = seals
        self._files = files
        self._folder = folder
        self.fault = ""
        """Why a month is still here that should be in a file."""

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.turn()
            except (Retry, BusError) as away:
                log.info("retention_put_off", reason=str(away))
            await self._rig.clock.sleep(self._settings.check_s)

    async def turn(self) -> None:
        """Tell of the last month that was put away, if nobody has; put away those whose time has come.

        Raises Retry, BusError."""
        try:
            await self._tell_last()
            while (month := await self._next()) is not None:
                await self._put_away(month)
        except (Unfit, Broken) as fault:
            self._note(str(fault))
        except OSError as fault:
            self._note(f"{self._folder}: {fault.strerror or fault}")
        else:
            self.fault = ""

    def _note(self, reason: str) -> None:
        fault = f"no month is put away: {reason}"
        if self.fault != fault:
            log.error("month_not_put_away", reason=reason)
        self.fault = fault

    async def _put_away(self, month: Month) -> None:
        file = self._folder / archive_name(month.begin)
        if not file.exists():
            await self._files.write(month, file, now=self._rig.clock.now())
        digest = await self._files.read_back(month, file)
        anchor = Anchor(
            stream=self._stream,
            month=str(month),
            first=month.first,
            last=month.last,
            hash=month.hash.hex(),
            received_at=month.received_at,
            file=file.name,
            sha256=digest,
            put_away_at=self._rig.clock.now(),
        )
        signed = self._seals.signer.anchor(anchor)
        if await self._detach(month, signed):
            log.info(
                "month_put_away",
                month=str(month),
                first=month.first,
                last=month.last,
                file=str(file),
            )
            await self._tell(signed)

    async def _next(self) -> Month | None:
        """The oldest month of the database, if its time has come. Raises Unfit."""
        async with self._postgres.transaction(isolation="repeatable_read") as connection:
            oldest = await connection.fetchrow(self._queries["oldest_row"], self._stream)
            if oldest is None:
                return None
            begin = month_of(oldest["received_at"])
            if months_later(begin, self._settings.keep_months + 1) > oldest["now"]:
                return None
            known = await archives(connection, self._queries, self._stream)
            _require_next(known, oldest["number"], oldest["previous"])
            last = await connection.fetchval(
                self._queries["last_before"], self._stream, months_later(begin, 1)
            )
            end = await connection.fetchrow(self._queries["row_hash"], self._stream, last)
        return Month(
            begin=begin,
            first=oldest["number"],
            previous=oldest["previous"],
            last=last,
            hash=end["hash"],
            received_at=end["received_at"],
        )

    async def _detach(self, month: Month, signed: SignedAnchor) -> bool:
        """All or nothing: the anchor is stored and the month's table gone. False if another did it."""
        settings = self._settings
        try:
            async with self._postgres.transaction() as connection:
                await connection.execute(
                    self._queries["limits"],
                    str(int(settings.patience_s * 1000)),
                    str(int(settings.lock_wait_s * 1000)),
                    timeout=settings.patience_s,
                )
                await self._require_all_here(connection, month)
                await connection.execute(self._queries["lock_ledger"], self._stream)
                known = await archives(connection, self._queries, self._stream)
                if known and known[-1].anchor.last >= month.last:
                    return False
                await self._save(connection, month, signed)
                await connection.execute(self._queries["drop_month"], month.begin.date())
        except asyncpg.LockNotAvailableError as error:
            raise Retry(settings.check_s, "the month is being read") from error
        return True

    async def _require_all_here(self, connection: Connection, month: Month) -> None:
        """The table is the month's rows and nothing else: it goes as a whole. Raises Unfit."""
        try:
            rows = await connection.fetchrow(
                self._queries["month_rows"], month.begin.date(), timeout=self._settings.patience_s
            )
        except asyncpg.UndefinedTableError as error:
            raise Unfit(f"rows of {month} lie outside of its table") from error
        if tuple(rows) != (month.first, month.last, month.last - month.first + 1):
            raise Unfit(
                f"the table of {month} is not rows {month.first} to {month.last}, each once"
            )

    async def _save(self, connection: Connection, month: Month, signed: SignedAnchor) -> None:
        place = await connection.fetchval(
            self._queries["furthest_place"], self._stream, month.begin, month.end
        )
        await connection.execute(self._queries["keep_assignments"], month.first, month.last)
        await connection.execute(self._queries["forget_assignments"])
        await connection.execute(
            self._queries["save_archive"],
            *(self._stream, month.last, place, signed.statement.encode()),
            *(bytes.fromhex(signed.signature), bytes.fromhex(signed.key)),
        )

    async def _tell_last(self) -> None:
        async with self._postgres.connection() as connection:
            known = await archives(connection, self._queries, self._stream)
        if known:
            await self._tell(known[-1].signed)

    async def _tell(self, signed: SignedAnchor) -> None:
        """Until the record has it. Raises BusError."""
        anchor = anchor_in(signed)
        id = _event_id(anchor.put_away_at, signed)
        if await self._seals.is_recorded(id):
            return
        envelope = wrap(
            events.LedgerArchived(anchor=signed),
            id=id,
            site=self._rig.site,
            sender="inventory",
            at=self._rig.clock.now(),
            about=f"ledger/{anchor.month}",
        )
        subject = subjects.event(
            events.LedgerArchived,
            site=self._rig.site,
            source="inventory",
            id=f"month-{anchor.month}",
        )
        await self._rig.bus.publish(Outgoing(subject=subject, data=encode(envelope), message_id=id))


def _event_id(at: datetime, signed: SignedAnchor) -> str:
    digest = sha256(signed.statement.encode()).digest()
    return uuid7(int(at.timestamp() * 1000), digest[:10])


def _require_next(known: list[Archive], number: int, previous: bytes) -> None:
    """The oldest row in the database follows what was put away. Raises Unfit."""
    last, hash = (known[-1].anchor.last, known[-1].anchor.hash) if known else (0, GENESIS.hex())
    if (number, previous.hex()) != (last + 1, hash):
        raise Unfit(f"rows before row {number} are missing: nothing is put away")
