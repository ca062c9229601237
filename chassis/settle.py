"""Seeing one delivery through: handle it, again if need be, until it is acknowledged or a dead letter.

What belongs here: the only code that says ack, nak, term. What doesn't: in which order deliveries are
handled (`consume.py`).

A message that has to wait is held, not given back: only so does the next one with the same key stay
behind it. It is kept alive with in_progress meanwhile, and given back at once when the service stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct

from chassis.bus import Bus, BusError, Conflict, Delivery, Incoming, Unavailable
from chassis.deadletters import dead_letter, one_line, without_body
from chassis.service import Clock, Reject, Retry

log = structlog.get_logger(__name__)


class Meters(Protocol):
    """Where outcomes are counted."""

    def handled(self, *, consumer: str, outcome: str, seconds: float) -> None: ...


class Patience(Struct, frozen=True, kw_only=True):
    """How long and how often things are tried again."""

    retry_first_s: float = 0.2
    retry_most_s: float = 30.0
    hold_s: float = 60.0
    """A `Retry` for longer than this gives up its place in the order and is given back."""
    grace_s: float = 10.0
    """How long handlers may finish what is in hand when the service stops."""


class Done(Struct, frozen=True):
    """The handler returned."""


class Refused(Struct, frozen=True, kw_only=True):
    """Never again: a dead letter."""

    reason: str
    error: str


class Again(Struct, frozen=True, kw_only=True):
    """Try again. `after_s` None: after a growing delay. Only what is `counted` ends as a dead letter."""

    after_s: float | None
    counted: bool
    reason: str
    error: str


Outcome = Done | Refused | Again


async def attempt(work: Awaitable[None]) -> Outcome:
    """Run a handler; what it raises, as a value."""
    try:
        await work
    except Reject as reject:
        return Refused(reason=str(reject) or "rejected", error="Reject")
    except Retry as retry:
        return Again(after_s=retry.after_s, counted=False, reason=str(retry), error="Retry")
    except (Unavailable, Conflict) as error:
        return Again(after_s=None, counted=False, reason=str(error), error=type(error).__name__)
    except Exception as error:
        log.exception("handler_failed", error=type(error).__name__)
        reason = one_line(f"{type(error).__name__}: {error}")
        return Again(after_s=None, counted=True, reason=reason, error=type(error).__name__)
    return Done()


def backoff_s(tries: int, patience: Patience) -> float:
    """The delay before try number `tries` + 1."""
    return min(patience.retry_first_s * 2.0 ** min(tries, 20), patience.retry_most_s)


class Settler:
    """What the deliveries of one consumer are handled with, and those in hand."""

    def __init__(
        self,
        bus: Bus,
        *,
        consumer: str,
        max_deliver: int,
        ack_wait_s: float,
        meters: Meters,
        clock: Clock,
        patience: Patience,
        confirm: bool = True,
    ) -> None:
        self.stopping = asyncio.Event()
        self.patience = patience
        self._bus = bus
        self._consumer = consumer
        self._confirm = confirm
        self._max_deliver = max_deliver
        self._ack_wait_s = ack_wait_s
        self._meters = meters
        self._clock = clock
        self._in_hand: set[Delivery] = set()

    def take(self, delivery: Delivery) -> None:
        """Keep a delivery alive until it is settled."""
        self._in_hand.add(delivery)

    async def keep_alive(self) -> None:
        """Tell the server three times in each ack wait that we are at it. Ends by cancellation."""
        while True:
            await self._clock.sleep(self._ack_wait_s / 3)
            for delivery in list(self._in_hand):
                with suppress(BusError):
                    await delivery.in_progress()

    async def see_through(
        self, delivery: Delivery, handler: Callable[[Incoming], Awaitable[None]]
    ) -> None:
        """Handle until settled, or until the service stops."""
        tries = 0
        failures = delivery.message.delivered - 1
        while not self.stopping.is_set():
            message = msgspec.structs.replace(
                delivery.message, delivered=delivery.message.delivered + tries
            )
            outcome = await self.timed(handler(message))
            tries += 1
            match outcome:
                case Done():
                    return await self.finish(delivery, confirmed=self._confirm)
                case Refused():
                    return await self.bury(delivery, outcome)
                case Again():
                    failures += outcome.counted
                    if outcome.counted and 0 < self._max_deliver <= failures:
                        return await self.bury(delivery, _given_up(outcome, failures))
            wait_s = (
                backoff_s(tries - 1, self.patience) if outcome.after_s is None else outcome.after_s
            )
            if wait_s > self.patience.hold_s:
                return await self.give_back(delivery, wait_s)
            await self.pause(wait_s)
        return await self.give_back(delivery)

    async def timed(self, work: Awaitable[None]) -> Outcome:
        """Run a handler and count how it went."""
        began = self._clock.monotonic()
        outcome = await attempt(work)
        seconds = self._clock.monotonic() - began
        self._meters.handled(consumer=self._consumer, outcome=_named(outcome), seconds=seconds)
        return outcome

    async def finish(self, delivery: Delivery, *, confirmed: bool = True) -> None:
        """Acknowledge. If that fails the message comes again, which handlers bear."""
        try:
            await delivery.ack(confirmed=confirmed)
        except BusError as error:
            log.info("ack_failed", consumer=self._consumer, error=str(error))
        finally:
            self._in_hand.discard(delivery)

    async def bury(self, delivery: Delivery, refused: Refused) -> None:
        """Publish the dead letter, and only then end the message; else it comes again."""
        letter = dead_letter(
            delivery.message, consumer=self._consumer, reason=refused.reason, error=refused.error
        )
        log.error(
            "message_rejected",
            consumer=self._consumer,
            subject=delivery.message.subject,
            sequence=delivery.message.sequence,
            reason=refused.reason,
        )
        try:
            try:
                await self._bus.publish(letter)
            except Unavailable:
                raise
            except BusError:
                await self._bus.publish(without_body(letter))
            await delivery.term(one_line(refused.reason)[:200])
        except BusError as error:
            log.warning("dead_letter_failed", consumer=self._consumer, error=str(error))
            await self.give_back(delivery, self.patience.retry_first_s)
        finally:
            self._in_hand.discard(delivery)

    async def give_back(self, delivery: Delivery, after_s: float = 0.0) -> None:
        """Let the server deliver it again, to us or another instance."""
        self._in_hand.discard(delivery)
        with suppress(BusError):
            await delivery.nak(after_s)

    async def give_back_all(self) -> None:
        """In the stream's order, which is the order in which they come again."""
        for delivery in sorted(self._in_hand, key=lambda held: held.message.sequence):
            await self.give_back(delivery)

    async def finish_all(self, deliveries: Sequence[Delivery]) -> None:
        """The last one's confirmation stands for all: they go one way, in this order."""
        try:
            for delivery in deliveries[:-1]:
                await delivery.ack(confirmed=False)
        except BusError as error:
            log.info("acks_failed", consumer=self._consumer, error=str(error))
        finally:
            self._in_hand.difference_update(deliveries[:-1])
        await self.finish(deliveries[-1])

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the service's stop."""
        waits = [
            asyncio.ensure_future(self._clock.sleep(seconds)),
            asyncio.ensure_future(self.stopping.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _given_up(again: Again, failures: int) -> Refused:
    return Refused(reason=f"failed {failures} times: {again.reason}", error=again.error)


def _named(outcome: Outcome) -> str:
    match outcome:
        case Done():
            return "handled"
        case Refused():
            return "rejected"
        case Again(counted=True):
            return "failed"
        case Again():
            return "retried"
