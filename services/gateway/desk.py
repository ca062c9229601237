"""What every handler works with: the rig, the settings, the tokens, and the slots that bound it all.

What belongs here: what lives as long as the gateway. What lives as long as a request is in `asked`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from msgspec import Struct

from chassis import micro
from chassis.bus import BusError
from chassis.service import Rig, Tagged
from schemas.problems import Problem, unavailable
from services.gateway import decide
from services.gateway.answers import Refused, of_status, refuse
from services.gateway.auth import Tokens
from services.gateway.kept import KeptAnswers
from services.gateway.settings import GatewaySettings

T = TypeVar("T")


class Slots:
    """So many at one time, and no queue behind them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0

    @contextmanager
    def one(self, refused: Refused) -> Iterator[None]:
        """Hold a slot. Raises `refused` if none is free."""
        if self.taken >= self._limit:
            raise refused
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Desk:
    """The gateway's long-lived parts."""

    def __init__(self, rig: Rig, settings: GatewaySettings) -> None:
        self.rig = rig
        self.settings = settings
        self.tokens = Tokens()
        self.waits = Slots(settings.limits.waits)
        self.streams = Slots(settings.limits.streams)
        self.stopping = asyncio.Event()
        limits = settings.limits
        self.kept = KeptAnswers(most=limits.kept_answers, most_bytes=limits.kept_bytes)

    async def ask(
        self, service: str, endpoint: str, query: Struct, *, timeout_s: float | None = None
    ) -> bytes:
        """A service's answer, as it came. Raises Refused with its problem, or 503 if it is away."""
        patience_s = self.settings.ask_timeout_s if timeout_s is None else timeout_s
        asking = micro.ask(self.rig.bus, service, endpoint, query, timeout_s=patience_s)
        return await self._answered(service, asking)

    async def ask_again(
        self, service: str, endpoint: str, query: Struct, *, known: str | None
    ) -> Tagged:
        """As `ask`, of what has a tag: without a body if what is `known` under its tag is still true."""
        timeout_s = self.settings.ask_timeout_s
        asking = micro.ask_again(
            self.rig.bus, service, endpoint, query, known=known, timeout_s=timeout_s
        )
        return await self._answered(service, asking)

    async def _answered(self, service: str, asking: Awaitable[T | Problem]) -> T:
        try:
            found = await asking
        except BusError as error:
            raise self.away(f"The {service} service does not answer.") from error
        if isinstance(found, Problem):
            problem = decide.as_answer(found)
            again = self.settings.retry_after_s if problem.status == 503 else None
            raise refuse(problem, retry_after_s=again)
        return found

    def away(self, detail: str) -> Refused:
        """A part of the system is away: ask again soon."""
        return refuse(unavailable(detail), retry_after_s=self.settings.retry_after_s)

    def crowded(self, detail: str) -> Refused:
        """A limit is reached: ask again soon."""
        return refuse(of_status(429, detail), retry_after_s=self.settings.retry_after_s)

    def require_bus(self) -> None:
        """Refuse at once, with nothing done, while the bus is away."""
        if not self.rig.bus.connected:
            raise self.away("The bus is not connected; nothing was done.")
