"""The bus on NATS outlives its server: killed without warning and started again on the same port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from chassis import kv
from chassis.bus import (
    Ack,
    BusError,
    CaughtUp,
    ConsumerConfig,
    Delivery,
    Incoming,
    NotFound,
    Outgoing,
    Start,
    StreamConfig,
    Unavailable,
)
from chassis.nats import NatsBus, NatsSettings, connect
from tests.fixtures.nats import NatsServer

T = TypeVar("T")
RECOVERY_S = 5.0

EVENTS = StreamConfig(
    name="EVENTS", description="of a test", subjects=("evt.>",), allow_atomic=True
)
WORKER = ConsumerConfig(stream="EVENTS", name="worker", description="of a test", ack_wait_s=1)


def settings(server: NatsServer, **more: object) -> NatsSettings:
    return NatsSettings(urls=(server.url,), **more)  # type: ignore[arg-type]


@pytest.fixture
async def bus(own_nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    async with connect(settings(own_nats_server), name="test") as bus:
        yield bus


async def soon(source: AsyncIterator[T]) -> T:
    async with asyncio.timeout(RECOVERY_S):
        return await anext(source)


async def publish_surely(bus: NatsBus, message: Outgoing) -> Ack:
    """As every sender does: the same id again until it is acknowledged."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            try:
                return await bus.publish(message)
            except (Unavailable, NotFound):
                await asyncio.sleep(0.02)


def event(number: int) -> Outgoing:
    return Outgoing(subject="evt.a", data=b"%d" % number, message_id=f"m{number}")


async def test_nothing_that_was_acknowledged_is_lost_and_nothing_is_stored_twice(
    bus: NatsBus, own_nats_server: NatsServer
) -> None:
    await bus.ensure_stream(EVENTS)
    publishing = [asyncio.ensure_future(publish_surely(bus, event(n))) for n in range(3000)]
    await asyncio.wait(publishing, return_when=asyncio.FIRST_COMPLETED)

    own_nats_server.restart()
    acks = await asyncio.gather(*publishing)

    async with bus.follow("EVENTS", ["evt.>"], start=Start(at="all")) as items:
        stored = {}
        while not isinstance(item := await soon(items), CaughtUp):
            stored[item.sequence] = item.data
    assert stored == {ack.sequence: b"%d" % number for number, ack in enumerate(acks)}
    assert len(stored) == 3000


async def test_a_follower_goes_on_without_a_gap_or_a_repetition(
    bus: NatsBus, own_nats_server: NatsServer
) -> None:
    await bus.ensure_stream(EVENTS)
    async with bus.follow("EVENTS", ["evt.>"], start=Start(at="new")) as items:
        assert await soon(items) == CaughtUp()
        await bus.publish(event(1))
        assert number_of(await soon(items)) == 1

        own_nats_server.restart()
        for number in (2, 3):
            await publish_surely(bus, event(number))

        assert [number_of(await soon(items)) for _ in range(2)] == [2, 3]


async def test_a_follower_sees_what_happened_while_it_was_cut_off(
    own_nats_server: NatsServer,
) -> None:
    async with (
        connect(settings(own_nats_server), name="writer") as writer,
        connect(settings(own_nats_server, redial_first_s=1.0), name="reader") as reader,
    ):
        await writer.ensure_stream(EVENTS)
        async with reader.follow("EVENTS", ["evt.>"], start=Start(at="new")) as items:
            assert await soon(items) == CaughtUp()
            own_nats_server.restart()
            await publish_surely(writer, event(1))

            assert number_of(await soon(items)) == 1


async def test_a_follower_of_a_bucket_in_memory_notices_that_it_was_emptied(
    bus: NatsBus, own_nats_server: NatsServer
) -> None:
    leases = StreamConfig(name="KV_LEASES", description="of a test", subjects=(), storage="memory")
    await bus.ensure_stream(leases)
    async with bus.follow("KV_LEASES", [], start=Start(at="last_per_subject")) as items:
        assert await soon(items) == CaughtUp()
        for host in ("h1", "h2", "h3"):
            await bus.publish(kv.put("LEASES", host, b"before"))
            await soon(items)

        own_nats_server.restart()
        await publish_surely(bus, kv.put("LEASES", "h2", b"after"))

        item = await soon(items)
        assert isinstance(item, Incoming)
        assert kv.entry(item) == kv.Entry(bucket="LEASES", key="h2", value=b"after", revision=1)


async def test_a_puller_goes_on_and_loses_nothing(
    bus: NatsBus, own_nats_server: NatsServer
) -> None:
    await bus.ensure_stream(EVENTS)
    await bus.ensure_consumer(WORKER)
    async with bus.pull("EVENTS", "worker", batch=10) as deliveries:
        await bus.publish(event(1))
        await (await soon(deliveries)).ack()

        own_nats_server.restart()
        for number in (2, 3):
            await publish_surely(bus, event(number))

        assert await acknowledged_until(deliveries, {b"2", b"3"}) <= {b"1", b"2", b"3"}


