"""A request once it was read: typed query and body, who asks, under which key.

What belongs here: from Litestar's request to `Asked`, naming every bad field. What does not: acting on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast
from urllib.parse import parse_qsl

from litestar import Request
from litestar.types import Scope
from msgspec import Struct

from schemas.ids import is_name
from schemas.problems import FieldError, invalid_request, not_found
from services.gateway import decide
from services.gateway.answers import of_status, refuse
from services.gateway.model import Caller
from services.gateway.validation import Invalid, read_body, read_query, read_yaml

Q = TypeVar("Q", bound=Struct)
B = TypeVar("B", bound=Struct)

CONTEXT = "vireo.context"
"""Where the edge leaves a request's context in the ASGI scope."""
OFTEN_BYTES = 256
"""A longer query is hardly asked for again."""
BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class Context(Struct, frozen=True, kw_only=True):
    """What the edge knows of a request before it is read."""

    request: str
    caller: Caller | None
    extend: Callable[[float | None], None]
    """Give the request so many seconds more than its share; None: as many as it likes."""


class Asked(Struct, Generic[Q, B], frozen=True, kw_only=True):
    """A valid request."""

    method: str
    place: str
    """Its path as it came; `path` is what stands in its places."""
    path: Mapping[str, str]
    query: Q
    body: B
    headers: Mapping[str, str]
    caller: Caller
    extend: Callable[[float | None], None]
    key: str | None

    def fingerprint(self) -> str:
        """Tells it from every other; only writes need it."""
        return decide.fingerprint(self.method, self.place, query=self.query, body=self.body)


def context_of(scope: Scope) -> Context:
    context: Context = cast(dict[str, Any], scope)[CONTEXT]
    return context


async def read(
    request: Request[Any, Any, Any],
    *,
    query: type[Q],
    body: type[B],
    check: Callable[[B], Iterable[FieldError]] | None,
    yaml: bool = False,
) -> Asked[Q, B]:
    """Read a request, whose body may be YAML if `yaml` says so. Raises Refused with every bad field of
    query, headers and body."""
    context = context_of(request.scope)
    raw = await request.body() if has_body(request.scope) else b""
    is_yaml = _is_yaml(request.headers.get("content-type"), raw, taken=yaml)
    asked_for = request.scope["query_string"]
    found_query = (_often if len(asked_for) <= OFTEN_BYTES else _query)(asked_for, query)
    found_body = read_yaml(raw, body) if is_yaml else read_body(raw, body)
    key = request.headers.get("idempotency-key")
    errors = tuple(_errors(found_query, found_body, key, check))
    if errors or isinstance(found_query, Invalid) or isinstance(found_body, Invalid):
        raise refuse(invalid_request(*errors))
    if context.caller is None:
        raise refuse(of_status(401))
    return Asked(
        method=request.method,
        place=request.scope["path"],
        path=request.path_params,
        query=found_query,
        body=found_body,
        headers=request.headers,
        caller=context.caller,
        extend=context.extend,
        key=key,
    )


def has_body(scope: Scope) -> bool:
    """Whether a body comes with it: one that is not announced does not (RFC 9112, 6.3)."""
    return any(name in BODY_HEADERS for name, _ in scope["headers"])


def _query(raw: bytes, wanted: type[Q]) -> Q | Invalid:
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="replace")
    return read_query(pairs, wanted)


_often = lru_cache(maxsize=1024)(_query)
"""What is asked for again and again is read once; all that is made of it are values."""


def name_in_path(kind: str, text: str) -> str:
    """A name or an id from a path. Raises Refused: what cannot be one, does not exist."""
    if not is_name(text):
        raise refuse(not_found(kind, text[:100]))
    return text


def _errors(
    query: Struct | Invalid,
    body: B | Invalid,
    key: str | None,
    check: Callable[[B], Iterable[FieldError]] | None,
) -> Iterator[FieldError]:
    key_error = decide.key_error(key)
    if key_error is not None:
        yield key_error
    if isinstance(query, Invalid):
        yield from query.errors
    if isinstance(body, Invalid):
        yield from body.errors
    elif check is not None:
        yield from check(body)


YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


def _is_yaml(content_type: str | None, raw: bytes, *, taken: bool) -> bool:
    """A body of a kind that is not taken is refused by name, before it is taken for broken JSON."""
    if not raw or content_type is None:
        return False
    kind = content_type.partition(";")[0].strip().lower()
    if taken and kind in YAML:
        return True
    if kind != "application/json" and not kind.endswith("+json"):
        wanted = "application/json or application/yaml" if taken else "application/json"
        raise refuse(of_status(415, f"The body must be {wanted}; it says {kind[:100]!r}."))
    return False
