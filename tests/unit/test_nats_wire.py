"""The wire formats of JetStream: places in reply subjects, answers, configurations, where to begin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chassis.bus import (
    Ack,
    BusError,
    Conflict,
    ConsumerConfig,
    NotFound,
    Outgoing,
    Start,
    StreamConfig,
    Unavailable,
)
from chassis.nats.answers import ApiError, ack_of, exception_of, pub_ack
from chassis.nats.follow import Position, StreamState, beginning, was_emptied
from chassis.nats.messages import Place, instant, parse_time, place_of, publish_headers, wire_size
from chassis.nats.streams import consumer_json, differences, present_consumer, stream_json

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.S.c.2.10.7.1700000000000000000.5",
        "$JS.ACK._.hash.S.c.2.10.7.1700000000000000000.5",
        "$JS.ACK.hub.hash.S.c.2.10.7.1700000000000000000.5.random",
    ],
)
def test_a_deliverys_place_is_read_from_each_form_of_its_reply(reply: str) -> None:
    assert place_of(reply) == Place("S", 2, 10, 7, 1_700_000_000_000_000_000, 5)


def test_another_reply_is_no_place() -> None:
    assert place_of("_INBOX.x.y") is None
    assert place_of("") is None


def test_times_are_read_to_the_microsecond() -> None:
    expected = datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
    assert parse_time("2026-01-02T03:04:05.123456789Z") == expected
    assert parse_time("2026-01-02T03:04:05Z") == expected.replace(microsecond=0)
    assert instant(1_700_000_000_000_001_999) == datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=UTC)


def test_size_counts_the_headers_as_the_server_does() -> None:
    wire = b"NATS/1.0\r\nkey: value\r\n\r\n"
    assert wire_size(b"body", {"key": "value"}) == len(wire) + 4
    assert wire_size(b"body", {}) == 4


def test_a_message_id_and_a_ttl_become_headers() -> None:
    message = Outgoing(subject="a", headers={"x": "y"}, message_id="m", ttl_s=10)
    assert publish_headers(message) == {"x": "y", "Nats-Msg-Id": "m", "Nats-TTL": "10s"}


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ApiError(400, 10071, "wrong last sequence: 5"), Conflict),
        (ApiError(400, 10164, "wrong last sequence"), Conflict),
        (ApiError(404, 10059, "stream not found"), NotFound),
        (ApiError(404, 10014, "consumer not found"), NotFound),
        (ApiError(503, 10077, "maximum bytes exceeded"), Unavailable),
        (ApiError(400, 10158, "duplicate in process"), Unavailable),
        (ApiError(400, 10054, "message size exceeds maximum"), BusError),
    ],
)
def test_each_refusal_has_its_exception(error: ApiError, meaning: type[BusError]) -> None:
    assert type(exception_of(error)) is meaning


def test_an_acknowledgement_is_read() -> None:
    answer = pub_ack(b'{"stream":"S","seq":7,"duplicate":true,"domain":"hub"}')
    assert ack_of(answer) == Ack(stream="S", sequence=7, duplicate=True)


@pytest.mark.parametrize("raw", [b"", b"+OK", b"{}", b"[1]", b"\xff"])
def test_what_is_no_acknowledgement_is_unavailable(raw: bytes) -> None:
    with pytest.raises(Unavailable):
        pub_ack(raw)


def test_a_bucket_gets_what_key_value_clients_expect() -> None:
    wanted = stream_json(StreamConfig(name="KV_CONFIG", description="", subjects=()))
    assert {
        "subjects": ["$KV.CONFIG.>"],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
    }.items() <= wanted.items()


def test_the_duplicate_window_is_no_longer_than_messages_live() -> None:
    config = StreamConfig(
        name="S", description="", subjects=("s",), max_age_s=10, duplicate_window_s=120
    )
    assert stream_json(config)["duplicate_window"] == 10_000_000_000


def test_what_the_server_leaves_out_is_no_difference() -> None:
    wanted = {"allow_atomic": False, "subjects": ["a"], "max_age": 0}
    assert differences(wanted, {"subjects": ["a"], "extra": 1}) == {}
    assert differences({**wanted, "allow_atomic": True}, {"subjects": ["a"]}) == {
        "allow_atomic": (True, None)
    }


def test_one_filter_is_the_same_as_a_list_of_one() -> None:
    config = ConsumerConfig(stream="S", name="c", description="", subjects=("a.>",))
    wanted = consumer_json(config, takeover_s=3)
    present = present_consumer({**wanted, "filter_subject": "a.>"})
    assert differences(wanted, present) == {}


def state(first: int, last: int, first_at: datetime = NOON) -> StreamState:
    return StreamState(first_sequence=first, last_sequence=last, first_at=first_at, last_at=NOON)


@pytest.mark.parametrize(
    ("start", "policy"),
    [
        (Start(at="all"), {"deliver_policy": "all"}),
        (Start(at="last_per_subject"), {"deliver_policy": "last_per_subject"}),
        (Start(at="new"), {"deliver_policy": "by_start_sequence", "opt_start_seq": 8}),
        (
            Start(at="sequence", sequence=3),
            {"deliver_policy": "by_start_sequence", "opt_start_seq": 3},
        ),
    ],
)
def test_a_follower_begins_where_it_was_told(start: Start, policy: dict[str, object]) -> None:
    assert beginning(start, None, state(1, 7)) == policy


@pytest.mark.parametrize("at", ["all", "new", "last_per_subject", "sequence"])
def test_a_follower_goes_on_after_what_it_read(at: str) -> None:
    read = Position(sequence=5, at=NOON)
    assert beginning(Start(at=at), read, state(1, 7)) == {  # type: ignore[arg-type]
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": 6,
    }


def test_a_stream_that_counts_anew_was_emptied() -> None:
    read = Position(sequence=5, at=NOON)
    later = NOON + timedelta(seconds=1)
    assert was_emptied(state(1, 2, later), read)
    assert was_emptied(state(1, 9, later), read)
    assert was_emptied(state(0, 0), read)


def test_a_stream_that_only_forgot_its_oldest_was_not() -> None:
    read = Position(sequence=5, at=NOON)
    later = NOON + timedelta(seconds=1)
    assert not was_emptied(state(6, 9, later), read)
    assert not was_emptied(state(3, 9, NOON - timedelta(seconds=1)), read)


def test_an_emptied_bucket_is_read_from_its_beginning() -> None:
    read = Position(sequence=5, at=NOON)
    assert beginning(Start(at="new"), read, state(1, 2, NOON)) == {"deliver_policy": "all"}
    assert beginning(Start(at="last_per_subject"), read, state(1, 2)) == {
        "deliver_policy": "last_per_subject"
    }
