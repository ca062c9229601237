"""Server-sent events, read from bytes however they are cut."""

from __future__ import annotations

import pytest

from vireo.settings import ClientSettings
from vireo.sse import Message, Reader, TooLong
from vireo.transport import delay_s

STREAM = (
    b": keepalive\n\n"
    b'id: 7\nevent: vm.started\ndata: {"a":"\xe2\x80\xa8"}\n\n'
    b"retry: 250\r\ndata:one\r\ndata: two\r\n\r\n"
    b"event: lost, for it has no data\n\n"
)
MESSAGES = [
    Message(event="vm.started", data=b'{"a":"\xe2\x80\xa8"}', id="7"),
    Message(event="message", data=b"one\ntwo", id="7"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_messages_are_the_same_however_the_stream_is_cut(size: int) -> None:
    reader = Reader(limit=1000)
    pieces = [STREAM[place : place + size] for place in range(0, len(STREAM), size)]
    assert [message for piece in pieces for message in reader.feed(piece)] == MESSAGES


def test_a_message_longer_than_the_limit_is_refused() -> None:
    reader = Reader(limit=100)
    with pytest.raises(TooLong):
        list(reader.feed(b"data: " + b"x" * 200))


def test_many_data_lines_count_together() -> None:
    reader = Reader(limit=100)
    with pytest.raises(TooLong):
        list(reader.feed(b"data: " + b"\ndata: ".join([b"x" * 20] * 10) + b"\n"))


def test_pauses_double_up_to_the_most_and_jitter_only_shortens_them() -> None:
    settings = ClientSettings(backoff_first_s=1, backoff_most_s=5)
    assert [delay_s(n, settings, jitter=1.0) for n in (1, 2, 3, 4, 9999)] == [1, 2, 4, 5, 5]
    assert delay_s(1, settings, jitter=0.0) == 0.5


def test_a_pause_the_server_asks_for_is_kept_within_the_most() -> None:
    settings = ClientSettings(backoff_first_s=1, backoff_most_s=5)
    assert delay_s(1, settings, jitter=0.0, at_least_s=3) == 3
    assert delay_s(1, settings, jitter=0.0, at_least_s=99) == 5
