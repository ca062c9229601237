"""The tree of what an operation caused, from its events and those of the operations it led to. Pure.

An event stands under what its `cause` names: an event, or an operation, whose id is its command's. Where
that is not among what is known, it stands under its own operation and says the cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from schemas import events
from schemas.causes import Effect, EffectTree
from schemas.envelope import Envelope
from schemas.subjects import BY_TYPE
from services.inventory.columns import in_utc
from services.inventory.trail import detail_of


class OperationFacts(Struct, frozen=True, kw_only=True):
    """As much of an operation's row as stands in a tree."""

    id: str
    command: str
    kind: str
    target: str
    phase: str
    actor: str
    created_at: datetime


def led_to(envelopes: Iterable[Envelope[Any]]) -> list[str]:
    """The operations that were accepted among these events."""
    accepted = (each for each in envelopes if type(each.data) is events.OperationAccepted)
    return sorted({each.operation for each in accepted if each.operation is not None})


def tree(
    root: str,
    operations: Mapping[str, OperationFacts],
    envelopes: Sequence[Envelope[Any]],
    *,
    whole: bool,
    away: str = "",
) -> EffectTree:
    """`envelopes` in the order of storing; `operations` holds `root` and those it led to; `away`: which
    rows cannot be among them."""
    return EffectTree(
        root=_Growth(root, operations, envelopes).operation(root),
        operations=len(operations),
        events=len(envelopes),
        whole=whole,
        away=away,
    )


class _Growth:
    """What is known while a tree is put together. Every id is placed once: causes may form no ring."""

    def __init__(
        self, root: str, operations: Mapping[str, OperationFacts], said: Sequence[Envelope[Any]]
    ) -> None:
        self._operations = operations
        self._since = operations[root].created_at
        known = operations.keys() | {each.id for each in said}
        self._acceptances = {
            each.operation: each
            for each in said
            if type(each.data) is events.OperationAccepted and each.operation is not None
        }
        self._operations_under: dict[str, list[str]] = {}
        for id in operations.keys() - {root}:
            accepted = self._acceptances.get(id)
            above = accepted.cause if accepted is not None else None
            self._operations_under.setdefault(above if above in known else root, []).append(id)
        self._events_under: dict[str, list[Envelope[Any]]] = {}
        self._stray: set[str] = set()
        for each in said:
            self._events_under.setdefault(self._above(each, known, root), []).append(each)
        self._placed: set[str] = set()

    def _above(self, said: Envelope[Any], known: set[str], root: str) -> str:
        own = said.operation if said.operation in self._operations else root
        if type(said.data) is events.OperationAccepted:
            return own or root
        if said.cause in known and said.cause != said.id:
            return said.cause or root
        if said.cause is not None:
            self._stray.add(said.id)
        return own or root

    def operation(self, id: str) -> Effect:
        facts = self._operations[id]
        accepted = self._acceptances.get(id)
        above = accepted.cause if accepted is not None else None
        return Effect(
            what="operation",
            id=id,
            name=facts.command,
            at=facts.created_at,
            elapsed_ms=self._elapsed_ms(facts.created_at),
            about=f"{facts.kind}/{facts.target}",
            phase=facts.phase,
            actor=facts.actor,
            cause=above if above != id and above not in self._placed else None,
            effects=self._effects(id, id),
        )

    def _event(self, said: Envelope[Any], under: str) -> Effect:
        at = in_utc(said.time)
        return Effect(
            what="event",
            id=said.id,
            name=BY_TYPE[said.type].name,
            source=said.source.rsplit("/", 1)[-1],
            at=at,
            elapsed_ms=self._elapsed_ms(at),
            about=said.subject or "",
            detail=detail_of(said.data),
            operation=said.operation if said.operation != under else None,
            cause=said.cause if said.id in self._stray else None,
            effects=self._effects(said.id, under),
        )

    def _effects(self, id: str, under: str) -> tuple[Effect, ...]:
        """In order of time; what is of one time, as it was stored."""
        self._placed.add(id)
        found = [
            self._event(each, under)
            for each in self._events_under.get(id, ())
            if each.id not in self._placed
        ]
        found += [
            self.operation(each)
            for each in self._operations_under.get(id, ())
            if each not in self._placed
        ]
        return tuple(sorted(found, key=lambda each: each.at))

    def _elapsed_ms(self, at: datetime) -> float:
        return max(0.0, round((in_utc(at) - self._since).total_seconds() * 1000, 3))
