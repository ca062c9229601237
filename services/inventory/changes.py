"""What differs between two documents of one thing, field by field. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from schemas.changes import FieldChange

UNTOLD = frozenset(
    {
        *("id", "generation", "operation", "placement", "created_at", "updated_at"),
        *("registered_at", "deleted", "name"),
    }
)
"""What changes with every change, or is told otherwise."""

Document = Mapping[str, Any]


def kind_of_change(
    before: Document | None, after: Document | None
) -> Literal["created", "deleted", "changed", "passing"]:
    """None for what was not there."""
    if before is None:
        return "passing" if after is None else "created"
    return "deleted" if after is None else "changed"


def differences(before: Document, after: Document) -> tuple[FieldChange, ...]:
    """The fields that differ, by their paths; a list is one field."""
    was, is_ = dict(_leaves(before)), dict(_leaves(after))
    return tuple(
        FieldChange(field=path, before=was.get(path), after=is_.get(path))
        for path in sorted(was.keys() | is_.keys())
        if was.get(path) != is_.get(path)
    )


def _leaves(document: Document, at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if not at and name in UNTOLD:
            continue
        path = f"{at}{name}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}/")
        else:
            yield path, value
