"""Events by the SDK: as a stream that lives on across reconnects, and from the history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from schemas.envelope import Envelope, Header
from schemas.wire import Undecodable, read_header, unwrap
from vireo.errors import Unavailable, unreadable
from vireo.pages import PageOf, walk
from vireo.paths import query_of, time_text
from vireo.sse import Message, Reader, TooLong
from vireo.transport import Query, Transport


class StreamedEvent(Struct, frozen=True, kw_only=True):
    """One event as it came. `header` can always be read; `envelope` needs a type known here."""

    sequence: str
    """Its place in the stream: what `after` takes."""
    name: str
    """`vm.started`, …"""
    header: Header
    raw: bytes
    """The CloudEvent's JSON."""

    def envelope(self) -> Envelope[Any]:
        """With its data as the Struct of `schemas.events`. Raises Undecodable for a newer type."""
        return unwrap(self.raw)


class Events:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def stream(
        self,
        *,
        operation: str | None = None,
        vm: str | None = None,
        host: str | None = None,
        types: Sequence[str] = (),
        after: str | None = None,
    ) -> AsyncGenerator[StreamedEvent]:
        """Events as they happen, without end; those after `after` first, if it is given.

        Goes on after the last one seen when the connection breaks. Raises Unavailable once the server
        has been away for longer than the patience of the settings.
        """
        query = query_of(operation=operation, vm=vm, host=host)
        query += [("type", name) for name in types]
        last, attempt = after, 0
        now = asyncio.get_running_loop().time
        heard = now()
        while True:
            reader = Reader(limit=self._transport.settings.event_bytes)
            try:
                async for message in self._messages(query, last, reader):
                    attempt, heard = 0, now()
                    yield self._event(message)
            except Unavailable:
                if now() - heard > self._transport.settings.patience_s:
                    raise
            last = reader.last_id or last
            attempt += 1
            await self._transport.pause(attempt)

    def list(
        self,
        *,
        operation: str | None = None,
        vm: str | None = None,
        host: str | None = None,
        actor: str | None = None,
        types: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        newest: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[Header]:
        """From the record, in the order of storing, or the newest first. `types` are names like
        `vm.started`, or `vm.*`; `since` and `until` mean the time of storing."""
        query = query_of(operation=operation, vm=vm, host=host, actor=actor)
        query += query_of(since=time_text(since), until=time_text(until))
        query += [("type", name) for name in types]
        query += query_of(newest="true" if newest else None)
        return walk(self._transport, "/v1/events", PageOf[Header], query, limit=limit)

    async def _messages(
        self, query: Query, last: str | None, reader: Reader
    ) -> AsyncIterator[Message]:
        """The messages of one connection, until it ends."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last is not None:
            headers["Last-Event-ID"] = last
        async with self._transport.stream("/v1/events", query=query, headers=headers) as pieces:
            async for piece in pieces:
                try:
                    for message in reader.feed(piece):
                        yield message
                except TooLong as error:
                    raise unreadable(self._transport.url, str(error)) from error

    def _event(self, message: Message) -> StreamedEvent:
        try:
            header = read_header(message.data)
        except Undecodable as error:
            raise unreadable(self._transport.url, str(error)) from error
        return StreamedEvent(
            sequence=message.id, name=message.event, header=header, raw=message.data
        )
