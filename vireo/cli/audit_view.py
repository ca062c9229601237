"""How the record looks when it is searched: a table of events, what an operation caused as a tree. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.causes import Effect, EffectTree
from schemas.envelope import Header
from vireo.cli import words
from vireo.cli.layout import Table
from vireo.cli.operation_view import data_in_short

MARGIN = 10


def log_table(headers: Sequence[Header], *, wide: bool) -> Table:
    columns: tuple[str, ...] = ("time", "event", "about", "actor", "by", "detail")
    if wide:
        columns += ("operation", "id")
    rows = tuple(_row(each) + (_wide(each) if wide else ()) for each in headers)
    return Table(columns=columns, rows=rows)


def _row(header: Header) -> tuple[str, ...]:
    return (
        words.precisely(header.time),
        header.type.removeprefix("vireo.").rpartition(".")[0],
        header.subject or words.NOTHING,
        header.actor or words.NOTHING,
        header.source.rpartition("/")[2],
        data_in_short(header) or words.NOTHING,
    )


def _wide(header: Header) -> tuple[str, ...]:
    return (header.operation or words.NOTHING, header.id)


def tree_lines(tree: EffectTree, *, wide: bool) -> Iterator[str]:
    """A line for each effect: when it was, and what, under what brought it about."""
    yield f"{'':>{MARGIN}}  {_said(tree.root, wide=wide)}, {words.when(tree.root.at)}"
    yield from _below(tree.root, "", wide=wide)


def _below(effect: Effect, lead: str, *, wide: bool) -> Iterator[str]:
    for number, each in enumerate(effect.effects, start=1):
        last = number == len(effect.effects)
        when = f"+{each.elapsed_ms:.0f} ms"
        yield f"{when:>{MARGIN}}  {lead}{'└─ ' if last else '├─ '}{_said(each, wide=wide)}"
        yield from _below(each, lead + ("   " if last else "│  "), wide=wide)


def _said(effect: Effect, *, wide: bool) -> str:
    parts = [effect.name]
    if effect.what == "operation":
        parts += [effect.about, f"{effect.phase}, by {effect.actor or 'nobody known'}"]
    else:
        parts += [effect.source, effect.detail]
    if effect.operation is not None:
        parts.append(f"(of operation {effect.operation})")
    if effect.cause is not None:
        parts.append(f"(because of {effect.cause})")
    if wide or effect.what == "operation":
        parts.append(effect.id)
    return "  ".join(filter(None, parts))
