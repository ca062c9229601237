"""What comes off a connection, cut wherever the network cuts it."""

from __future__ import annotations

import asyncio

import pytest
from nats.protocol.parser import Parser

from chassis.nats.parser import FastParser

Message = tuple[int, bytes, bytes, bytes, bytes]
OURS, OTHERS = 1, 2


class Heard:
    """A client that notes which way each message took."""

    def __init__(self, *, ours: bool = True, fails: bool = False) -> None:
        self.messages: list[Message] = []
        self.slowly: list[Message] = []
        self.pings = 0
        self.failures: list[Exception] = []
        self._fails = fails
        self.parser: Parser = FastParser(self, self.take, self.failed) if ours else Parser(self)

    def take(self, sid: int, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> bool:
        if sid != OURS:
            return False
        if self._fails:
            raise ValueError("not today")
        self.messages.append((sid, subject, reply, headers, data))
        return True

    async def failed(self, error: Exception) -> None:
        self.failures.append(error)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        message = (sid, subject, reply, headers or b"", data)
        self.messages.append(message)
        self.slowly.append(message)

    async def _process_ping(self) -> None:
        self.pings += 1

    async def read(self, *parts: bytes) -> Heard:
        for part in parts:
            await self.parser.parse(part)
        return self


def line(data: bytes, *, sid: int = OURS, reply: bytes = b"", headers: bytes = b"") -> bytes:
    words = [b"HMSG" if headers else b"MSG", b"a.b", b"%d" % sid, *([reply] if reply else [])]
    if headers:
        words.append(b"%d" % len(headers))
    words.append(b"%d" % (len(headers) + len(data)))
    return b" ".join(words) + b"\r\n" + headers + data + b"\r\n"


SAID = b"NATS/1.0\r\nName: value\r\n\r\n"
ALL = b"".join(
    (
        line(b"one"),
        line(b"two\r\nMSG a 1 3\r\n", reply=b"$JS.ACK.x"),
        line(b"three", headers=SAID),
        b"PING\r\n",
        line(b"", reply=b"r"),
        line(b"to another", sid=OTHERS),
        line(b"four" * 40, reply=b"r", headers=SAID),
        line(b"five"),
    )
)


def test_whole_messages_are_taken_as_they_are_read() -> None:
    heard = asyncio.run(Heard().read(line(b"one") + line(b"two", reply=b"r", headers=SAID)))
    assert heard.messages == [
        (OURS, b"a.b", b"", b"", b"one"),
        (OURS, b"a.b", b"r", SAID, b"two"),
    ]
    assert heard.slowly == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 50, 64, 100, len(ALL)])
def test_wherever_it_is_cut_the_same_is_heard_as_by_the_librarys_parser(size: int) -> None:
    parts = [ALL[start : start + size] for start in range(0, len(ALL), size)]
    ours = asyncio.run(Heard().read(*parts))
    theirs = asyncio.run(Heard(ours=False).read(*parts))
    assert ours.messages == theirs.messages
    assert (ours.pings, len(ours.messages)) == (1, 7)


def test_a_message_that_came_in_two_parts_does_not_slow_down_those_after_it() -> None:
    whole = line(b"one") + line(b"two") + line(b"three")
    heard = asyncio.run(Heard().read(whole[:33], whole[33:]))
    assert [message[-1] for message in heard.messages] == [b"one", b"two", b"three"]
    assert [message[-1] for message in heard.slowly] == [b"two"]


def test_a_receiver_that_fails_is_told_of_and_the_next_message_comes() -> None:
    heard = asyncio.run(Heard(fails=True).read(line(b"one") + line(b"two")))
    assert [str(failure) for failure in heard.failures] == ["not today", "not today"]
