"""Keyset cursors: where a page ended, as opaque text. Pure.

A cursor says which list it belongs to, so that one list's cursor is an error in another.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TypeVar

import msgspec

from schemas.ids import is_name, is_uuid7
from schemas.problems import FieldError, Problem, invalid_request
from services.inventory.model import MAX_POSITION

K = TypeVar("K", str, int)


def cursor(list_name: str, key: str | int) -> str:
    """The cursor after the item with `key`."""
    raw = msgspec.json.encode([list_name, key])
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_in(
    text: str, list_name: str, kind: type[K], *, plausible: Callable[[K], bool] | None = None
) -> K | Problem:
    """The key in a cursor of a list, or what is wrong."""
    fits = plausible or _plausible
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        said, key = msgspec.json.decode(raw, type=tuple[str, kind])  # type: ignore[valid-type]
    except (binascii.Error, ValueError):
        return _bad("is not a cursor of this list")
    if said != list_name or not fits(key):
        return _bad("is not a cursor of this list")
    return key


def is_kind_and_id(key: str) -> bool:
    """`vm/<id>`, `host/<name>`"""
    kind, _, id = key.partition("/")
    return is_name(kind) and _plausible(id)


def _plausible(key: str | int) -> bool:
    if isinstance(key, int):
        return 0 <= key <= MAX_POSITION
    return is_uuid7(key) or is_name(key)


def _bad(detail: str) -> Problem:
    return invalid_request(FieldError(field="query/after", detail=detail))
