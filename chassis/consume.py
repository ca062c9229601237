"""The loop of a durable consumer: fetches, orders, hands to the handler, and stops without losing.

What belongs here: what is handled after what, and how it begins and ends. What becomes of a single
message is `settle.py`'s.

Cancelling `consume` is the way to stop it: it fetches no more, gives back what no handler has begun,
lets handlers finish for `grace_s`, acknowledges, and ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import structlog

from chassis.bus import Bus, ConsumerConfig, Delivery, Incoming, NotFound, Unavailable
from chassis.feed import Feed
from chassis.service import BatchConsumer, Clock, Consumer
from chassis.settle import Again, Done, Meters, Patience, Refused, Settler, backoff_s

__all__ = ["Meters", "Patience", "consume", "durable_of"]

log = structlog.get_logger(__name__)

CREATE_RETRY_S = 1.0


def durable_of(consumer: Consumer | BatchConsumer) -> ConsumerConfig:
    """The durable consumer that a service's declaration asks for.

    The server never gives up by itself (`max_deliver` -1): it would drop the message without a
    trace. Counting and dead letters are ours.
    """
    return ConsumerConfig(
        stream=consumer.stream,
        name=consumer.name,
        description=consumer.description,
        subjects=consumer.subjects,
        ack_wait_s=consumer.ack_wait_s,
        max_ack_pending=max(1000, 4 * consumer.batch) if consumer.batch > 1 else 1,
        single_active=_is_single(consumer),
    )


def _is_single(consumer: Consumer | BatchConsumer) -> bool:
    return isinstance(consumer, Consumer) and consumer.single_active


async def consume(
    bus: Bus,
    consumer: Consumer | BatchConsumer,
    *,
    meters: Meters,
    clock: Clock,
    patience: Patience | None = None,
) -> None:
    """Run a consumer until cancelled."""
    settler = Settler(
        bus,
        consumer=consumer.name,
        max_deliver=consumer.max_deliver,
        ack_wait_s=consumer.ack_wait_s,
        meters=meters,
        clock=clock,
        patience=patience or Patience(),
        confirm=isinstance(consumer, BatchConsumer) or consumer.confirm,
    )
    if isinstance(consumer, BatchConsumer) or consumer.create:
        await _create(bus, consumer, clock)
    alive = asyncio.create_task(settler.keep_alive(), name=f"keep alive {consumer.name}")
    try:
        if isinstance(consumer, BatchConsumer):
            await _in_batches(bus, consumer, settler, clock)
        else:
            await _one_by_one(bus, consumer, settler)
    finally:
        alive.cancel()
        await asyncio.wait([alive])


async def _create(bus: Bus, consumer: Consumer | BatchConsumer, clock: Clock) -> None:
    while True:
        try:
            return await bus.ensure_consumer(durable_of(consumer))
        except (Unavailable, NotFound) as error:
            log.info("consumer_not_created_yet", consumer=consumer.name, reason=str(error))
            await clock.sleep(CREATE_RETRY_S)


class Lanes:
    """Deliveries by key: each lane in order, so many lanes at a time."""

    def __init__(self, concurrency: int, work: Callable[[Delivery], Awaitable[None]]) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._work = work
        self._lanes: dict[str, deque[Delivery]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, key: str, delivery: Delivery) -> None:
        if key in self._lanes:
            self._lanes[key].append(delivery)
            return
        self._lanes[key] = deque([delivery])
        task = asyncio.create_task(self._run(key), name=f"lane {key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: str) -> None:
        lane = self._lanes[key]
        while lane:
            async with self._slots:
                await self._work(lane.popleft())
        del self._lanes[key]

    async def finish(self, grace_s: float) -> None:
        """Wait for what runs, no longer than the grace; then end it."""
        await _finish(self._tasks, grace_s)


async def _one_by_one(bus: Bus, consumer: Consumer, settler: Settler) -> None:
    async def work(delivery: Delivery) -> None:
        await settler.see_through(delivery, consumer.handler)

    lanes = Lanes(consumer.concurrency if consumer.key else 1, work)
    async with AsyncExitStack() as pulling:
        deliveries = await pulling.enter_async_context(
            bus.pull(
                consumer.stream,
                consumer.name,
                batch=consumer.batch,
                single_active=consumer.single_active,
            )
        )
        try:
            async for delivery in deliveries:
                settler.take(delivery)
                lanes.add(_key(consumer, delivery.message), delivery)
        finally:
            settler.stopping.set()
            if not consumer.single_active:  # else the next one is not to begin before we are done
                await pulling.aclose()
            await lanes.finish(settler.patience.grace_s)
            await settler.give_back_all()


def _key(consumer: Consumer, message: Incoming) -> str:
    """The lane of a message. One whose key cannot be read goes alone; its handler will say why."""
    if consumer.key is None:
        return ""
    try:
        return consumer.key(message)
    except Exception as error:  # noqa: BLE001  whatever a bad message makes of the key function
        log.info("key_unreadable", consumer=consumer.name, error=type(error).__name__)
        return message.subject


async def _in_batches(bus: Bus, consumer: BatchConsumer, settler: Settler, clock: Clock) -> None:
    """One batch is with the handler while the next one comes in."""
    waiting: Feed[Delivery] = Feed()
    working_off = _work_off(waiting, consumer, settler, clock)
    batches = asyncio.create_task(working_off, name=consumer.name)
    try:
        async with bus.pull(consumer.stream, consumer.name, batch=2 * consumer.batch) as deliveries:
            async for delivery in deliveries:
                settler.take(delivery)
                waiting.put(delivery)
    finally:
        settler.stopping.set()
        waiting.fail(Stopped())
        await _finish({batches}, settler.patience.grace_s)
        await settler.give_back_all()


class Stopped(Exception):
    """Nothing more comes."""


async def _work_off(
    waiting: Feed[Delivery], consumer: BatchConsumer, settler: Settler, clock: Clock
) -> None:
    """A batch is begun while the one before is still being acknowledged."""
    before: asyncio.Task[None] | None = None
    not_before_s = clock.monotonic()
    async with asyncio.TaskGroup() as acknowledging:
        with suppress(Stopped):
            while not settler.stopping.is_set():
                early_s = not_before_s - clock.monotonic()
                if early_s > 0 and len(waiting) < consumer.batch:
                    await settler.pause(early_s)
                    continue
                batch = await waiting.several(consumer.batch)
                if len(batch) >= consumer.gather_from:
                    not_before_s = clock.monotonic() + consumer.gather_s
                if await _see_batch_through(batch, consumer, settler):
                    if before is not None:
                        await before
                    before = acknowledging.create_task(settler.finish_all(batch))


async def _see_batch_through(
    batch: list[Delivery], consumer: BatchConsumer, settler: Settler
) -> bool:
    """All at once; as a whole again after a `Retry` with a delay; else one by one, in order.

    Returns whether it is to be acknowledged as a whole."""
    messages = [delivery.message for delivery in batch]
    tries = 0
    while not settler.stopping.is_set():
        outcome = await settler.timed(consumer.handler(messages))
        match outcome:
            case Done():
                return True
            case Again(counted=False) if outcome.after_s != 0:
                wait_s = outcome.after_s or backoff_s(tries, settler.patience)
                await settler.pause(min(wait_s, settler.patience.hold_s))
                tries += 1
            case Refused() | Again():
                await _singly(batch, consumer, settler)
                return False
    return False


async def _singly(batch: list[Delivery], consumer: BatchConsumer, settler: Settler) -> None:
    async def handle(message: Incoming) -> None:
        await consumer.handler([message])

    for delivery in batch:
        if settler.stopping.is_set():
            return
        await settler.see_through(delivery, handle)


async def _finish(tasks: set[asyncio.Task[None]], grace_s: float) -> None:
    """Wait for tasks, no longer than the grace; then end them."""
    if not tasks:
        return
    _, late = await asyncio.wait(set(tasks), timeout=grace_s)
    for task in late:
        log.warning("handler_cut_off", task=task.get_name())
        task.cancel()
    if late:
        await asyncio.wait(late)
