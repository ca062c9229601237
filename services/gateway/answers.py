"""What goes back to the client: answers as values, problems as answers, and both as ASGI.

What belongs here: the form of answers. What they say is decided elsewhere.
"""

from __future__ import annotations

import http

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct

from schemas.problems import Problem, ProblemType
from services.gateway.model import Refusal

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

_STATUS_TYPES: dict[int, ProblemType] = {
    400: "urn:vireo:problem:invalid-request",
    401: "urn:vireo:problem:unauthenticated",
    403: "urn:vireo:problem:forbidden",
    404: "urn:vireo:problem:not-found",
    429: "urn:vireo:problem:too-many-requests",
    500: "urn:vireo:problem:internal",
    503: "urn:vireo:problem:unavailable",
    504: "urn:vireo:problem:deadline-exceeded",
}


class Answer(Struct, frozen=True, kw_only=True):
    """One HTTP answer, whole."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    media_type: str = JSON


class Refused(Exception):
    """Raised at the rim to leave a handler with a refusal; becomes a problem."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.problem.title)
        self.refusal = refusal


def refuse(problem: Problem, *, retry_after_s: int | None = None) -> Refused:
    return Refused(Refusal(problem=problem, retry_after_s=retry_after_s))


def of_refusal(refusal: Refusal, request: str) -> Answer:
    """A refusal as an RFC 9457 answer that names the request."""
    headers: list[tuple[str, str]] = []
    if refusal.retry_after_s is not None:
        headers.append(("retry-after", str(refusal.retry_after_s)))
    if refusal.problem.status == 401:
        headers.append(("www-authenticate", 'Bearer realm="vireo"'))
    return Answer(
        status=refusal.problem.status,
        body=msgspec.json.encode(msgspec.structs.replace(refusal.problem, request=request)),
        headers=tuple(headers),
        media_type=PROBLEM_JSON,
    )


def of_status(status: int, detail: str = "") -> Problem:
    """The problem of a plain HTTP status."""
    return Problem(
        type=_STATUS_TYPES.get(status, "about:blank"),
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=detail,
    )


def internal(request: str) -> Problem:
    """Something unforeseen: the log knows what, the client gets the id to ask about."""
    return of_status(500, f"Something went wrong; the log has it under request {request}.")


def tagged(body: bytes, tag: str, *, known: bool) -> Answer:
    """An answer that its client may keep, if it asks each time whether it is still true: 304 where
    the client knows it already (RFC 9110)."""
    headers = (("etag", f'"{tag}"'), ("cache-control", "private, no-cache"))
    if known:
        return Answer(body=b"", status=304, headers=headers)
    return Answer(body=body, headers=headers)


def rendered(answer: Answer) -> ASGIApp:
    """The answer as an ASGI application."""
    headers = [*answer.headers]
    if answer.status != 304:  # which says nothing of a body that it does not have
        headers += (
            ("content-type", answer.media_type),
            ("content-length", str(len(answer.body))),
        )
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]

    async def send_answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    return send_answer
