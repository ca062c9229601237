"""What came of a request: operations and events as a tree, each under what brought it about. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from schemas.ids import MessageId, OperationId


class Effect(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operation or an event, with what came of it in order of time."""

    what: Literal["operation", "event"]
    id: MessageId
    name: str
    """`vm.create` of an operation, `vm.scheduled` of an event."""
    source: str = ""
    """Who said it: a service or a host."""
    at: datetime
    elapsed_ms: float
    """Since the beginning of the whole."""
    about: str = ""
    """`<kind>/<id>`"""
    detail: str = ""
    phase: str = ""
    """How far it is, of an operation."""
    actor: str = ""
    operation: OperationId | None = None
    """The operation that an event belongs to, where that is not the one it stands under."""
    cause: MessageId | None = None
    """What brought it about, where that is not in this tree."""
    effects: tuple[Effect, ...] = ()


class EffectTree(Struct, frozen=True, kw_only=True):
    """All that one operation caused."""

    root: Effect
    operations: int
    events: int
    whole: bool
    """False where there is more than is shown."""
    away: str = ""
    """Which rows are in files and not in the database any more, where its events may be among them."""
