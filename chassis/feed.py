"""Between a callback that receives and a loop that reads: an iterator that may be cancelled safely."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def _nothing() -> None:
    pass


class Feed(AsyncIterator[T], Generic[T]):
    """An unread backlog. With a `limit` the oldest unread goes when one too many comes.

    Giving up on `__anext__` loses nothing: an item leaves the backlog only when it is returned.
    """

    def __init__(
        self, *, limit: int | None = None, on_taken: Callable[[], None] = _nothing
    ) -> None:
        self._backlog: deque[T] = deque(maxlen=limit)
        self._wake = asyncio.Event()
        self._on_taken = on_taken
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        return len(self._backlog)

    def put(self, item: T) -> None:
        self._backlog.append(item)
        self._wake.set()

    def fail(self, failure: BaseException) -> None:
        """Raise `failure` from now on, once the backlog is read."""
        self._failure = failure
        self._wake.set()

    def unread(self) -> list[T]:
        """Take everything that nobody has read."""
        items = list(self._backlog)
        self._backlog.clear()
        return items

    def __aiter__(self) -> Feed[T]:
        return self

    async def __anext__(self) -> T:
        if not self._backlog:
            await self._filled()
        item = self._backlog.popleft()
        self._on_taken()
        return item

    async def several(self, most: int) -> list[T]:
        """The next item as soon as there is one, and with it what else is there already."""
        if not self._backlog:
            await self._filled()
        count = min(most, len(self._backlog))
        items = [self._backlog.popleft() for _ in range(count)]
        self._on_taken()
        return items

    async def _filled(self) -> None:
        while not self._backlog:
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            await self._wake.wait()


@asynccontextmanager
async def feeding(
    feed: Feed[Any], work: Coroutine[Any, Any, None], *, name: str
) -> AsyncIterator[None]:
    """Run the work that fills a feed, for the time of the context; its failure is the reader's."""

    def on_done(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            feed.fail(failure)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(on_done)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
