"""Pages of the inventory's lists that have a tag: kept while they are true, and as long as they are asked
for, of as many answers as that takes, since an answer has to fit a message of the bus.
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from chassis.service import Tagged
from schemas.queries import ListHosts, ListVms
from services.gateway import decide
from services.gateway.answers import Answer, tagged
from services.gateway.asked import Asked
from services.gateway.desk import Desk
from services.gateway.kept import Question
from services.gateway.model import Nothing

Q = TypeVar("Q", ListVms, ListHosts)


class _Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A `Page`, its items unread."""

    items: list[Raw]
    next: str | None = None


_part = msgspec.json.Decoder(_Part)


async def listed(desk: Desk, asked: Asked[Q, Nothing], endpoint: str) -> Answer:
    """A page, or 304 to one who knows it. It depends on nothing but the query."""
    question = Question(endpoint, msgspec.json.encode(asked.query))
    found = await desk.kept.answer(question, partial(_page, desk, endpoint, asked.query))
    if not found.tag:
        return Answer(body=found.body)
    known = decide.is_known(found.tag, asked.headers.get("if-none-match"))
    return tagged(found.body, found.tag, known=known)


async def _page(desk: Desk, endpoint: str, query: Q, known: str | None) -> Tagged:
    first = await desk.ask_again("inventory", endpoint, query, known=known)
    if first.body is None or not first.tag:
        return first
    page = _part.decode(first.body)
    if page.next is None or len(page.items) >= query.limit:
        return first
    return Tagged(
        tag=first.tag,
        body=await _longer(desk, endpoint, query, page, tag=first.tag, size=len(first.body)),
    )


async def _longer(
    desk: Desk, endpoint: str, query: Q, page: _Part, *, tag: str, size: int
) -> bytes:
    """A page that was cut, with more of what belongs to it, all under one tag: it ends early where
    something changes meanwhile, or where it is large enough."""
    most = desk.settings.limits.page_bytes
    while page.next is not None and len(page.items) < query.limit and size < most:
        rest = replace(query, after=page.next, limit=query.limit - len(page.items))
        found = await desk.ask_again("inventory", endpoint, rest, known=None)
        if found.body is None or found.tag != tag:
            break
        more: _Part = _part.decode(found.body)
        if not more.items:
            break
        page = _Part(items=[*page.items, *more.items], next=more.next)
        size += len(found.body)
    return msgspec.json.encode(page)
