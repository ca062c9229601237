"""Walking a keyset-paged list to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from msgspec import Struct

from vireo.errors import unreadable
from vireo.transport import Query, Transport

T = TypeVar("T")


class PageOf(Struct, Generic[T], frozen=True, kw_only=True):
    """`schemas.resources.Page` with its items read."""

    items: tuple[T, ...]
    next: str | None = None


async def walk(
    transport: Transport, path: str, page: type[PageOf[T]], query: Query, *, limit: int | None
) -> AsyncIterator[T]:
    """Every item, or the first `limit`; each page is fetched when it is needed."""
    left, after = limit, None
    while left is None or left > 0:
        size = transport.settings.page_size
        asked = [*query, ("limit", str(size if left is None else min(size, left)))]
        if after is not None:
            asked.append(("after", after))
        answer = await transport.read(path, page, query=asked)
        for item in answer.items[:left]:
            yield item
        if answer.next is None:
            return
        if answer.next == after:
            raise unreadable(transport.url, "a list that never ends")
        left = None if left is None else left - len(answer.items)
        after = answer.next
