"""Blocking calls off the event loop, in a bounded number of threads of their own.

What belongs here: handing calls over and results back, at as little cost as can be: what several threads
finish together wakes the loop once. The threads are daemons: a call that hangs holds neither the others
nor the end of the process.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

T = TypeVar("T")


class _Job(Struct, frozen=True, eq=False):
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class _Result(Struct, frozen=True, eq=False):
    answer: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class Threads:
    """At most `count` threads, made as they are needed; one event loop's."""

    def __init__(self, count: int, *, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._results: deque[_Result] = deque()
        self._woken = False
        self._made = 0
        self.in_hand = 0
        """Calls that have not come back, those included that nobody waits for any more."""

    async def run(self, work: Callable[[], T]) -> T:
        """The call's result, or what it raises. A call that has begun goes on even if nobody waits for
        it any more; one that has not is left out."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self.in_hand += 1
        if self._made < min(self._count, self.in_hand):
            self._make_one()
        self._jobs.put(_Job(work, loop, answer))
        return await answer

    def close(self) -> None:
        """Let the threads end after what was handed in."""
        for _ in range(self._made):
            self._jobs.put(None)
        self._made = 0

    def _make_one(self) -> None:
        name = f"{self._name}-{self._made}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()
        self._made += 1

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._results.append(_done(job))
            if not self._woken and not job.loop.is_closed():
                self._woken = True
                job.loop.call_soon_threadsafe(self._hand_over)
            del job  # nor what it holds: this thread may wait for long

    def _hand_over(self) -> None:
        """In the loop: give everything that is there to those who wait."""
        self._woken = False
        while self._results:
            result = self._results.popleft()
            self.in_hand -= 1
            if result.answer.done():
                continue
            if result.error is None:
                result.answer.set_result(result.value)
            else:
                result.answer.set_exception(result.error)


def _done(job: _Job) -> _Result:
    if job.answer.done():
        return _Result(job.answer)
    try:
        return _Result(job.answer, job.work())
    except Exception as error:  # noqa: BLE001  whatever it is belongs to the one who waits
        return _Result(job.answer, error=error)
