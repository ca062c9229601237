"""Answers that are kept, and given again for as long as whoever made them says that they are still true.

Nothing stale is ever given: each time its maker is asked, who knows the answer's tag. Those who ask the
same while one question is on its way share the next one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from msgspec import Struct

from chassis.service import Tagged


class Question(Struct, frozen=True):
    """All that an answer depends on."""

    endpoint: str
    query: bytes


class Known(Struct, frozen=True):
    """An answer, whole, under its tag; the tag is empty where there is none."""

    tag: str
    body: bytes


Ask = Callable[[str | None], Awaitable[Tagged]]
"""Asks, naming the tag of the answer that is known."""


class Shelf:
    """Answers by their questions: at most so many and so many bytes, the longest unused go first."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self.bytes = 0
        self._most = most
        self._most_bytes = most_bytes
        self._known: OrderedDict[Question, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, question: Question) -> Known | None:
        known = self._known.get(question)
        if known is not None:
            self._known.move_to_end(question)
        return known

    def put(self, question: Question, answer: Known) -> None:
        self._drop(question)
        if not answer.tag or _size(question, answer) > self._most_bytes:
            return
        self._known[question] = answer
        self.bytes += _size(question, answer)
        while len(self._known) > self._most or self.bytes > self._most_bytes:
            self._drop(next(iter(self._known)))

    def _drop(self, question: Question) -> None:
        known = self._known.pop(question, None)
        if known is not None:
            self.bytes -= _size(question, known)


def _size(question: Question, answer: Known) -> int:
    return len(question.query) + len(answer.body)


class KeptAnswers:
    """Asks, and keeps what it was answered."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self.shelf = Shelf(most=most, most_bytes=most_bytes)
        self._asking: dict[Question, asyncio.Task[Known]] = {}
        self._next: dict[Question, asyncio.Task[Known]] = {}

    async def answer(self, question: Question, ask: Ask) -> Known:
        """What is true at some moment after the call began. Raises what asking raises."""
        asking = self._next.get(question)
        if asking is None:
            before = self._asking.get(question)
            asking = asyncio.create_task(
                self._answer(question, ask, before), name=question.endpoint
            )
            self._next[question] = asking
            # Seen, even if all who asked have gone.
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        # One who goes away leaves the others their answer.
        return await asyncio.shield(asking)

    async def _answer(
        self, question: Question, ask: Ask, before: asyncio.Task[Known] | None
    ) -> Known:
        if before is not None:
            await asyncio.wait([before])
        task = self._asking[question] = self._next.pop(question)
        try:
            return await self._asked(question, ask)
        finally:
            if self._asking.get(question) is task:
                del self._asking[question]

    async def _asked(self, question: Question, ask: Ask) -> Known:
        known = self.shelf.get(question)
        found = await ask(known.tag if known is not None else None)
        if known is not None and found.body is None:
            return known
        new = Known(tag=found.tag, body=found.body or b"")
        self.shelf.put(question, new)
        return new
