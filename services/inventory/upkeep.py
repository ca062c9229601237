"""The record's upkeep: months made ahead, gaps looked for, days sealed, and what a person should know."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from chassis.bus import BusError
from chassis.postgres import Postgres
from chassis.service import Clock, Gauge, Retry
from services.inventory.gap_watch import GapWatch
from services.inventory.ledger_model import Condition, alarms
from services.inventory.retention import Retention
from services.inventory.seal_days import Sealing
from services.inventory.store import Queries

log = structlog.get_logger()


class Upkeep:
    """One turn after the other; what fails is tried again at the next."""

    def __init__(
        self,
        postgres: Postgres,
        queries: Queries,
        *,
        stream: str,
        clock: Clock,
        gaps: GapWatch,
        sealing: Sealing | None,
        retention: Retention | None,
        months_ahead: int,
        patience_s: float,
    ) -> None:
        self._postgres = postgres
        self._queries = queries
        self._stream = stream
        self._clock = clock
        self._gaps = gaps
        self._sealing = sealing
        self._retention = retention
        self._months_ahead = months_ahead
        self._patience_s = patience_s
        self.condition = Condition()

    async def run(self, every_s: float) -> None:
        """For ever."""
        while True:
            for part in (self.make_months, self.look_for_gaps, self.seal, self.look):
                try:
                    await part()
                except (Retry, BusError) as away:
                    log.info("upkeep_put_off", part=part.__name__, reason=str(away))
            await self._clock.sleep(every_s)

    async def make_months(self) -> None:
        async with self._postgres.transaction() as connection:
            await connection.execute(self._queries["lock_months"])
            made = await connection.fetchval(self._queries["make_months"], self._months_ahead)
        if made:
            log.info("months_made", tables=made)

    async def look_for_gaps(self) -> None:
        await self._gaps.turn()

    async def seal(self) -> None:
        if self._sealing is not None:
            await self._sealing.turn()

    async def look(self) -> None:
        """How the record is now."""
        async with self._postgres.connection() as connection:
            record = await connection.fetchrow(
                self._queries["condition"], self._stream, self._patience_s
            )
        fault = self._sealing.fault if self._sealing is not None else ""
        put_off = self._retention.fault if self._retention is not None else ""
        before, self.condition = (
            self.condition,
            Condition(**record, seal_fault=fault, archive_fault=put_off),
        )
        if self.condition.outside and not before.outside:
            log.error("rows_outside_of_months", rows=self.condition.outside)

    def alarms(self) -> tuple[str, ...]:
        return alarms(self.condition)

    def gauges(self) -> Mapping[str, Gauge]:
        return {
            "vireo_ledger_rows": Gauge(
                help="Events in the record.", read=lambda: self.condition.rows
            ),
            "vireo_ledger_gaps_open": Gauge(
                help="Events that were passed by and are being looked for.",
                read=lambda: self.condition.open,
            ),
            "vireo_ledger_missing": Gauge(
                help="Events that were never stored and are in the stream no more.",
                read=lambda: self.condition.missing,
            ),
            "vireo_ledger_rows_outside": Gauge(
                help="Rows of the record outside of every month.",
                read=lambda: self.condition.outside,
            ),
        }
