"""How the record looks when it is searched: events, effects as a tree, differences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from schemas.causes import Effect, EffectTree
from schemas.changes import Changed
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


def diff_table(changes: Sequence[Changed], *, wide: bool) -> Table:
    """A line for each field that is another, and one for what came or went."""
    columns: tuple[str, ...] = ("kind", "name", "change", "before", "after", "command", "actor")
    if wide:
        columns += ("operation", "at")
    rows = [row for each in changes for row in _diff_rows(each, wide=wide)]
    return Table(columns=columns, rows=tuple(rows))


def _diff_rows(changed: Changed, *, wide: bool) -> Iterator[tuple[str, ...]]:
    said = [(each.field, _value(each.before), _value(each.after)) for each in changed.fields]
    if changed.change != "changed":
        said = [(changed.change, words.NOTHING, words.NOTHING)]
    commands = words.listed(tuple(each.command for each in changed.by))
    actors = words.listed(tuple(dict.fromkeys(each.actor for each in changed.by)))
    by: tuple[str, ...] = (commands, actors)
    if wide:
        by += (
            words.listed(tuple(each.operation for each in changed.by)),
            words.listed(tuple(words.when(each.at) for each in changed.by)),
        )
    for change in said:
        yield (changed.kind, changed.name, *change, *by)


def _value(value: object) -> str:
    if value is None or value == "":
        return words.NOTHING
    return value if isinstance(value, str) else words.shortened(_json(value), 60)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


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
