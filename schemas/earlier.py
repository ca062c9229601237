"""Events by their place in the stream that carried them, for those who resume behind its beginning."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

from schemas.ledger import SEQUENCE_BITS

Sequence = Annotated[int, Meta(ge=0, lt=1 << SEQUENCE_BITS)]


class ReadEarlier(Struct, frozen=True, kw_only=True):
    """Inventory `event.earlier`: the stored events whose sequences lie between two, neither included, of
    the stream as it is now. As many of the first as fit into an answer."""

    after: Sequence
    before: Sequence
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


class EarlierEvent(Struct, frozen=True, kw_only=True):
    sequence: Sequence
    event: Raw
    """The envelope."""


class EarlierEvents(Struct, frozen=True, kw_only=True):
    """In the order of the stream. None: nothing of it was stored."""

    items: tuple[EarlierEvent, ...]
