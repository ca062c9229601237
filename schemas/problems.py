"""Problems: refusals and failures as values, in the form of RFC 9457.

`type` is one of the stable names below and never changes its meaning; new ones are appended. The
gateway turns a problem into an HTTP answer, rpc endpoints carry it as the body of a micro error, a
failed operation keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

ProblemType = Literal[
    "about:blank",
    "urn:vireo:problem:invalid-request",
    "urn:vireo:problem:unauthenticated",
    "urn:vireo:problem:forbidden",
    "urn:vireo:problem:not-found",
    "urn:vireo:problem:conflict",
    "urn:vireo:problem:idempotency-key-reused",
    "urn:vireo:problem:request-in-flight",
    "urn:vireo:problem:unplaceable",
    "urn:vireo:problem:host-refused",
    "urn:vireo:problem:guest-failed",
    "urn:vireo:problem:deadline-exceeded",
    "urn:vireo:problem:too-many-requests",
    "urn:vireo:problem:unavailable",
    "urn:vireo:problem:internal",
    "urn:vireo:problem:unknown-name",
    "urn:vireo:problem:quota-exceeded",
    "urn:vireo:problem:put-away",
]


class FieldError(Struct, frozen=True, kw_only=True):
    """One bad field: a JSON Pointer (RFC 6901) into the request, `query/<name>` or `header/<name>`,
    and what is wrong with it."""

    field: str
    detail: str


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An RFC 9457 problem with three members of its own: request, errors, reasons."""

    type: ProblemType
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    request: str = ""
    """The id of the request, to be found in logs and traces."""
    errors: tuple[FieldError, ...] = ()
    """Every bad field of the request."""
    reasons: dict[str, str] = {}
    """Why each host was excluded, by host."""


def not_found(kind: str, name: str) -> Problem:
    return Problem(
        type="urn:vireo:problem:not-found",
        title=f"No such {kind}",
        status=404,
        detail=f"There is no {kind} {name!r}.",
    )


def conflict(detail: str) -> Problem:
    return Problem(
        type="urn:vireo:problem:conflict",
        title="The request conflicts with the present state",
        status=409,
        detail=detail,
    )


def invalid_request(*errors: FieldError) -> Problem:
    return Problem(
        type="urn:vireo:problem:invalid-request",
        title="The request is not valid",
        status=400,
        detail="; ".join(f"{error.field}: {error.detail}" for error in errors),
        errors=errors,
    )


def unknown_names(names: Mapping[str, str]) -> Problem:
    """Fields of a request that name a policy, template or project that there is not, by JSON Pointer."""
    errors = tuple(
        FieldError(field=field, detail=f"there is no {field.rsplit('/', 1)[-1]} {name!r}")
        for field, name in names.items()
    )
    return Problem(
        type="urn:vireo:problem:unknown-name",
        title="The request names what does not exist",
        status=422,
        detail="; ".join(f"{error.field}: {error.detail}" for error in errors),
        errors=errors,
    )


def quota_exceeded(project: str, over: Sequence[str]) -> Problem:
    """`over` says of each quota that would be broken: what is allowed, taken, and asked for."""
    return Problem(
        type="urn:vireo:problem:quota-exceeded",
        title="The project's quota does not allow it",
        status=409,
        detail=f"Project {project!r} may not have so much: {'; '.join(over)}.",
    )


def put_away(detail: str) -> Problem:
    return Problem(
        type="urn:vireo:problem:put-away",
        title="These events are not in the database any more",
        status=410,
        detail=detail,
    )


def unavailable(detail: str) -> Problem:
    return Problem(
        type="urn:vireo:problem:unavailable",
        title="A part of the system does not answer now",
        status=503,
        detail=detail,
    )
