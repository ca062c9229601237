"""The consumer loop over both buses: in order, again after failures, dead letters, a clean stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from msgspec import Struct

from chassis.bus import (
    Bus,
    CaughtUp,
    Conflict,
    Incoming,
    Outgoing,
    Start,
    StreamConfig,
    Unavailable,
)
from chassis.clock import ManualClock, SystemClock
from chassis.consume import Patience, consume, durable_of
from chassis.dispatch import by_type
from chassis.ids import SystemIds
from chassis.meters import Meters
from chassis.service import BatchConsumer, Clock, Consumer, Reject, Retry
from schemas.commands import DeleteVm, StartVm
from schemas.envelope import Envelope
from schemas.wire import encode, wrap

T = TypeVar("T", bound=Struct)
PATIENCE_S = 5.0
QUICK = Patience(retry_first_s=0.02, retry_most_s=0.1, grace_s=2.0)

DEADLETTERS = StreamConfig(
    name="DEADLETTERS", description="of a test", subjects=("vireo.dlq.>",), max_msg_size=2_000_000
)


class Desk:
    """What a test's handler saw, and what it is to do next."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.meters = Meters()

    async def until_seen(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.seen) < count:
                await asyncio.sleep(0.005)

    def note(self, message: Incoming) -> str:
        text = message.data.decode()
        self.seen.append((text, message.delivered))
        return text

    @property
    def bodies(self) -> list[str]:
        return [body for body, _ in self.seen]

    def counted(self, consumer: str, outcome: str) -> float:
        return self.meters.value("vireo_messages_handled_total", consumer=consumer, outcome=outcome)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def stream(bus: Bus, unique: str) -> str:
    """A stream `<name>` over `<name>.>`, and DEADLETTERS."""
    await bus.ensure_stream(
        StreamConfig(name=unique, description="of a test", subjects=(f"{unique}.>",))
    )
    await bus.ensure_stream(DEADLETTERS)
    return unique


def one(stream: str, handler: Callable[[Incoming], Awaitable[None]], **more: object) -> Consumer:
    return Consumer(
        stream=stream,
        name="worker",
        description="of a test",
        subjects=(f"{stream}.>",),
        handler=handler,
        **more,  # type: ignore[arg-type]
    )


def batches(
    stream: str, handler: Callable[[Sequence[Incoming]], Awaitable[None]], **more: object
) -> BatchConsumer:
    return BatchConsumer(
        stream=stream,
        name="worker",
        description="of a test",
        subjects=(f"{stream}.>",),
        handler=handler,
        **more,  # type: ignore[arg-type]
    )


def noting(desk: Desk) -> Callable[[Sequence[Incoming]], Awaitable[None]]:
    """A handler of batches that takes note of each message."""

    async def handle(messages: Sequence[Incoming]) -> None:
        for message in messages:
            desk.note(message)

    return handle


