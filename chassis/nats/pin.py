"""Being the one reader of a consumer that hands its messages to one reader only (ADR-42).

Pure. The server pins the consumer to whoever asks when a message is there, names the pin on each
message, and wants it named in every further request. A pin that no request has named for the
consumer's `priority_timeout` is over; who names one that is over is answered 423.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.nats.messages import PIN_ID

GROUP = "active"
LOST = 423


class Pin:
    """Our hold on a consumer: nothing until we are handed a message, or after we lost it."""

    def __init__(self) -> None:
        self.id = ""

    def note(self, headers: Mapping[str, str] | None) -> None:
        """Learn the pin from a message."""
        self.id = (headers or {}).get(PIN_ID, self.id)

    def lose(self) -> None:
        self.id = ""

    def request(self) -> dict[str, Any]:
        """What a request for messages says beside the rest."""
        return {"group": GROUP, "id": self.id} if self.id else {"group": GROUP}

    def renewal(self) -> dict[str, Any]:
        """A request that names the pin and that no message fits into: renews it, and brings nothing."""
        return {**self.request(), "batch": 1, "no_wait": True, "max_bytes": 1}