async def test_a_message_in_hand_can_be_acknowledged_after_the_restart(
    bus: NatsBus, own_nats_server: NatsServer
) -> None:
    await bus.ensure_stream(EVENTS)
    await bus.ensure_consumer(WORKER)
    async with bus.pull("EVENTS", "worker", batch=10) as deliveries:
        await bus.publish(event(1))
        in_hand = await soon(deliveries)

        own_nats_server.restart()
        await ack_surely(in_hand)
        await publish_surely(bus, event(2))

        await acknowledged_until(deliveries, {b"2"})


async def test_a_failed_acknowledgement_does_not_cost_room_for_what_comes_next(
    bus: NatsBus, own_nats_server: NatsServer
) -> None:
    await bus.ensure_stream(EVENTS)
    await bus.ensure_consumer(WORKER)
    async with bus.pull("EVENTS", "worker", batch=1) as deliveries:
        await bus.publish(event(1))
        in_hand = await soon(deliveries)
        own_nats_server.kill()
        with pytest.raises(Unavailable):
            await in_hand.ack()

        own_nats_server.start()
        await publish_surely(bus, event(2))

        await acknowledged_until(deliveries, {b"1", b"2"})


async def test_a_listener_hears_again(bus: NatsBus, own_nats_server: NatsServer) -> None:
    async with bus.listen("tel.>") as heard:
        own_nats_server.restart()
        hearing = asyncio.ensure_future(soon(heard))
        while not hearing.done():
            await bus.send("tel.h1", b"1")
            await asyncio.wait([hearing], timeout=0.05)

        assert hearing.result().data == b"1"


async def test_a_request_under_way_fails_at_once_when_the_connection_is_lost(
    bus: NatsBus, own_nats_server: NatsServer
) -> None:
    async with bus.listen("svc.q") as questions:
        asked = asyncio.ensure_future(bus.request("svc.q", b"", timeout_s=60))
        await soon(questions)

        own_nats_server.kill()

        with pytest.raises(Unavailable):
            async with asyncio.timeout(RECOVERY_S):
                await asked
    assert not bus.connected


async def test_publishing_without_a_server_is_unavailable_in_time(
    own_nats_server: NatsServer,
) -> None:
    async with connect(settings(own_nats_server, publish_timeout_s=0.3), name="test") as bus:
        await bus.ensure_stream(EVENTS)
        own_nats_server.kill()

        said = await asyncio.gather(
            *(bus.publish(event(number)) for number in range(50)), return_exceptions=True
        )

    assert {type(answer) for answer in said} == {Unavailable}


async def test_a_full_queue_makes_the_next_wait_and_then_unavailable(
    own_nats_server: NatsServer,
) -> None:
    narrow = settings(own_nats_server, publish_timeout_s=0.3, publish_queue=2)
    async with connect(narrow, name="test") as bus:
        await bus.ensure_stream(EVENTS)
        own_nats_server.kill()

        said = await asyncio.gather(
            *(bus.publish(event(number)) for number in range(5)), return_exceptions=True
        )

    assert {type(answer) for answer in said} == {Unavailable}


async def test_the_first_connection_is_tried_until_there_is_a_server(
    own_nats_server: NatsServer,
) -> None:
    own_nats_server.kill()

    async def connected() -> bool:
        async with connect(settings(own_nats_server), name="test") as bus:
            return bus.connected

    waiting = asyncio.ensure_future(connected())
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    own_nats_server.start()

    async with asyncio.timeout(RECOVERY_S):
        assert await waiting


async def test_the_first_connection_may_be_given_a_time(own_nats_server: NatsServer) -> None:
    own_nats_server.kill()

    with pytest.raises(Unavailable):
        async with connect(settings(own_nats_server, first_connection_s=0.3), name="test"):
            pass


async def test_closing_fails_those_who_still_wait(own_nats_server: NatsServer) -> None:
    async with connect(settings(own_nats_server), name="test") as bus:
        await bus.ensure_stream(EVENTS)
        own_nats_server.kill()
        waiting = asyncio.ensure_future(bus.publish(event(1)))
        await asyncio.wait([waiting], timeout=0.1)

    with pytest.raises(Unavailable):
        await waiting


def number_of(item: Incoming | CaughtUp) -> int:
    assert isinstance(item, Incoming), item
    return int(item.data)


async def acknowledged_until(deliveries: AsyncIterator[Delivery], wanted: set[bytes]) -> set[bytes]:
    """Acknowledge until all of `wanted` came; returns what came.

    A killed server may have forgotten a delivery, and even an acknowledgement that it confirmed.
    """
    bodies: set[bytes] = set()
    while not wanted <= bodies:
        delivery = await soon(deliveries)
        await ack_surely(delivery)
        bodies.add(delivery.message.data)
    return bodies


async def ack_surely(delivery: Delivery) -> None:
    async with asyncio.timeout(RECOVERY_S):
        while True:
            try:
                return await delivery.ack()
            except BusError:
                await asyncio.sleep(0.02)
