"""The `Bus` on a real NATS server: every method in terms of the link and JetStream's wire protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import structlog
from nats.aio.msg import Msg

from chassis.bus import (
    Ack,
    Backlog,
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
from chassis.feed import Feed
from chassis.nats.api import Api
from chassis.nats.follow import followed
from chassis.nats.link import Link
from chassis.nats.messages import incoming, stored
from chassis.nats.pin import Pin
from chassis.nats.publisher import Publisher
from chassis.nats.pull import pulled
from chassis.nats.streams import backlogs, ensure_consumer, ensure_stream, stream_json

log = structlog.get_logger(__name__)


class NatsBus:
    """Made by `chassis.nats.connect`, which keeps its link running."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._api = Api(link)
        self._publisher = Publisher(link)
        self._in_memory: dict[str, StreamConfig] = {}

    @property
    def connected(self) -> bool:
        return self._link.connected

    def learn(self, config: StreamConfig) -> None:
        """Take note of a stream that somebody else makes, so that publishing to it is batched."""
        known = stream_json(config)
        self._publisher.learn(
            stream=config.name, subjects=tuple(known["subjects"]), atomic=config.allow_atomic
        )

    async def publish(self, message: Outgoing) -> Ack:
        return await self._publisher.publish(message)

    async def publish_together(self, messages: Sequence[Outgoing]) -> Ack:
        return await self._publisher.publish_together(messages)

    async def send(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        with suppress(Unavailable):
            await self._link.publish(subject, data, headers)

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> Incoming:
        return incoming(await self._link.call(subject, data, headers, timeout_s=timeout_s))

    @asynccontextmanager
    async def listen(
        self, subject: str, *, queue: str = "", limit: int = 1000
    ) -> AsyncIterator[AsyncIterator[Incoming]]:
        feed: Feed[Incoming] = Feed(limit=limit)

        def receive(message: Msg) -> None:
            feed.put(incoming(message))

        async with self._link.subscribed(subject, receive, queue=queue):
            yield feed

    def follow(
        self, stream: str, subjects: Sequence[str], *, start: Start
    ) -> AbstractAsyncContextManager[AsyncIterator[Incoming | CaughtUp]]:
        return followed(self._link, stream, subjects, start)

    def pull(
        self, stream: str, consumer: str, *, batch: int, single_active: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        pin = Pin() if single_active else None
        return pulled(self._link, stream=stream, consumer=consumer, batch=batch, pin=pin)

    async def last(self, stream: str, subject: str) -> Incoming | None:
        try:
            answer = await self._api.last_message(stream, subject)
        except NotFound:
            # Nothing there, or no such stream, which is the caller's error and raises.
            await self._api.stream_info(stream)
            return None
        return stored(stream, answer["message"])

    async def first_from(self, stream: str, sequence: int) -> Incoming | None:
        try:
            answer = await self._api.message_from(stream, sequence)
        except NotFound:
            # Nothing there, or no such stream, which is the caller's error and raises.
            await self._api.stream_info(stream)
            return None
        return stored(stream, answer["message"])

    async def last_sequence(self, stream: str) -> int:
        state = (await self._api.stream_info(stream))["state"]
        return int(state["last_seq"])

    async def backlogs(self, stream: str) -> Sequence[Backlog]:
        return await backlogs(self._api, stream)

    async def ensure_stream(self, config: StreamConfig) -> None:
        await ensure_stream(self._api, config)
        self.learn(config)
        if config.storage == "memory":
            self._in_memory[config.name] = config

    async def ensure_consumer(self, config: ConsumerConfig) -> None:
        await ensure_consumer(self._api, config, takeover_s=self._link.settings.takeover_s)

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        with suppress(NotFound):
            await self._api.delete_consumer(stream, consumer)

    async def purge(self, stream: str, subject: str) -> None:
        await self._api.purge_stream(stream, subject)

    async def run(self) -> None:
        """Make streams in memory anew after each reconnection. Ends by cancellation.

        A server that was restarted has forgotten not only their messages but themselves.
        """
        connected = asyncio.Event()
        with self._link.whenever_up(connected.set):
            while True:
                await connected.wait()
                connected.clear()
                for config in list(self._in_memory.values()):
                    try:
                        await ensure_stream(self._api, config)
                    except BusError as error:
                        log.warning("stream_not_restored", stream=config.name, error=str(error))

    async def close(self) -> None:
        await self._publisher.close()
