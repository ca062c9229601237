"""What can go wrong, as types: every error carries an RFC 9457 problem with all that is known."""

from __future__ import annotations

import http
from collections.abc import Mapping

import msgspec

from schemas.problems import FieldError, Problem, ProblemType
from schemas.resources import Operation


class VireoError(Exception):
    """The request was not carried out. The narrower types below say why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.title}: {problem.detail}" if problem.detail else problem.title)
        self.problem = problem

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """Every bad field of the request."""
        return self.problem.errors


class Unauthenticated(VireoError):
    """No token, or one that the server doesn't know."""


class Forbidden(VireoError):
    """The token is good, but not for this."""


class NotFound(VireoError):
    """There is no such thing."""


class Conflict(VireoError):
    """The request contradicts the present state, or an idempotency key was used for something else."""


class Invalid(VireoError):
    """The request is not valid; `errors` names every bad field."""


class PutAway(NotFound):
    """What is asked for is in files and not in the database any more."""


class Unavailable(VireoError):
    """The server, or a part behind it, did not answer in spite of retries."""

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class InFlight(Unavailable):
    """The same request, by the same key, is still being worked on."""


class TimedOut(VireoError):
    """The wait ended before the operation did. The operation goes on."""

    def __init__(self, operation: Operation, timeout_s: float) -> None:
        super().__init__(
            Problem(
                type="about:blank",
                title="The operation has not ended in time",
                status=504,
                detail=f"Operation {operation.id} is {operation.phase} after {timeout_s:g} s; it goes on.",
            )
        )
        self.operation = operation


class OperationFailed(VireoError):
    """The operation ended without success; `problem` says why, `operation` has its trail."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(operation.problem or _unexplained(operation))
        self.operation = operation


_BY_TYPE: dict[ProblemType, type[VireoError]] = {
    "urn:vireo:problem:idempotency-key-reused": Conflict,
    "urn:vireo:problem:request-in-flight": InFlight,
    "urn:vireo:problem:put-away": PutAway,
}
_BY_STATUS: dict[int, type[VireoError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}

_problem = msgspec.json.Decoder(Problem)


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> VireoError:
    """The error that an HTTP answer of `status` stands for."""
    problem = _read_problem(status, headers, body)
    kind = _BY_TYPE.get(problem.type) or _BY_STATUS.get(status, VireoError)
    if issubclass(kind, Unavailable):
        return kind(problem, retry_after_s=_seconds(headers.get("retry-after", "")))
    return kind(problem)


def unreachable(url: str, why: str) -> Unavailable:
    """No answer came from `url`."""
    return Unavailable(
        Problem(
            type="urn:vireo:problem:unavailable",
            title="The gateway does not answer",
            status=503,
            detail=f"{url}: {why}",
        )
    )


def unreadable(url: str, why: str) -> VireoError:
    """An answer came that is not in the language of this client."""
    return VireoError(
        Problem(
            type="about:blank",
            title="The answer cannot be read",
            status=502,
            detail=f"{url} sent something else than Vireo does: {why}",
        )
    )


def _read_problem(status: int, headers: Mapping[str, str], body: bytes) -> Problem:
    try:
        return _problem.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # A proxy's error page, say: the status is all that can be trusted.
        return Problem(
            type="about:blank",
            title=_phrase(status),
            status=status,
            detail=f"The server answered with status {status}.",
            request=headers.get("x-request-id", ""),
        )


def _unexplained(operation: Operation) -> Problem:
    title = f"The operation was {operation.phase}" if operation.phase == "cancelled" else ""
    return Problem(
        type="about:blank",
        title=title or "The operation failed",
        status=500,
        detail=operation.detail,
    )


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None
