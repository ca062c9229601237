"""The deliveries of a durable consumer, for as long as anybody wants them.

Begins again on a fresh inbox after every reconnection and whenever the server falls silent; waits
quietly for a consumer that does not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from nats.aio.msg import Msg

from chassis.bus import BusError, Delivery, Incoming, Unavailable
from chassis.feed import Feed, feeding
from chassis.nats.api import Api
from chassis.nats.fetch import Ended, Fetcher
from chassis.nats.link import Link
from chassis.nats.messages import incoming
from chassis.nats.pin import GROUP, Pin

log = structlog.get_logger(__name__)

NANOSECONDS = 1_000_000_000
ABSENT_FIRST_S = 0.02
"""Pause after a life of some length; it doubles from one short life to the next."""

RENEWALS = 4
"""How often a pin is renewed in the time after which it would be over."""


class PulledDelivery:
    """A message with its reply subject, which carries what is said about it (ADR-15)."""

    def __init__(self, reader: Puller, message: Msg) -> None:
        self._reader = reader
        self._reply = message.reply
        self._settled = False
        self.message: Incoming = incoming(message)

    async def ack(self, *, confirmed: bool = True) -> None:
        """Raises Unavailable if the server did not confirm; the message may come again then."""
        try:
            if confirmed:
                await self._reader.confirm(self._reply, b"+ACK")
            else:
                self._reader.acknowledge_soon(self._reply)
        finally:
            self._settle()

    async def nak(self, delay_s: float) -> None:
        delay = b'-NAK {"delay": %d}' % max(int(delay_s * NANOSECONDS), 0)
        try:
            await self._reader.say(self._reply, delay if delay_s > 0 else b"-NAK")
        finally:
            self._settle()

    async def term(self, reason: str) -> None:
        try:
            await self._reader.confirm(self._reply, f"+TERM {reason}".encode())
        finally:
            self._settle()

    async def in_progress(self) -> None:
        await self._reader.say(self._reply, b"+WPI")

    def _settle(self) -> None:
        if not self._settled:
            self._settled = True
            self._reader.settled()


class Puller:
    """Keeps at most `batch` messages asked for, unread, or in the hands of the reader."""

    def __init__(
        self, link: Link, *, stream: str, consumer: str, batch: int, pin: Pin | None
    ) -> None:
        self._link = link
        self._stream = stream
        self._consumer = consumer
        self._batch = batch
        self._pin = pin
        self._unsettled = 0
        self._acknowledged: list[str] = []
        self._telling: asyncio.Task[None] | None = None
        self._fetcher: Fetcher | None = None
        self.feed: Feed[Delivery] = Feed()

    async def confirm(self, reply: str, word: bytes) -> None:
        await self._acknowledge()
        await self._link.call(reply, word, timeout_s=self._link.settings.call_timeout_s)

    def acknowledge_soon(self, reply: str) -> None:
        """With all that are acknowledged in this turn, in one write. Not confirmed: if it gets lost the
        message comes again."""
        self._acknowledged.append(reply)
        if len(self._acknowledged) == 1:
            self._telling = asyncio.create_task(self.tell(), name=f"ack {self._consumer}")

    async def tell(self) -> None:
        """Say what is still to be said."""
        with suppress(BusError):
            await self._acknowledge()

    async def _acknowledge(self) -> None:
        replies, self._acknowledged = self._acknowledged, []
        if replies:
            await self._link.publish_each(replies, b"+ACK")

    async def say(self, reply: str, word: bytes) -> None:
        await self._link.publish(reply, word)

    def settled(self) -> None:
        self._unsettled -= 1
        if self._fetcher is not None:
            self._fetcher.nudge()

    async def run(self) -> None:
        """Pull, one life of the consumer after the other. Ends by cancellation.

        One that is made anew is there again in a moment, so the first looks follow soon."""
        waiting = False
        longest_s = self._link.settings.absent_retry_s
        pause_s = first_s = min(ABSENT_FIRST_S, longest_s)
        while True:
            await self._link.up()
            began = asyncio.get_running_loop().time()
            try:
                await self._live()
            except Ended as ended:
                if ended.absent and not waiting:
                    log.info("waiting_for_consumer", stream=self._stream, consumer=self._consumer)
                waiting = ended.absent
                lived = asyncio.get_running_loop().time() - began > longest_s
                pause_s = first_s if lived else min(2 * pause_s, longest_s)
                if not ended.renewed:
                    await asyncio.sleep(pause_s)
            except Unavailable as error:
                log.info("pull_interrupted", consumer=self._consumer, reason=str(error))

    async def _live(self) -> None:
        fetcher = Fetcher(
            self._link,
            stream=self._stream,
            consumer=self._consumer,
            receive=self._receive,
            pin=self._pin,
        )
        async with fetcher.open(), self._renewing(fetcher):
            self._fetcher = fetcher
            while True:
                room = self._batch - self._unsettled - fetcher.asked
                if room >= max(self._batch // 2, 1) or (room > 0 and not fetcher.asked):
                    await fetcher.request(room)
                await fetcher.wait()

    @asynccontextmanager
    async def _renewing(self, fetcher: Fetcher) -> AsyncIterator[None]:
        """Stay the one reader while this life lasts. A pin outlives it, for the next one to name."""
        if self._pin is None:
            yield
            return
        renewing = asyncio.create_task(self._renew(fetcher), name=f"pin {self._consumer}")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self, fetcher: Fetcher) -> None:
        while True:
            await asyncio.sleep(self._link.settings.takeover_s / RENEWALS)
            with suppress(Ended):  # whoever waits for messages is told as well
                await fetcher.renew()

    def _receive(self, message: Msg) -> None:
        self._unsettled += 1
        self.feed.put(PulledDelivery(self, message))


@asynccontextmanager
async def pulled(
    link: Link, *, stream: str, consumer: str, batch: int, pin: Pin | None = None
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """The deliveries, for the time of the context. What nobody read is given back at its end, and the
    pin, so that the next reader need not wait."""
    puller = Puller(link, stream=stream, consumer=consumer, batch=batch, pin=pin)
    try:
        async with feeding(puller.feed, puller.run(), name=f"pull {stream} {consumer}"):
            yield puller.feed
    finally:
        await puller.tell()
        for delivery in puller.feed.unread():
            with suppress(BusError):
                await delivery.nak(0)
        if pin is not None and pin.id and link.connected:
            with suppress(BusError):
                await Api(link).unpin_consumer(stream, consumer, GROUP)
