"""From names to places in a URL, and from filters to query parameters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from schemas.ids import is_name
from schemas.problems import not_found
from vireo.errors import NotFound
from vireo.transport import Query


def checked_ref(kind: str, ref: str) -> str:
    """`ref` if it may be an id or a name, which may stand in a path as they are. Raises NotFound."""
    if not is_name(ref):
        raise NotFound(not_found(kind, ref))
    return ref


def query_of(**given: str | float | None) -> Query:
    """The parameters that are not None."""
    return [(name, _text(value)) for name, value in given.items() if value is not None]


def labels_query(labels: Mapping[str, str] | None) -> Query:
    return [("label", f"{key}={value}") for key, value in (labels or {}).items()]


def time_text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
