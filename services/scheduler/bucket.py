"""Whether FLEET is still the bucket that the table was read from.

All that the scheduler knows, it knows by revision. A bucket that was deleted counts from 1 again, and
nothing new would ever be newer: the scheduler ends itself, and begins anew with what there is. It makes
the bucket again at its start, empty; what was in it comes back by `fleet.rebuild`.
"""

from __future__ import annotations

import structlog

from chassis.bus import BusError, NotFound
from chassis.service import Rig
from services.scheduler.ledger import FLEET
from services.scheduler.term import Term

log = structlog.get_logger()


class FleetLost(Exception):
    """The bucket is not there any more, or is another one."""


async def watch_bucket(rig: Rig, term: Term, *, every_s: float) -> None:
    """Look now and then. Raises FleetLost."""
    while True:
        await rig.clock.sleep(every_s)
        heard = term.heard_through
        try:
            last = await rig.bus.last_sequence(FLEET)
        except NotFound as lost:
            raise _lost() from lost
        except BusError:
            continue
        if last < heard:
            raise _lost()


def _lost() -> FleetLost:
    log.error("fleet_lost", bucket=FLEET, mend="vireo fleet rebuild")
    return FleetLost("the bucket FLEET was lost: vireo fleet rebuild writes it anew")
