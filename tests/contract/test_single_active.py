"""Consumers with one active reader, over both buses: who it is, who is next, and what it had in hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest
from msgspec import Struct

from chassis.bus import Bus, BusError, ConsumerConfig, Delivery, Outgoing, StreamConfig
from chassis.clock import SystemClock
from chassis.memory_bus import memory_bus
from chassis.nats import NatsSettings, connect
from tests.fixtures.cable import cable
from tests.fixtures.nats import NatsServer

PATIENCE_S = 10.0
TAKEOVER_S = 1.0
QUIET_S = 0.4

Deliveries = AsyncIterator[Delivery]


class Two(Struct, frozen=True):
    """Two readers' buses, and how to cut the first one off and bring it back."""

    first: Bus
    second: Bus
    cut_off: Callable[[Deliveries], None]
    reconnect: Callable[[Deliveries], None]


@pytest.fixture(params=["memory", "nats"])
async def two(request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    if request.param == "memory":
        async with memory_bus(SystemClock(), takeover_s=TAKEOVER_S) as bus:
            yield Two(bus, bus, bus.cut_off, bus.reconnect)
        return
    server: NatsServer = request.getfixturevalue("nats_server")
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(cable(server.port))
        first, second = [
            await stack.enter_async_context(
                connect(NatsSettings(urls=(url,), takeover_s=TAKEOVER_S), name="test")
            )
            for url in (between.url, server.url)
        ]
        yield Two(first, second, lambda _: between.pull_out(), lambda _: between.plug_in())


async def prepare(bus: Bus, name: str, *, ack_wait_s: float = 1.0) -> None:
    await bus.ensure_stream(
        StreamConfig(name=name, description="of a test", subjects=(f"{name}.>",))
    )
    await bus.ensure_consumer(
        ConsumerConfig(
            stream=name,
            name="worker",
            description="of a test",
            ack_wait_s=ack_wait_s,
            single_active=True,
        )
    )


async def publish(bus: Bus, name: str, *bodies: str) -> None:
    for body in bodies:
        await bus.publish(Outgoing(subject=f"{name}.a", data=body.encode()))


async def publish_surely(bus: Bus, name: str, *bodies: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for body in bodies:
            while True:
                try:
                    await publish(bus, name, body)
                    break
                except BusError:
                    await asyncio.sleep(0.05)


async def taken(deliveries: Deliveries, count: int) -> list[str]:
    """Read so many and acknowledge them."""
    bodies = []
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(count):
            delivery = await anext(deliveries)
            await delivery.ack()
            bodies.append(delivery.message.data.decode())
    return bodies


async def nothing_comes(deliveries: Deliveries, *, for_s: float = QUIET_S) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(for_s):
            delivery = await anext(deliveries)
            raise AssertionError(delivery.message)


async def the_active_one(ones: Deliveries, others: Deliveries) -> tuple[Deliveries, Deliveries]:
    """Who is handed the next message, which is acknowledged, and who is not."""
    looks = {asyncio.ensure_future(anext(source)): source for source in (ones, others)}
    done, _ = await asyncio.wait(looks, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    (found,) = done
    (other,) = set(looks) - done
    other.cancel()
    await found.result().ack()
    return looks[found], looks[other]


def pulling(
    bus: Bus, name: str, batch: int = 10
) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
    return bus.pull(name, "worker", batch=batch, single_active=True)


async def test_only_one_of_two_readers_is_handed_messages(two: Two, unique: str) -> None:
    await prepare(two.second, unique)

    async with pulling(two.first, unique) as ones, pulling(two.second, unique) as others:
        await publish(two.second, unique, "0")
        active, idle = await the_active_one(ones, others)
        await publish(two.second, unique, *"123456789")

        assert await taken(active, 9) == list("123456789")
        await nothing_comes(idle)


async def test_one_with_its_hands_full_keeps_its_place(two: Two, unique: str) -> None:
    await prepare(two.second, unique, ack_wait_s=30)

    async with pulling(two.first, unique, batch=1) as ones:
        await publish(two.second, unique, "1", "2", "3")
        held = await anext(ones)
        async with pulling(two.second, unique, batch=1) as others:
            await nothing_comes(others, for_s=TAKEOVER_S + 0.5)
            await held.ack()

            assert await taken(ones, 2) == ["2", "3"]


async def test_a_quiet_time_does_not_change_who_it_is(two: Two, unique: str) -> None:
    await prepare(two.second, unique)

    async with pulling(two.first, unique) as ones:
        await publish(two.second, unique, "1")
        await taken(ones, 1)
        async with pulling(two.second, unique) as others:
            await nothing_comes(others, for_s=TAKEOVER_S + 0.5)
            await publish(two.second, unique, "2")

            assert await taken(ones, 1) == ["2"]


async def test_when_it_is_cut_off_the_other_one_takes_over_and_nothing_is_lost(
    two: Two, unique: str
) -> None:
    await prepare(two.second, unique)
    loop = asyncio.get_running_loop()

    async with pulling(two.first, unique) as ones:
        await publish(two.second, unique, "1", "2")
        await taken(ones, 1)
        in_hand = await anext(ones)
        async with pulling(two.second, unique) as others:
            two.cut_off(ones)
            cut_at = loop.time()
            await publish(two.second, unique, "3", "4")
            got = await taken(others, 3)

            assert loop.time() - cut_at < 5
            assert sorted(got) == ["2", "3", "4"]
            with pytest.raises(BusError):
                async with asyncio.timeout(1):
                    await say_in_progress_until_refused(in_hand)


async def say_in_progress_until_refused(delivery: Delivery) -> None:
    while True:
        await delivery.in_progress()
        await asyncio.sleep(0.01)


async def test_one_that_comes_back_waits_while_the_other_one_is_there(
    two: Two, unique: str
) -> None:
    await prepare(two.second, unique)

    async with pulling(two.first, unique) as ones:
        await publish(two.second, unique, "1")
        await taken(ones, 1)
        async with pulling(two.second, unique) as others:
            two.cut_off(ones)
            await publish(two.second, unique, "2")
            await taken(others, 1)
            two.reconnect(ones)
            await nothing_comes(ones)
            await publish(two.second, unique, "3", "4")

            assert await taken(others, 2) == ["3", "4"]
            await nothing_comes(ones)
        await publish(two.second, unique, "5")
        assert await taken(ones, 1) == ["5"]


async def test_one_that_was_away_for_a_moment_only_keeps_its_place(two: Two, unique: str) -> None:
    await prepare(two.second, unique)

    async with pulling(two.first, unique) as ones:
        await publish(two.second, unique, "1")
        await taken(ones, 1)
        async with pulling(two.second, unique) as others:
            two.cut_off(ones)
            two.reconnect(ones)
            await publish(two.second, unique, "2")

            assert await taken(ones, 1) == ["2"]
            await nothing_comes(others)


async def test_one_that_leaves_gives_its_place_up_at_once(two: Two, unique: str) -> None:
    await prepare(two.second, unique)
    loop = asyncio.get_running_loop()

    async with AsyncExitStack() as stack:
        async with pulling(two.first, unique) as ones:
            await publish(two.second, unique, "1")
            await taken(ones, 1)
            others = await stack.enter_async_context(pulling(two.second, unique))
            await nothing_comes(others)
        left_at = loop.time()
        await publish(two.second, unique, "2")

        assert await taken(others, 1) == ["2"]
        assert loop.time() - left_at < TAKEOVER_S / 2


async def test_a_restarted_server_finds_one_of_them_again(
    own_nats_server: NatsServer, unique: str
) -> None:
    settings = NatsSettings(urls=(own_nats_server.url,), takeover_s=TAKEOVER_S)
    async with (
        connect(settings, name="one") as first,
        connect(settings, name="other") as second,
    ):
        await prepare(second, unique)
        async with pulling(first, unique) as ones, pulling(second, unique) as others:
            await publish(second, unique, "1")
            await the_active_one(ones, others)
            own_nats_server.restart()
            await publish_surely(second, unique, "2")
            active, idle = await the_active_one(ones, others)
            await publish_surely(second, unique, "3", "4")

            await taken(active, 2)
            await nothing_comes(idle)


async def test_a_consumer_that_many_shared_becomes_one_with_a_single_reader_and_back(
    nats_server: NatsServer, unique: str
) -> None:
    async with connect(NatsSettings(urls=(nats_server.url,)), name="test") as bus:
        await prepare(bus, unique)
        shared = ConsumerConfig(
            stream=unique, name="worker", description="of a test", ack_wait_s=1.0
        )
        await publish(bus, unique, "1", "2")

        await bus.ensure_consumer(shared)
        async with bus.pull(unique, "worker", batch=1) as deliveries:
            assert await taken(deliveries, 1) == ["1"]
        await prepare(bus, unique)
        async with pulling(bus, unique) as deliveries:
            assert await taken(deliveries, 1) == ["2"]
