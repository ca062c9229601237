"""Actions: things for a host to do once, with a deadline, on the stream ACTIONS.

Each goes to `vireo.act.<site>.<host>.<kind>.<verb>` in an `Envelope`, with the deadline as the
message's time to live too.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from schemas.ids import VmId
from schemas.resources import StopMode


class RebootVmOnce(Struct, frozen=True, kw_only=True):
    """Reboot a running guest; the envelope's operation ends with it."""

    vm: VmId
    mode: StopMode
    deadline: datetime
