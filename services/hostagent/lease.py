"""The lease: proof that this host's agent lives and hears the bus."""

from __future__ import annotations

import msgspec
import structlog

from chassis import kv
from chassis.bus import Bus, BusError
from chassis.service import Clock
from schemas.subjects import KV_LEASES
from services.hostagent.settings import Settings

log = structlog.get_logger(__name__)


async def keep_lease(bus: Bus, clock: Clock, settings: Settings) -> None:
    """Renew the lease until cancelled. One that could not be renewed is not made up for."""
    while True:
        value = msgspec.json.encode({"host": settings.host, "at": clock.now()})
        try:
            await bus.publish(kv.put(KV_LEASES, settings.host, value, ttl_s=settings.lease_ttl_s))
        except BusError as error:
            log.warning("lease_not_renewed", error=str(error))
        await clock.sleep(settings.lease_s)
