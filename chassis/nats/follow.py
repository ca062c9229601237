"""Reading a stream in order without acknowledging: a chain of short-lived ordered consumers.

A gap, a silent server, a deleted consumer, a new connection: each ends one consumer, and the next one
begins after the last message that was delivered. A stream that was emptied meanwhile (a bucket in
memory whose server restarted) is noticed, and read from its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct
from nats.aio.msg import Msg
from nats.nuid import NUID

from chassis.bus import CaughtUp, Incoming, NotFound, Start, Unavailable
from chassis.feed import Feed, feeding
from chassis.nats.api import Api
from chassis.nats.fetch import Ended, Fetcher
from chassis.nats.link import Link
from chassis.nats.messages import Place, incoming, parse_time, place_of

log = structlog.get_logger(__name__)

NANOSECONDS = 1_000_000_000
INACTIVE_S = 30


class StreamState(Struct, frozen=True, kw_only=True):
    """What of a stream's state says whether it is the one that was read before."""

    first_sequence: int
    last_sequence: int
    first_at: datetime
    last_at: datetime


class Position(Struct, frozen=True, kw_only=True):
    """The last message that was delivered."""

    sequence: int
    at: datetime


def was_emptied(state: StreamState, read: Position) -> bool:
    """Whether the stream lost what we read and counts anew.

    In an untouched stream nothing at or below our sequence is newer than our message.
    """
    if state.last_sequence < read.sequence:
        return True
    return 0 < state.first_sequence <= read.sequence and state.first_at > read.at


def beginning(start: Start, read: Position | None, state: StreamState) -> dict[str, Any]:
    """The deliver policy of the next consumer."""
    if read is not None and not was_emptied(state, read):
        return _from(read.sequence + 1)
    if start.at == "last_per_subject":
        return {"deliver_policy": "last_per_subject"}
    if read is None and start.at == "sequence":
        return _from(max(start.sequence, 1))
    if read is None and start.at == "new":
        return _from(state.last_sequence + 1)
    return {"deliver_policy": "all"}


def _from(sequence: int) -> dict[str, Any]:
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}


class Follower:
    def __init__(self, link: Link, stream: str, subjects: Sequence[str], start: Start) -> None:
        self._link = link
        self._api = Api(link)
        self._stream = stream
        self._subjects = subjects
        self._start = start
        self._read: Position | None = None
        self._caught_up = False
        self._to_catch_up = 0
        self._expected = 1
        self._fetcher: Fetcher | None = None
        self.feed: Feed[Incoming | CaughtUp] = Feed(on_taken=self._on_taken)

    async def run(self) -> None:
        """Follow, one consumer after the other. Ends by cancellation."""
        waiting = False
        while True:
            await self._link.up()
            try:
                await self._live()
            except (Ended, NotFound, Unavailable) as end:
                if isinstance(end, NotFound) and not waiting:
                    log.info("waiting_for_stream", stream=self._stream)
                waiting = isinstance(end, NotFound)
                if not (isinstance(end, Ended) and end.renewed):
                    await asyncio.sleep(self._link.settings.absent_retry_s)

    async def _live(self) -> None:
        name = f"follow_{NUID().next().decode()}"
        fetcher = Fetcher(self._link, stream=self._stream, consumer=name, receive=self._receive)
        async with fetcher.open():
            await self._create(name)
            self._fetcher = fetcher
            try:
                while True:
                    room = self._link.settings.follow_buffer - len(self.feed) - fetcher.asked
                    if room >= self._link.settings.follow_buffer // 2:
                        await fetcher.request(room)
                    await fetcher.wait()
            finally:
                self._fetcher = None
                await self._forget(name)

    async def _create(self, name: str) -> None:
        state = await self._state()
        if self._read is not None and was_emptied(state, self._read):
            log.warning("stream_was_emptied", stream=self._stream, read=self._read.sequence)
        deliver = beginning(self._start, self._read, state)
        if self._read is None and self._start.at == "new":
            # From here on a new consumer goes on where this one was to begin.
            self._read = Position(sequence=state.last_sequence, at=state.last_at)
        created = await self._api.create_consumer(
            self._stream,
            name,
            {
                **deliver,
                "name": name,
                "description": "An ordered reader of this stream",
                "filter_subjects": list(self._subjects) or [">"],
                "ack_policy": "none",
                "max_deliver": 1,
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": INACTIVE_S * NANOSECONDS,
            },
        )
        self._expected = 1
        self._to_catch_up = created["num_pending"]
        self._note_caught_up(self._to_catch_up)

    async def _state(self) -> StreamState:
        state = (await self._api.stream_info(self._stream))["state"]
        return StreamState(
            first_sequence=state["first_seq"],
            last_sequence=state["last_seq"],
            first_at=parse_time(state["first_ts"]),
            last_at=parse_time(state["last_ts"]),
        )

    def _receive(self, message: Msg) -> None:
        place = place_of(message.reply)
        if place is None or self._fetcher is None:
            return
        if place.consumer_sequence != self._expected:
            self._fetcher.end("a message is missing")
            return
        self._expected += 1
        self._deliver(incoming(message), place)

    def _deliver(self, message: Incoming, place: Place) -> None:
        assert message.published_at is not None
        self._read = Position(sequence=message.sequence, at=message.published_at)
        self.feed.put(message)
        left = self._to_catch_up - place.consumer_sequence
        self._note_caught_up(min(left, place.pending))

    def _note_caught_up(self, left: int) -> None:
        if left <= 0 and not self._caught_up:
            self._caught_up = True
            self.feed.put(CaughtUp())

    def _on_taken(self) -> None:
        if self._fetcher is not None:
            self._fetcher.nudge()

    async def _forget(self, name: str) -> None:
        """Delete the consumer; if that fails the server does so after `INACTIVE_S`."""
        if self._link.connected:
            await self._link.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}", b"")


@asynccontextmanager
async def followed(
    link: Link, stream: str, subjects: Sequence[str], start: Start
) -> AsyncIterator[AsyncIterator[Incoming | CaughtUp]]:
    """The messages, for the time of the context."""
    follower = Follower(link, stream, subjects, start)
    async with feeding(follower.feed, follower.run(), name=f"follow {stream}"):
        yield follower.feed
