"""Where a queue of messages is cut into atomic batches, so that none changes what another expects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chassis.bus import Expect, Outgoing
from chassis.matching import matches
from chassis.nats.batches import batch_length


def length(*messages: Outgoing, most_messages: int = 100, most_bytes: int = 10_000) -> int:
    return batch_length(messages, most_messages=most_messages, most_bytes=most_bytes)


def claim(vm: str, host: str) -> Outgoing:
    return Outgoing(subject=f"vm.{vm}.{host}", expect=Expect(sequence=0, over=f"vm.{vm}.*"))


def test_independent_messages_go_together() -> None:
    assert length(Outgoing(subject="a"), Outgoing(subject="a"), claim("1", "h1")) == 3


def test_rivals_for_one_thing_never_meet() -> None:
    assert length(claim("1", "h1"), claim("2", "h1"), claim("1", "h2")) == 2


def test_a_write_and_an_expectation_over_it_never_meet() -> None:
    assert length(Outgoing(subject="vm.1.h1"), claim("1", "h2")) == 1


def test_a_repeated_message_id_begins_the_next_batch() -> None:
    same = Outgoing(subject="a", message_id="m")
    assert length(same, Outgoing(subject="a", message_id="n"), same) == 2


def test_what_clears_away_older_messages_goes_alone() -> None:
    clearing = Outgoing(subject="a", headers={"Nats-Rollup": "sub"})
    assert length(clearing, Outgoing(subject="b")) == 1
    assert length(Outgoing(subject="b"), clearing) == 1


def test_a_batch_has_its_limits() -> None:
    assert length(*[Outgoing(subject="a")] * 9, most_messages=5) == 5
    assert length(*[Outgoing(subject="a", data=b"x" * 40)] * 9, most_bytes=100) == 2


def test_one_message_goes_however_big() -> None:
    assert length(Outgoing(subject="a", data=b"x" * 1000), most_bytes=100) == 1


def test_nothing_waits_nothing_goes() -> None:
    assert length() == 0


outgoing = st.builds(
    lambda vm, host, over: Outgoing(
        subject=f"vm.{vm}.{host}", expect=Expect(sequence=0, over=over) if over else None
    ),
    st.sampled_from("123"),
    st.sampled_from("ab"),
    st.sampled_from([None, "vm.1.*", "vm.2.a", "vm.>", "vm.*.b"]),
)


@given(st.lists(outgoing, min_size=1, max_size=12))
def test_no_expectation_of_a_batch_covers_what_an_earlier_member_writes(
    messages: list[Outgoing],
) -> None:
    batch = messages[: length(*messages)]

    assert batch
    for number, message in enumerate(batch):
        if message.expect is not None:
            assert not any(
                matches(message.expect.over, earlier.subject) for earlier in batch[:number]
            )
