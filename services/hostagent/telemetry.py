"""One frame per tick: the host's own numbers, all guests from outside, some from inside.

Loss is fine: what cannot be had now is left out, and nothing waits for it.
"""

from __future__ import annotations

import asyncio

import structlog

from chassis.bus import Bus, BusError
from chassis.service import Clock
from schemas import subjects, wire
from schemas.telemetry import HostFrame, VmColumns
from services.hostagent import host_sample
from services.hostagent.guests import Guests
from services.hostagent.host_sample import Counters
from services.hostagent.hypervisor import (
    Hypervisor,
    HypervisorFailure,
    HypervisorUnavailable,
)
from services.hostagent.settings import Settings

log = structlog.get_logger(__name__)

GUESTS_PER_FRAME = 256
GUEST_BYTES_PER_FRAME = 512 * 1024
"""A guest's sample takes a kilobyte or two; a message has to stay below one megabyte."""


async def send_frames(
    *, hypervisor: Hypervisor, guests: Guests, bus: Bus, clock: Clock, settings: Settings
) -> None:
    """Send a frame every `tick_s` until cancelled."""
    subject = subjects.telemetry(site=settings.site, host=settings.host)
    sequence, before = 0, Counters()
    while True:
        started_s = clock.monotonic()
        frame, before = await _frame(
            hypervisor, guests, clock, settings, sequence=sequence, before=before
        )
        try:
            await bus.send(subject, wire.encode(frame))
        except BusError as error:
            log.debug("frame_lost", error=str(error), sequence=sequence)
        sequence += 1
        spent_s = clock.monotonic() - started_s
        await clock.sleep(max(0.0, settings.tick_s - spent_s))


async def _frame(
    hypervisor: Hypervisor,
    guests: Guests,
    clock: Clock,
    settings: Settings,
    *,
    sequence: int,
    before: Counters,
) -> tuple[HostFrame, Counters]:
    try:
        vms = await hypervisor.sample()
        memory = await hypervisor.memory()
    except (HypervisorUnavailable, HypervisorFailure) as error:
        log.debug("no_sample", error=str(error))
        vms, memory = VmColumns(), None
    sample, counters = await asyncio.to_thread(
        host_sample.read,
        proc=settings.proc_dir,
        sys=settings.sys_dir,
        disk=settings.data_dir,
        pools=hypervisor.pools,
        meters=settings.power_meters,
        before=before,
        at_s=clock.monotonic(),
        running=vms.state.count("running"),
        memory=memory,
    )
    frame = HostFrame(
        host=settings.host,
        site=settings.site,
        at=clock.now(),
        sequence=sequence,
        interval_s=settings.tick_s,
        sample=sample,
        vms=vms,
        guests=guests.take(GUESTS_PER_FRAME, GUEST_BYTES_PER_FRAME),
    )
    return frame, counters
