"""What changed between two times: values of `vireo diff`. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from schemas.ids import OperationId
from schemas.queries import Cursor, PageSize

ChangedKind = Literal["vm", "host", "policy", "template", "project", "rule"]


class ListChanges(Struct, frozen=True, kw_only=True):
    """Inventory `change.list`: a `Page` of `Changed`, by kind and id."""

    since: datetime
    """As it was then, by the time of storing in the record, …"""
    until: datetime | None = None
    """… against how it was then, or is now."""
    limit: PageSize = 50
    after: Cursor | None = None


class FieldChange(Struct, frozen=True, kw_only=True):
    """A field that is another; None where there is none."""

    field: str
    """`state`, `spec/cpus`"""
    before: Any = None
    after: Any = None


class ChangedBy(Struct, frozen=True, kw_only=True):
    """An operation that had to do with it."""

    operation: OperationId
    command: str
    actor: str
    at: datetime


class Changed(Struct, frozen=True, kw_only=True):
    """One thing that is not as it was."""

    kind: ChangedKind
    id: str
    """A VM's id, or the name of what else it is."""
    name: str
    change: Literal["created", "deleted", "changed", "passing"]
    """`passing`: created and deleted in between."""
    fields: tuple[FieldChange, ...] = ()
    """Of what was there before and is there after."""
    by: tuple[ChangedBy, ...] = ()
    """In order of time. Empty where nobody asked for it: a guest that crashed, a host that fell silent."""
