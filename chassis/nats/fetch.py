"""Pull requests on one inbox: asks a consumer for messages, and notices when nobody answers any more.

What belongs here: the wire protocol of pulling (ADR-37's statuses and heartbeats), for one life of a
consumer on one connection. What doesn't: waiting for consumers and beginning again (`pull.py`,
`follow.py`).

Several requests may be open. Each has its own reply subject below the inbox, so that the server's
statuses say which one has ended; the messages themselves count against the oldest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.msg import Msg

from chassis.bus import Unavailable
from chassis.nats.link import NO_RESPONDERS, Link
from chassis.nats.messages import description_of, status_of
from chassis.nats.pin import LOST, Pin

HEARTBEAT = 100
NORMAL_ENDS = {404, 408}
"""Nothing there, or the time of the request is over."""
SPENT = "batch completed"
RENEWAL = "renewal"
"""Instead of a request's number; what else the server answers to it says nothing."""
NANOSECONDS = 1_000_000_000
MISSED_HEARTBEATS = 2.5


class Ended(Exception):
    """This life of the consumer is over: it is `absent`, the connection was `renewed`, or else."""

    def __init__(self, reason: str, *, absent: bool = False, renewed: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent
        self.renewed = renewed


class Fetcher:
    """Asks one consumer for messages and hands them to `receive` as they come."""

    def __init__(
        self,
        link: Link,
        *,
        stream: str,
        consumer: str,
        receive: Callable[[Msg], None],
        pin: Pin | None = None,
    ) -> None:
        self._link = link
        self._settings = link.settings
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = link.new_inbox()
        self._numbers = 0
        self._open: dict[str, int] = {}
        self._hand_over = receive
        self._pin = pin
        self._ended: Ended | None = None
        self._wake = asyncio.Event()
        self._heard_at = 0.0
        self._now = asyncio.get_running_loop().time

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen on the inbox, until the connection is lost or replaced."""
        async with self._link.subscribed(f"{self._inbox}.*", self._receive):
            with self._link.whenever_up(self._on_reconnected):
                self._heard_at = self._now()
                yield

    @property
    def asked(self) -> int:
        """Messages asked for that have not come."""
        return sum(self._open.values())

    async def request(self, count: int) -> None:
        """Ask for `count` more messages."""
        self._numbers += 1
        token = str(self._numbers)
        wish = {
            "batch": count,
            "expires": int(self._settings.pull_expires_s * NANOSECONDS),
            "idle_heartbeat": int(self._settings.heartbeat_s * NANOSECONDS),
        }
        if self._pin is not None:
            wish |= self._pin.request()
        if not self._open:
            self._heard_at = self._now()
        self._open[token] = count
        await self._ask(wish, token)

    async def renew(self) -> None:
        """Stay the one reader, if we are it, whether or not there is room for messages."""
        if self._pin is not None and self._pin.id:
            await self._ask(self._pin.renewal(), RENEWAL)

    async def _ask(self, wish: dict[str, Any], token: str) -> None:
        try:
            await self._link.publish(
                self._subject, json.dumps(wish).encode(), reply=f"{self._inbox}.{token}"
            )
        except Unavailable as error:
            raise Ended(str(error)) from error

    async def wait(self) -> None:
        """Return when there may be reason to ask for more. Raises Ended."""
        while not self._wake.is_set():
            patience_s = (
                self._heard_at + self._settings.heartbeat_s * MISSED_HEARTBEATS - self._now()
            )
            if self._open and patience_s <= 0:
                raise Ended("the server does not answer")
            try:
                async with asyncio.timeout(patience_s if self._open else None):
                    await self._wake.wait()
            except TimeoutError:
                continue
        self._wake.clear()
        if self._ended is not None:
            raise self._ended

    def end(self, reason: str) -> None:
        """Make `wait` raise Ended."""
        self._ended = Ended(reason)
        self._wake.set()

    def nudge(self) -> None:
        """Make `wait` return."""
        self._wake.set()

    def _receive(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        if token != RENEWAL:  # its answer doesn't tell whether the requests are still there
            self._heard_at = self._now()
        status = 0 if message.data else status_of(message)
        if status == HEARTBEAT:
            return
        if status:
            self._on_status(token, status, description_of(message))
        else:
            if self._pin is not None:
                self._pin.note(message.headers)
            self._count_one()
            self._hand_over(message)
        self._wake.set()

    def _count_one(self) -> None:
        token = next(iter(self._open), None)
        if token is None:
            return
        self._open[token] -= 1
        if self._open[token] <= 0:
            del self._open[token]

    def _on_status(self, token: str, status: int, description: str) -> None:
        self._open.pop(token, None)
        if self._pin is not None and status == LOST:
            self._pin.lose()
        elif token == RENEWAL or status in NORMAL_ENDS or description.lower() == SPENT:
            return
        absent = status == NO_RESPONDERS or "deleted" in description.lower()
        self._ended = Ended(f"{status} {description}", absent=absent)

    def _on_reconnected(self) -> None:
        self._ended = Ended("connected anew", renewed=True)
        self._wake.set()