def still_clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@asynccontextmanager
async def working(
    bus: Bus,
    consumer: Consumer | BatchConsumer,
    desk: Desk,
    patience: Patience = QUICK,
    clock: Clock | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """The consumer at work; stopped as a service stops it."""
    task = asyncio.create_task(
        consume(bus, consumer, meters=desk.meters, clock=clock or SystemClock(), patience=patience)
    )
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task


async def publish(bus: Bus, stream: str, *bodies: str, key: str = "a") -> None:
    for body in bodies:
        await bus.publish(Outgoing(subject=f"{stream}.{key}", data=body.encode()))


async def dead_letter(bus: Bus, stream: str) -> Incoming:
    subject = f"vireo.dlq.{stream}.worker"
    async with (
        asyncio.timeout(PATIENCE_S),
        bus.follow("DEADLETTERS", [subject], start=Start(at="all")) as letters,
    ):
        async for letter in letters:
            if not isinstance(letter, CaughtUp):
                return letter
    raise AssertionError


async def everything_is_acknowledged(bus: Bus, stream: str, desk: Desk) -> None:
    """A new reader of the same durable gets what comes next, and nothing else."""
    await publish(bus, stream, "last")
    fresh = Desk()

    async def note(message: Incoming) -> None:
        fresh.note(message)

    async with working(bus, one(stream, note), fresh):
        await fresh.until_seen(1)
    assert fresh.bodies == ["last"]


class TestHandling:
    async def test_hands_every_message_over_once_and_in_order(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            desk.note(message)

        async with working(bus, one(stream, handle), desk):
            await publish(bus, stream, *"12345")
            await desk.until_seen(5)

        assert desk.seen == [(body, 1) for body in "12345"]
        assert desk.counted("worker", "handled") == 5
        await everything_is_acknowledged(bus, stream, desk)

    async def test_without_a_key_handles_one_at_a_time(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        at_once: list[int] = []
        running = 0

        async def handle(message: Incoming) -> None:
            nonlocal running
            running += 1
            at_once.append(running)
            await asyncio.sleep(0.01)
            running -= 1
            desk.note(message)

        async with working(bus, one(stream, handle, concurrency=8), desk):
            await publish(bus, stream, *"12345")
            await desk.until_seen(5)

        assert max(at_once) == 1

    async def test_one_key_in_order_and_several_keys_at_once(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        both_run = asyncio.Barrier(2)

        async def handle(message: Incoming) -> None:
            if message.data == b"1":
                async with asyncio.timeout(PATIENCE_S):
                    await both_run.wait()  # passes only if the other key's first one runs too
            desk.note(message)

        consumer = one(stream, handle, key=lambda message: message.subject, concurrency=2)
        async with working(bus, consumer, desk):
            for body in "12":
                await publish(bus, stream, body, key="a")
                await publish(bus, stream, body, key="b")
            await desk.until_seen(4)

        assert sorted(desk.bodies) == ["1", "1", "2", "2"]
        assert desk.bodies.index("2") > 0

    async def test_a_message_whose_key_cannot_be_read_is_handled_all_the_same(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            desk.note(message)

        def key(message: Incoming) -> str:
            raise KeyError(message.subject)

        async with working(bus, one(stream, handle, key=key), desk):
            await publish(bus, stream, "1", "2")
            await desk.until_seen(2)

        assert desk.bodies == ["1", "2"]

    async def test_long_work_is_not_delivered_again(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            desk.note(message)
            await asyncio.sleep(1.2)

        async with working(bus, one(stream, handle, ack_wait_s=0.6), desk):
            await publish(bus, stream, "1", "2")
            await desk.until_seen(2)

        assert desk.seen == [("1", 1), ("2", 1)]

    async def test_waits_for_a_durable_that_somebody_else_makes(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            desk.note(message)

        await publish(bus, stream, "1")
        consumer = one(stream, handle, create=False)
        async with working(bus, consumer, desk):
            await bus.ensure_consumer(durable_of(consumer))
            await desk.until_seen(1)

    async def test_waits_for_a_stream_that_does_not_exist_yet(
        self, bus: Bus, unique: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            desk.note(message)

        async with working(bus, one(unique, handle), desk):
            await bus.ensure_stream(
                StreamConfig(name=unique, description="of a test", subjects=(f"{unique}.>",))
            )
            await publish(bus, unique, "1")
            await desk.until_seen(1)


class TestOneActive:
    async def test_the_next_one_begins_when_the_last_one_is_done(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        going, told = asyncio.Event(), []

        async def slow(message: Incoming) -> None:
            desk.note(message)
            going.set()
            await asyncio.sleep(0.3)
            told.append("first done")

        async def next_one(message: Incoming) -> None:
            told.append(message.data.decode())

        async with working(bus, one(stream, slow, single_active=True), desk) as first:
            await publish(bus, stream, "1")
            await going.wait()
            async with working(bus, one(stream, next_one, single_active=True), Desk()):
                await publish(bus, stream, "2", "3")
                first.cancel()
                async with asyncio.timeout(PATIENCE_S):
                    while len(told) < 3:
                        await asyncio.sleep(0.005)

        assert (told[0], sorted(told[1:])) == ("first done", ["2", "3"])
        assert desk.seen == [("1", 1)]


class TestTryingAgain:
    async def test_a_retry_keeps_what_follows_behind_it(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            body = desk.note(message)
            if body == "1" and len(desk.seen) < 3:
                raise Retry(0.05, "not yet")

        async with working(bus, one(stream, handle), desk):
            await publish(bus, stream, "1", "2")
            await desk.until_seen(4)

        assert desk.seen == [("1", 1), ("1", 2), ("1", 3), ("2", 1)]
        assert desk.counted("worker", "retried") == 2
        await everything_is_acknowledged(bus, stream, desk)

    @pytest.mark.parametrize("error", [Unavailable("bus"), Conflict("rival"), Retry(0.01)])
    async def test_what_is_nobodys_fault_is_never_given_up(
        self, bus: Bus, stream: str, desk: Desk, error: Exception
    ) -> None:
        async def handle(message: Incoming) -> None:
            desk.note(message)
            if len(desk.seen) < 6:
                raise error

        async with working(bus, one(stream, handle, max_deliver=2), desk):
            await publish(bus, stream, "1")
            await desk.until_seen(6)

        await everything_is_acknowledged(bus, stream, desk)

    async def test_a_retry_longer_than_can_be_held_goes_back_to_the_server(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            if desk.note(message) == "1" and len(desk.seen) == 1:
                raise Retry(0.4)

        patience = Patience(hold_s=0.1)
        async with working(bus, one(stream, handle), desk, patience):
            await publish(bus, stream, "1", "2")
            await desk.until_seen(3)

        assert desk.seen == [("1", 1), ("2", 1), ("1", 2)]

    async def test_an_unexpected_failure_is_tried_again(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            desk.note(message)
            if len(desk.seen) < 3:
                raise KeyError("surprise")

        async with working(bus, one(stream, handle), desk):
            await publish(bus, stream, "1")
            await desk.until_seen(3)

        assert desk.counted("worker", "failed") == 2
        await everything_is_acknowledged(bus, stream, desk)


class TestDeadLetters:
    async def test_what_is_rejected_goes_there_with_reason_and_origin(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            if desk.note(message) == "bad":
                raise Reject("no such\nthing")

        async with working(bus, one(stream, handle), desk):
            await bus.publish(
                Outgoing(
                    subject=f"{stream}.a",
                    data=b"bad",
                    headers={"traceparent": "00-x"},
                    message_id="m1",
                )
            )
            await publish(bus, stream, "good")
            await desk.until_seen(2)
            letter = await dead_letter(bus, stream)

        assert letter.data == b"bad"
        assert {name: text for name, text in letter.headers.items() if name[:5] != "Nats-"} == {
            "traceparent": "00-x",
            "Vireo-Dead-Reason": "no such thing",
            "Vireo-Dead-Error": "Reject",
            "Vireo-Dead-Subject": f"{stream}.a",
            "Vireo-Dead-Stream": stream,
            "Vireo-Dead-Sequence": "1",
            "Vireo-Dead-Consumer": "worker",
            "Vireo-Dead-Delivered": "1",
            "Vireo-Dead-Message-Id": "m1",
        }
        assert desk.bodies == ["bad", "good"]
        assert desk.counted("worker", "rejected") == 1
        await everything_is_acknowledged(bus, stream, desk)

    async def test_what_fails_too_often_goes_there(self, bus: Bus, stream: str, desk: Desk) -> None:
        async def handle(message: Incoming) -> None:
            if desk.note(message) == "bad":
                raise KeyError("surprise")

        async with working(bus, one(stream, handle, max_deliver=3), desk):
            await publish(bus, stream, "bad", "good")
            await desk.until_seen(4)
            letter = await dead_letter(bus, stream)

        assert desk.bodies == ["bad", "bad", "bad", "good"]
        assert letter.headers["Vireo-Dead-Reason"] == "failed 3 times: KeyError: 'surprise'"
        assert letter.headers["Vireo-Dead-Error"] == "KeyError"
        await everything_is_acknowledged(bus, stream, desk)

    async def test_nothing_is_lost_while_they_cannot_be_stored(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        await bus.ensure_stream(
            StreamConfig(
                name="DEADLETTERS",
                description="too small",
                subjects=("vireo.dlq.>",),
                max_msg_size=1,
            )
        )

        async def handle(message: Incoming) -> None:
            desk.note(message)
            raise Reject("bad")

        async with working(bus, one(stream, handle), desk):
            await publish(bus, stream, "bad")
            await desk.until_seen(3)  # comes back again and again
            await bus.ensure_stream(DEADLETTERS)
            letter = await dead_letter(bus, stream)

        # The room may come between the try with the body and the one without.
        left_out = "left out: a body of 3 bytes" in letter.headers["Vireo-Dead-Reason"]
        assert letter.data == (b"" if left_out else b"bad")
        assert letter.headers["Vireo-Dead-Sequence"] == "1"

    async def test_undecodable_bytes_end_there_and_stop_nothing(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def start(envelope: Envelope[StartVm], message: Incoming) -> None:
            desk.seen.append((envelope.data.vm, message.delivered))

        good = command(StartVm(vm=SystemIds().new()))
        async with working(bus, one(stream, by_type({StartVm: start})), desk):
            for body in (b"\xff\x00{", b'{"type": 7}', b"", encode(good)):
                await bus.publish(Outgoing(subject=f"{stream}.a", data=body))
            await desk.until_seen(1)
            letter = await dead_letter(bus, stream)

        assert desk.seen == [(good.data.vm, 1)]
        assert letter.data == b"\xff\x00{"
        assert "not a CloudEvent" in letter.headers["Vireo-Dead-Reason"]
        assert desk.counted("worker", "rejected") == 3
        await everything_is_acknowledged(bus, stream, desk)

    async def test_a_type_without_a_handler_ends_there(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def start(envelope: Envelope[StartVm], message: Incoming) -> None:
            raise AssertionError

        stranger = command(DeleteVm(vm=SystemIds().new()))
        async with working(bus, one(stream, by_type({StartVm: start})), desk):
            await bus.publish(Outgoing(subject=f"{stream}.a", data=encode(stranger)))
            letter = await dead_letter(bus, stream)

        assert letter.headers["Vireo-Dead-Reason"] == "vireo.vm.delete.v1 is not handled here"


class TestBatches:
    async def test_take_what_waits(self, bus: Bus, stream: str, desk: Desk) -> None:
        sizes: list[int] = []

        async def handle(messages: Sequence[Incoming]) -> None:
            sizes.append(len(messages))
            for message in messages:
                desk.note(message)

        await publish(bus, stream, *map(str, range(25)))
        async with working(bus, batches(stream, handle, batch=10), desk):
            await desk.until_seen(25)

        assert desk.bodies == [str(number) for number in range(25)]
        assert max(sizes) <= 10
        assert len(sizes) < 25
        await everything_is_acknowledged(bus, stream, desk)

    async def test_under_load_begin_no_sooner_than_is_said(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        clock, keeping_alive = still_clock(), 1
        gathering = batches(stream, noting(desk), gather_s=5.0, gather_from=1, ack_wait_s=60)
        async with working(bus, gathering, desk, clock=clock):
            await publish(bus, stream, "1")
            await desk.until_seen(1)
            await publish(bus, stream, "2")
            async with asyncio.timeout(PATIENCE_S):
                while clock.sleeping == keeping_alive:
                    await asyncio.sleep(0.005)
            await clock.advance(4.9)
            assert desk.bodies == ["1"]
            await clock.advance(0.2)
            await desk.until_seen(2)

        assert desk.bodies == ["1", "2"]
        await everything_is_acknowledged(bus, stream, desk)

    async def test_that_are_small_begin_at_once(self, bus: Bus, stream: str, desk: Desk) -> None:
        gathering = batches(stream, noting(desk), gather_s=5.0, gather_from=2)
        async with working(bus, gathering, desk, clock=still_clock()):
            await publish(bus, stream, "1")
            await desk.until_seen(1)
            await publish(bus, stream, "2")
            await desk.until_seen(2)

        assert desk.bodies == ["1", "2"]

    async def test_that_wait_for_more_are_not_waited_for_at_the_end(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        gathering = batches(stream, noting(desk), gather_s=5.0, gather_from=1)
        async with working(bus, gathering, desk, clock=still_clock()):
            await publish(bus, stream, "1")
            await desk.until_seen(1)
            await publish(bus, stream, "2")

        fresh = Desk()

        async def note(message: Incoming) -> None:
            fresh.note(message)

        async with working(bus, one(stream, note), fresh):
            await fresh.until_seen(1)
        assert fresh.bodies == ["2"]

    async def test_that_fail_come_again_one_by_one(self, bus: Bus, stream: str, desk: Desk) -> None:
        async def handle(messages: Sequence[Incoming]) -> None:
            if any(message.data == b"bad" for message in messages):
                raise Reject("bad")
            for message in messages:
                desk.note(message)

        await publish(bus, stream, "1", "bad", "2")
        async with working(bus, batches(stream, handle), desk):
            await desk.until_seen(2)
            letter = await dead_letter(bus, stream)

        assert letter.data == b"bad"
        assert desk.bodies == ["1", "2"]
        await everything_is_acknowledged(bus, stream, desk)

    async def test_come_again_as_a_whole_after_a_retry(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        sizes: list[int] = []

        async def handle(messages: Sequence[Incoming]) -> None:
            sizes.append(len(messages))
            if len(sizes) < 3:
                raise Retry(0.05, "the database is away")
            for message in messages:
                desk.note(message)

        await publish(bus, stream, "1")
        async with working(bus, batches(stream, handle), desk):
            await desk.until_seen(1)

        assert sizes == [1, 1, 1]

    async def test_come_again_one_by_one_after_a_retry_without_delay(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(messages: Sequence[Incoming]) -> None:
            if len(messages) > 1:
                raise Retry(0, "something among them")
            desk.note(messages[0])

        await publish(bus, stream, *"123")
        async with working(bus, batches(stream, handle), desk):
            await desk.until_seen(3)

        assert desk.bodies == ["1", "2", "3"]


class TestStopping:
    async def test_finishes_what_is_in_hand_and_gives_back_the_rest(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def handle(message: Incoming) -> None:
            begun.set()
            await may_end.wait()
            desk.note(message)

        async with working(bus, one(stream, handle), desk) as task:
            await publish(bus, stream, "1", "2")
            await begun.wait()
            task.cancel()
            await asyncio.wait([task], timeout=0.1)
            may_end.set()

        assert desk.bodies == ["1"]
        await publish(bus, stream, "3")
        fresh = Desk()

        async def note(message: Incoming) -> None:
            fresh.note(message)

        async with working(bus, one(stream, note), fresh):
            await fresh.until_seen(2)
        assert sorted(fresh.bodies) == ["2", "3"]

    async def test_a_handler_that_takes_too_long_is_cut_off_and_its_message_given_back(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        begun = asyncio.Event()

        async def handle(message: Incoming) -> None:
            begun.set()
            await asyncio.Event().wait()

        async with working(bus, one(stream, handle), desk, Patience(grace_s=0.1)):
            await publish(bus, stream, "1")
            await begun.wait()

        fresh = Desk()

        async def note(message: Incoming) -> None:
            fresh.note(message)

        async with working(bus, one(stream, note), fresh):
            await fresh.until_seen(1)
        assert fresh.seen == [("1", 2)]

    async def test_a_message_that_waits_for_its_retry_is_given_back_at_once(
        self, bus: Bus, stream: str, desk: Desk
    ) -> None:
        async def handle(message: Incoming) -> None:
            desk.note(message)
            raise Retry(30)

        async with working(bus, one(stream, handle), desk):
            await publish(bus, stream, "1")
            await desk.until_seen(1)

        fresh = Desk()

        async def note(message: Incoming) -> None:
            fresh.note(message)

        async with working(bus, one(stream, note), fresh):
            await fresh.until_seen(1)

    async def test_a_batch_in_hand_is_finished(self, bus: Bus, stream: str, desk: Desk) -> None:
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def handle(messages: Sequence[Incoming]) -> None:
            begun.set()
            await may_end.wait()
            for message in messages:
                desk.note(message)

        async with working(bus, batches(stream, handle), desk) as task:
            await publish(bus, stream, "1")
            await begun.wait()
            task.cancel()
            await asyncio.wait([task], timeout=0.1)
            may_end.set()

        assert desk.bodies == ["1"]
        await everything_is_acknowledged(bus, stream, desk)


def command(data: T) -> Envelope[T]:
    return wrap(
        data,
        id=SystemIds().new(),
        site="test",
        sender="test",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        about="vm/x",
    )


async def test_an_acknowledgement_that_nobody_waits_for_is_one_all_the_same(
    bus: Bus, stream: str, desk: Desk
) -> None:
    async def note(message: Incoming) -> None:
        desk.note(message)

    await publish(bus, stream, "a", "b", "c")
    async with working(bus, one(stream, note, confirm=False), desk):
        await desk.until_seen(3)
    assert desk.bodies == ["a", "b", "c"]
    await everything_is_acknowledged(bus, stream, desk)
