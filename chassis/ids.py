"""Where new ids come from: time and randomness meet here, the form is `schemas.ids`'s."""

from __future__ import annotations

import os
import time
from datetime import datetime

from schemas.ids import uuid7


class SystemIds:
    """UUIDv7 from the machine's clock and randomness."""

    def new(self) -> str:
        return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


class CountedIds:
    """UUIDv7 that count up from `start`: the same in every run, for scenarios and simulations."""

    def __init__(self, start: datetime) -> None:
        self._unix_ms = int(start.timestamp() * 1000)
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return uuid7(self._unix_ms, self._count.to_bytes(10, "big"))
