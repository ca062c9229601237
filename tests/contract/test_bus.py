"""What every bus promises, held by the one on NATS and the one in memory alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from chassis import kv
from chassis.bus import (
    Ack,
    Backlog,
    Bus,
    BusError,
    CaughtUp,
    Conflict,
    ConsumerConfig,
    Delivery,
    Expect,
    Incoming,
    NoResponders,
    NotFound,
    Outgoing,
    Start,
    StreamConfig,
    Unavailable,
)

T = TypeVar("T")
PATIENCE_S = 5.0


async def soon(source: AsyncIterator[T]) -> T:
    """The next item, within a time that only a broken bus needs."""
    async with asyncio.timeout(PATIENCE_S):
        return await anext(source)


async def some(source: AsyncIterator[T], count: int) -> list[T]:
    return [await soon(source) for _ in range(count)]


def message(item: Incoming | CaughtUp) -> Incoming:
    assert isinstance(item, Incoming), item
    return item


def stream(name: str, **more: object) -> StreamConfig:
    return StreamConfig(
        name=name,
        description="of a test",
        subjects=(f"{name}.>",),
        **more,  # type: ignore[arg-type]
    )


def bucket(name: str, **more: object) -> StreamConfig:
    return StreamConfig(
        name=kv.stream_of(name),
        description="of a test",
        subjects=(),
        **more,  # type: ignore[arg-type]
    )


def durable(name: str, **more: object) -> ConsumerConfig:
    return ConsumerConfig(
        stream=name,
        name="worker",
        description="of a test",
        **more,  # type: ignore[arg-type]
    )


async def publish(bus: Bus, subject: str, *bodies: str) -> list[Ack]:
    return [await bus.publish(Outgoing(subject=subject, data=body.encode())) for body in bodies]


class TestPublishing:
    async def test_acknowledges_with_the_place_in_the_stream(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))

        acks = await publish(bus, f"{unique}.a", "one", "two")

        assert acks == [Ack(stream=unique, sequence=1), Ack(stream=unique, sequence=2)]

    async def test_keeps_body_headers_and_subject(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.publish(
            Outgoing(subject=f"{unique}.a", data=b"\x00\xff", headers={"traceparent": "00-1"})
        )

        kept = await bus.last(unique, f"{unique}.a")

        assert kept is not None
        assert (kept.data, kept.headers, kept.subject) == (
            b"\x00\xff",
            {"traceparent": "00-1"},
            f"{unique}.a",
        )
        assert kept.published_at is not None

    async def test_a_place_in_the_stream_is_read_or_the_next_one_that_is_still_there(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique))
        await publish(bus, f"{unique}.a", "one", "two")
        await publish(bus, f"{unique}.b", "three")
        await bus.purge(unique, f"{unique}.a")

        found = await bus.first_from(unique, 1)

        assert found is not None
        assert (found.sequence, found.data) == (3, b"three")
        assert await bus.first_from(unique, 3) == found
        assert await bus.first_from(unique, 4) is None

    @pytest.mark.parametrize("atomic", [True, False])
    async def test_what_is_published_at_once_gets_each_its_own_place(
        self, bus: Bus, unique: str, atomic: bool
    ) -> None:
        await bus.ensure_stream(stream(unique, allow_atomic=atomic))
        bodies = [str(number).encode() for number in range(700)]

        acks = await asyncio.gather(
            *(bus.publish(Outgoing(subject=f"{unique}.a", data=body)) for body in bodies)
        )

        async with bus.follow(unique, [f"{unique}.>"], start=Start(at="all")) as items:
            stored = [message(item) for item in await some(items, len(bodies))]
        assert {ack.sequence: body for ack, body in zip(acks, bodies, strict=True)} == {
            item.sequence: item.data for item in stored
        }

    async def test_a_repeated_message_id_is_stored_once(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique, allow_atomic=True))
        same = Outgoing(subject=f"{unique}.a", message_id="m1")

        first = await bus.publish(same)
        second = await bus.publish(same)

        assert (first.duplicate, second.duplicate) == (False, True)
        assert second.sequence == first.sequence
        assert await bus.last_sequence(unique) == 1

    async def test_repeated_ids_among_many_at_once_are_stored_once(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique, allow_atomic=True))
        await bus.publish(Outgoing(subject=f"{unique}.a", message_id="7"))

        acks = await asyncio.gather(
            *(
                bus.publish(Outgoing(subject=f"{unique}.a", message_id=str(number % 20)))
                for number in range(100)
            )
        )

        assert sum(not ack.duplicate for ack in acks) == 19
        assert await bus.last_sequence(unique) == 20

    async def test_a_message_id_counts_anew_after_the_window(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique, duplicate_window_s=0.2))
        same = Outgoing(subject=f"{unique}.a", message_id="m1")
        await bus.publish(same)

        async with asyncio.timeout(PATIENCE_S):
            while (await bus.publish(same)).duplicate:
                await asyncio.sleep(0.05)

        assert await bus.last_sequence(unique) == 2

    async def test_to_a_subject_that_no_stream_takes_is_not_found(
        self, bus: Bus, unique: str
    ) -> None:
        with pytest.raises(NotFound):
            await bus.publish(Outgoing(subject=f"{unique}.nowhere"))

    async def test_more_than_the_stream_takes_is_refused(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique, max_msg_size=10))

        with pytest.raises(BusError) as refused:
            await bus.publish(Outgoing(subject=f"{unique}.a", data=b"x" * 100))

        assert not isinstance(refused.value, Unavailable)
        assert (await publish(bus, f"{unique}.a", "small"))[0].sequence == 1

    async def test_a_full_stream_that_keeps_the_old_refuses_the_new(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique, max_bytes=2000, discard="new"))

        with pytest.raises(Unavailable):
            await publish(bus, f"{unique}.a", *["x" * 300] * 10)


class TestCompareAndSwap:
    async def test_holds_when_nobody_wrote_meanwhile(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique, allow_atomic=True))
        key = kv.subject_of(unique, "vm.1.h1")
        first = await bus.publish(
            kv.put(unique, "vm.1.h1", b"a", expect=Expect(sequence=0, over=key))
        )

        second = await bus.publish(
            kv.put(unique, "vm.1.h1", b"b", expect=Expect(sequence=first.sequence, over=key))
        )

        assert second.sequence == first.sequence + 1

    async def test_conflicts_when_somebody_did(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique, allow_atomic=True))
        over = kv.subject_of(unique, "vm.1.*")
        await bus.publish(kv.put(unique, "vm.1.h1", b"a"))

        with pytest.raises(Conflict):
            await bus.publish(kv.put(unique, "vm.1.h2", b"b", expect=Expect(sequence=0, over=over)))

        assert await bus.last_sequence(kv.stream_of(unique)) == 1

    async def test_of_many_rivals_at_once_exactly_one_wins_each_key(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(bucket(unique, allow_atomic=True))

        def claim(vm: int, host: int) -> Outgoing:
            over = kv.subject_of(unique, f"vm.{vm}.*")
            expect = Expect(sequence=0, over=over)
            return kv.put(unique, f"vm.{vm}.h{host}", b"", expect=expect)

        said = await asyncio.gather(
            *(bus.publish(claim(vm, host)) for host in range(4) for vm in range(25)),
            return_exceptions=True,
        )

        assert sum(isinstance(answer, Ack) for answer in said) == 25
        assert sum(isinstance(answer, Conflict) for answer in said) == 75
        assert await bus.last_sequence(kv.stream_of(unique)) == 25

    async def test_one_members_conflict_harms_no_other(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique, allow_atomic=True))
        wrong = Expect(sequence=99, over=kv.subject_of(unique, "b"))

        said = await asyncio.gather(
            bus.publish(kv.put(unique, "a", b"")),
            bus.publish(kv.put(unique, "b", b"", expect=wrong)),
            bus.publish(kv.put(unique, "c", b"")),
            return_exceptions=True,
        )

        assert [type(answer) for answer in said] == [Ack, Conflict, Ack]

    async def test_comes_before_the_duplicate_window(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique))
        expect = Expect(sequence=0, over=kv.subject_of(unique, "a"))
        claim = kv.put(unique, "a", b"", expect=expect, message_id="m1")
        await bus.publish(claim)

        with pytest.raises(Conflict):
            await bus.publish(claim)


class TestPublishingTogether:
    async def test_stores_all(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique, allow_atomic=True))

        ack = await bus.publish_together(
            [kv.put(unique, "vm.1.h2", b"new"), kv.put(unique, "vm.1.h1", b"ended")]
        )

        assert ack == Ack(stream=kv.stream_of(unique), sequence=2)

    async def test_stores_none_when_one_expectation_fails(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique, allow_atomic=True))
        wrong = Expect(sequence=5, over=kv.subject_of(unique, "b"))

        with pytest.raises(Conflict):
            await bus.publish_together(
                [kv.put(unique, "a", b""), kv.put(unique, "b", b"", expect=wrong)]
            )

        assert await bus.last_sequence(kv.stream_of(unique)) == 0

    async def test_repeated_is_a_duplicate(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique, allow_atomic=True))
        both = [
            Outgoing(subject=f"{unique}.a", message_id="a"),
            Outgoing(subject=f"{unique}.b", message_id="b"),
        ]
        await bus.publish_together(both)

        again = await bus.publish_together(both)

        assert again == Ack(stream=unique, sequence=2, duplicate=True)
        assert await bus.last_sequence(unique) == 2

    async def test_conflicts_when_only_a_part_was_stored_before(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique, allow_atomic=True))
        await bus.publish(Outgoing(subject=f"{unique}.a", message_id="a"))

        with pytest.raises(Conflict):
            await bus.publish_together(
                [
                    Outgoing(subject=f"{unique}.a", message_id="a"),
                    Outgoing(subject=f"{unique}.b", message_id="b"),
                ]
            )

        assert await bus.last_sequence(unique) == 1

    async def test_is_refused_where_the_stream_takes_no_batches(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique))

        with pytest.raises(BusError):
            await bus.publish_together(
                [Outgoing(subject=f"{unique}.a"), Outgoing(subject=f"{unique}.b")]
            )


class TestBuckets:
    async def test_keep_the_last_value_of_each_key(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique))
        await bus.publish(kv.put(unique, "a", b"1"))
        await bus.publish(kv.put(unique, "a", b"2"))

        kept = await bus.last(kv.stream_of(unique), kv.subject_of(unique, "a"))

        assert kept is not None
        assert kv.entry(kept) == kv.Entry(bucket=unique, key="a", value=b"2", revision=2)

    async def test_find_the_newest_under_a_pattern(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique))
        await bus.publish(kv.put(unique, "vm.1.h1", b"1"))
        await bus.publish(kv.put(unique, "vm.1.h2", b"2"))
        await bus.publish(kv.put(unique, "vm.2.h1", b"3"))

        kept = await bus.last(kv.stream_of(unique), kv.subject_of(unique, "vm.1.*"))

        assert kept is not None
        assert kept.data == b"2"

    async def test_say_none_for_a_key_that_was_never_written(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique))

        assert await bus.last(kv.stream_of(unique), kv.subject_of(unique, "a")) is None

    async def test_that_do_not_exist_are_not_found(self, bus: Bus, unique: str) -> None:
        with pytest.raises(NotFound):
            await bus.last(kv.stream_of(unique), kv.subject_of(unique, "a"))
        with pytest.raises(NotFound):
            await bus.last_sequence(kv.stream_of(unique))

    async def test_leave_a_marker_where_a_key_was_purged(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique))
        await bus.publish(kv.put(unique, "a", b"1"))
        await bus.publish(kv.purge(unique, "a"))

        kept = await bus.last(kv.stream_of(unique), kv.subject_of(unique, "a"))

        assert kept is not None
        assert kv.entry(kept).value is None

    async def test_show_their_followers_a_key_that_ran_out(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(
            bucket(unique, storage="memory", allow_msg_ttl=True, subject_delete_marker_ttl_s=60)
        )
        async with bus.follow(
            kv.stream_of(unique), [kv.subject_of(unique, ">")], start=Start(at="last_per_subject")
        ) as items:
            assert await soon(items) == CaughtUp()
            await bus.publish(kv.put(unique, "h1", b"here", ttl_s=1))

            lived, gone = [kv.entry(message(item)) for item in await some(items, 2)]

        assert (lived.key, lived.value) == ("h1", b"here")
        assert (gone.key, gone.value) == ("h1", None)

    async def test_can_be_rid_of_a_key_altogether(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(bucket(unique))
        await bus.publish(kv.put(unique, "a", b"1"))
        await bus.publish(kv.put(unique, "b", b"2"))

        await bus.purge(kv.stream_of(unique), kv.subject_of(unique, "a"))

        assert await bus.last(kv.stream_of(unique), kv.subject_of(unique, "a")) is None
        assert await bus.last(kv.stream_of(unique), kv.subject_of(unique, "b")) is not None


class TestFollowing:
    async def test_an_empty_stream_is_caught_up_at_once(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))

        async with bus.follow(unique, [f"{unique}.>"], start=Start(at="all")) as items:
            assert await soon(items) == CaughtUp()

    async def test_says_once_when_the_past_is_told(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await publish(bus, f"{unique}.a", "1", "2")

        async with bus.follow(unique, [f"{unique}.>"], start=Start(at="all")) as items:
            past = await some(items, 3)
            await publish(bus, f"{unique}.a", "3", "4")
            future = await some(items, 2)

        assert [message(item).data for item in past[:2]] == [b"1", b"2"]
        assert past[2] == CaughtUp()
        assert [message(item).data for item in future] == [b"3", b"4"]

    async def test_from_new_tells_only_what_comes(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await publish(bus, f"{unique}.a", "old")

        async with bus.follow(unique, [f"{unique}.>"], start=Start(at="new")) as items:
            assert await soon(items) == CaughtUp()
            await publish(bus, f"{unique}.a", "new")

            assert message(await soon(items)).data == b"new"

    async def test_from_a_sequence_begins_there(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await publish(bus, f"{unique}.a", "1", "2", "3")

        start = Start(at="sequence", sequence=2)
        async with bus.follow(unique, [f"{unique}.>"], start=start) as items:
            told = await some(items, 3)

        assert [message(item).data for item in told[:2]] == [b"2", b"3"]

    async def test_last_per_subject_tells_the_present_and_then_each_change(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique))
        await publish(bus, f"{unique}.a", "a1", "a2")
        await publish(bus, f"{unique}.b", "b1")

        start = Start(at="last_per_subject")
        async with bus.follow(unique, [f"{unique}.>"], start=start) as items:
            present = await some(items, 3)
            await publish(bus, f"{unique}.a", "a3")
            change = await soon(items)

        assert [message(item).data for item in present[:2]] == [b"a2", b"b1"]
        assert message(change).data == b"a3"

    async def test_tells_only_the_subjects_asked_for(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        for subject in ("a", "b", "c"):
            await publish(bus, f"{unique}.{subject}", subject)

        wanted = [f"{unique}.a", f"{unique}.c"]
        async with bus.follow(unique, wanted, start=Start(at="all")) as items:
            told = await some(items, 3)

        assert [message(item).data for item in told[:2]] == [b"a", b"c"]

    async def test_waits_for_a_stream_that_does_not_exist_yet(self, bus: Bus, unique: str) -> None:
        async with bus.follow(unique, [f"{unique}.>"], start=Start(at="all")) as items:
            await bus.ensure_stream(stream(unique))
            assert await soon(items) == CaughtUp()
            await publish(bus, f"{unique}.a", "1")

            assert message(await soon(items)).data == b"1"

    async def test_reads_more_than_it_buffers(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique, allow_atomic=True))
        await asyncio.gather(*(bus.publish(Outgoing(subject=f"{unique}.a")) for _ in range(2500)))

        async with bus.follow(unique, [f"{unique}.>"], start=Start(at="all")) as items:
            told = await some(items, 2501)

        assert [message(item).sequence for item in told[:-1]] == list(range(1, 2501))


class TestPulling:
    async def test_hands_out_each_message_once_when_acknowledged(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique, ack_wait_s=0.5))
        await publish(bus, f"{unique}.a", "1", "2", "3")

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            got = await some(deliveries, 3)
            for delivery in got:
                await delivery.ack()
            await publish(bus, f"{unique}.a", "4")
            fourth = await soon(deliveries)

        assert [delivery.message.data for delivery in got] == [b"1", b"2", b"3"]
        assert (fourth.message.data, fourth.message.delivered) == (b"4", 1)

    async def test_never_has_more_than_a_batch_outstanding(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique))
        await publish(bus, f"{unique}.a", *"123456789")

        async with bus.pull(unique, "worker", batch=3) as deliveries:
            held = await some(deliveries, 3)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await anext(deliveries)
            for delivery in held:
                await delivery.ack()

            assert [d.message.data for d in await some(deliveries, 3)] == [b"4", b"5", b"6"]

    async def test_what_is_not_acknowledged_comes_again(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique, ack_wait_s=0.3))
        await publish(bus, f"{unique}.a", "1")

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            first, second = await some(deliveries, 2)

        assert first.message.data == second.message.data
        assert (first.message.delivered, second.message.delivered) == (1, 2)

    async def test_what_is_in_progress_does_not(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique, ack_wait_s=0.6))
        await publish(bus, f"{unique}.a", "1")

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            delivery = await soon(deliveries)
            again: asyncio.Task[Delivery] = asyncio.ensure_future(anext(deliveries))
            for _ in range(5):
                done, _ = await asyncio.wait([again], timeout=0.25)
                assert not done
                await delivery.in_progress()
            await delivery.ack()
            again.cancel()

    async def test_what_is_refused_comes_again_after_the_delay(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique))
        await publish(bus, f"{unique}.a", "1", "2")
        loop = asyncio.get_running_loop()

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            first, second = await some(deliveries, 2)
            refused_at = loop.time()
            await first.nak(0.4)
            await second.nak(0)
            soon_again, later_again = await some(deliveries, 2)

        assert [soon_again.message.data, later_again.message.data] == [b"2", b"1"]
        assert loop.time() - refused_at >= 0.35

    async def test_what_is_terminated_never_comes_again(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique, ack_wait_s=0.3))
        await publish(bus, f"{unique}.a", "1")

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            await (await soon(deliveries)).term("broken")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.6):
                    await anext(deliveries)

    async def test_what_is_before_a_consumer_can_be_asked(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique))
        await publish(bus, f"{unique}.a", "1", "2", "3")
        async with bus.pull(unique, "worker", batch=2) as deliveries:
            await (await soon(deliveries)).ack()

            assert await bus.backlogs(unique) == [Backlog(consumer="worker", messages=2)]

    async def test_two_readers_share_the_work(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique))

        async with (
            bus.pull(unique, "worker", batch=5) as ones,
            bus.pull(unique, "worker", batch=5) as others,
        ):
            await publish(bus, f"{unique}.a", *"0123456789")
            got = [d.message.data for d in (*await some(ones, 5), *await some(others, 5))]

        assert sorted(got) == sorted(b"%d" % number for number in range(10))

    async def test_goes_on_where_the_last_reader_stopped(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique))
        await publish(bus, f"{unique}.a", "1", "2")
        async with bus.pull(unique, "worker", batch=1) as deliveries:
            await (await soon(deliveries)).ack()

        async with bus.pull(unique, "worker", batch=1) as deliveries:
            assert (await soon(deliveries)).message.data == b"2"

    async def test_a_work_queue_forgets_what_is_acknowledged(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique, retention="workqueue"))
        await bus.ensure_consumer(durable(unique))
        await publish(bus, f"{unique}.a", "1")

        async with bus.pull(unique, "worker", batch=1) as deliveries:
            await (await soon(deliveries)).ack()

        async with asyncio.timeout(PATIENCE_S):
            while await bus.last(unique, f"{unique}.a") is not None:
                await asyncio.sleep(0.02)
        assert await bus.last_sequence(unique) == 1

    async def test_reads_only_the_consumers_subjects(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique, subjects=(f"{unique}.b.>", f"{unique}.c")))
        for subject in ("a", "b.x", "c"):
            await publish(bus, f"{unique}.{subject}", subject)

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            got = await some(deliveries, 2)

        assert [delivery.message.data for delivery in got] == [b"b.x", b"c"]

    async def test_a_consumer_of_the_present_begins_with_the_last_of_each_subject(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique))
        await publish(bus, f"{unique}.a", "a1", "a2")
        await publish(bus, f"{unique}.b", "b1")
        await bus.ensure_consumer(durable(unique, deliver="last_per_subject"))
        await publish(bus, f"{unique}.a", "a3")

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            got = await some(deliveries, 3)

        assert [delivery.message.data for delivery in got] == [b"a2", b"b1", b"a3"]

    async def test_waits_for_a_consumer_that_does_not_exist_yet(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique))
        await publish(bus, f"{unique}.a", "1")

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(deliveries)
            await bus.ensure_consumer(durable(unique))

            assert (await soon(deliveries)).message.data == b"1"

    async def test_goes_on_with_a_consumer_that_is_made_anew(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique))
        await publish(bus, f"{unique}.a", "1")

        async with bus.pull(unique, "worker", batch=10) as deliveries:
            await (await soon(deliveries)).ack()
            await bus.delete_consumer(unique, "worker")
            await bus.ensure_consumer(durable(unique))

            assert (await soon(deliveries)).message.data == b"1"


class TestEnsuring:
    async def test_a_stream_twice_changes_nothing(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await publish(bus, f"{unique}.a", "1")

        await bus.ensure_stream(stream(unique))

        assert await bus.last_sequence(unique) == 1

    async def test_a_stream_updates_what_differs(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))

        await bus.ensure_stream(stream(unique, max_msg_size=10, allow_atomic=True))

        with pytest.raises(BusError):
            await bus.publish(Outgoing(subject=f"{unique}.a", data=b"x" * 100))

    async def test_a_consumer_does_not_move_its_cursor(self, bus: Bus, unique: str) -> None:
        await bus.ensure_stream(stream(unique))
        await bus.ensure_consumer(durable(unique))
        await publish(bus, f"{unique}.a", "1", "2")
        async with bus.pull(unique, "worker", batch=1) as deliveries:
            await (await soon(deliveries)).ack()

        await bus.ensure_consumer(durable(unique, ack_wait_s=7, deliver="new"))

        async with bus.pull(unique, "worker", batch=1) as deliveries:
            assert (await soon(deliveries)).message.data == b"2"

    async def test_deleting_a_consumer_that_does_not_exist_is_no_error(
        self, bus: Bus, unique: str
    ) -> None:
        await bus.ensure_stream(stream(unique))

        await bus.delete_consumer(unique, "nobody")


class TestCore:
    async def test_a_request_is_answered(self, bus: Bus, unique: str) -> None:
        async with bus.listen(f"{unique}.q") as questions:
            asked = asyncio.ensure_future(
                bus.request(f"{unique}.q", b"ping", headers={"a": "b"}, timeout_s=PATIENCE_S)
            )
            question = await soon(questions)
            await bus.send(question.reply, b"pong", headers={"c": "d"})
            answer = await asked

        assert (question.data, question.headers) == (b"ping", {"a": "b"})
        assert (answer.data, answer.headers) == (b"pong", {"c": "d"})

    async def test_a_request_that_nobody_serves_fails_at_once(self, bus: Bus, unique: str) -> None:
        with pytest.raises(NoResponders):
            await bus.request(f"{unique}.q", b"", timeout_s=60)

    async def test_a_request_that_nobody_answers_fails_in_time(self, bus: Bus, unique: str) -> None:
        async with bus.listen(f"{unique}.q"):
            with pytest.raises(Unavailable):
                await bus.request(f"{unique}.q", b"", timeout_s=0.1)

    async def test_of_a_queue_only_one_member_hears(self, bus: Bus, unique: str) -> None:
        async with (
            bus.listen(f"{unique}.q", queue="g") as ones,
            bus.listen(f"{unique}.q", queue="g") as others,
            bus.listen(f"{unique}.*") as everything,
        ):
            await bus.send(f"{unique}.q", b"1")
            assert (await soon(everything)).data == b"1"
            members = [asyncio.ensure_future(anext(member)) for member in (ones, others)]
            done, waiting = await asyncio.wait(members, timeout=0.2)
            for member in waiting:
                member.cancel()

        assert len(done) == 1

    async def test_a_slow_listener_loses_the_oldest(self, bus: Bus, unique: str) -> None:
        async with (
            bus.listen(f"{unique}.>", limit=2) as slow,
            bus.listen(f"{unique}.>") as quick,
        ):
            for number in range(5):
                await bus.send(f"{unique}.a", b"%d" % number)
            await some(quick, 5)

            assert [item.data for item in await some(slow, 2)] == [b"3", b"4"]
