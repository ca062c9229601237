"""Subscriptions by the SDK: events shared by several programs under a name, each handled at least once.

async for event in client.subscriptions.events("pager"):
    page_somebody(event.header)
    await event.done()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from schemas.envelope import Header
from schemas.subscriptions import (
    Again,
    Given,
    SettledEvents,
    SettleEvents,
    Subscription,
    SubscriptionState,
    TakeEvents,
    TakenEvent,
    TakenEvents,
)
from schemas.wire import Undecodable, read_header
from vireo.errors import Unavailable, unreadable
from vireo.pages import PageOf
from vireo.paths import checked_ref
from vireo.transport import Transport

T = TypeVar("T")


class SubscribedEvent:
    """An event in hand: say what became of it before its lease is over, or it is handed out again."""

    def __init__(
        self, subscriptions: Subscriptions, name: str, taken: TakenEvent, header: Header
    ) -> None:
        self._subscriptions = subscriptions
        self._name = name
        self._receipt = taken.receipt
        self.header = header
        self.raw = bytes(taken.event)
        """The CloudEvent's JSON."""
        self.sequence = taken.sequence
        self.delivered = taken.delivered
        """How often it was handed out, this time included."""

    async def done(self) -> None:
        """It was handled. This and what follows outlives a server that is away, as `events` does."""
        await self._say(SettleEvents(done=(self._receipt,)))

    async def working(self) -> None:
        """The lease begins anew."""
        await self._say(SettleEvents(working=(self._receipt,)))

    async def again(self, after_s: float = 0) -> None:
        """Let it be handed out again."""
        await self._say(SettleEvents(again=(Again(receipt=self._receipt, after_s=after_s),)))

    async def dead(self, reason: str) -> None:
        """To the dead letters: nobody can handle it."""
        await self._say(SettleEvents(dead=(Given(receipt=self._receipt, reason=reason),)))

    async def _say(self, what: SettleEvents) -> None:
        await self._subscriptions.settle_at_last(self._name, what)


class Subscriptions:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def begin(
        self,
        name: str,
        *,
        types: Sequence[str] = (),
        vm: str | None = None,
        host: str | None = None,
        begin: Literal["now", "start"] = "now",
        lease_s: float = 30,
    ) -> Subscription:
        """Make the name, or change which events it stands for; where it stands stays. `vm` is an id."""
        asked = {"types": list(types), "vm": vm, "host": host, "begin": begin, "lease_s": lease_s}
        body = {key: value for key, value in asked.items() if value}
        return await self._transport.change("PUT", _path(name), Subscription, body=body)

    async def end(self, name: str) -> SubscriptionState:
        """Forget it, with where it stood."""
        return await self._transport.change("DELETE", _path(name), SubscriptionState)

    async def list(self) -> AsyncGenerator[SubscriptionState]:
        """All there are, by name."""
        page = await self._transport.read("/v1/subscriptions", PageOf[SubscriptionState])
        for each in page.items:
            yield each

    async def take(self, name: str, *, limit: int = 1, wait_s: float = 20) -> TakenEvents:
        """The next events; waits for the first of them. None if there was none in time."""
        wanted = TakeEvents(limit=limit, wait_s=wait_s)
        return await self._transport.ask(f"{_path(name)}/take", TakenEvents, body=wanted)

    async def settle(self, name: str, what: SettleEvents) -> SettledEvents:
        return await self._transport.ask(f"{_path(name)}/settle", SettledEvents, body=what)

    async def settle_at_last(self, name: str, what: SettleEvents) -> SettledEvents:
        """As `settle`, but it outlives a server that is away. Raises Unavailable once that has been so
        for longer than the patience of the settings."""
        return await self._patiently(lambda: self.settle(name, what))

    async def events(self, name: str) -> AsyncGenerator[SubscribedEvent]:
        """One event after another, without end. Raises Unavailable once the server has been away for
        longer than the patience of the settings."""
        while True:
            taken = await self._patiently(lambda: self.take(name))
            for one in taken.items:
                yield self._event(name, one)

    async def _patiently(self, asking: Callable[[], Awaitable[T]]) -> T:
        now = asyncio.get_running_loop().time
        began, attempt = now(), 0
        while True:
            try:
                return await asking()
            except Unavailable:
                if now() - began > self._transport.settings.patience_s:
                    raise
                attempt += 1
                await self._transport.pause(attempt)

    def _event(self, name: str, taken: TakenEvent) -> SubscribedEvent:
        try:
            header = read_header(bytes(taken.event))
        except Undecodable as error:
            raise unreadable(self._transport.url, str(error)) from error
        return SubscribedEvent(self, name, taken, header)


def _path(name: str) -> str:
    return f"/v1/subscriptions/{checked_ref('subscription', name)}"
