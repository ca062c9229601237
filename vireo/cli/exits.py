"""How a command ends: the exit codes, and what is said about an error."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from vireo.cli.words import printable

if TYPE_CHECKING:
    from schemas.problems import Problem
    from vireo.errors import VireoError


LISTS = {"rule": "vireo alert rules"} | {
    noun: f"vireo {noun} list" for noun in ("host", "operation", "policy", "template", "project")
}
"""What has a list of its own, besides VMs."""


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    AUTH = 3
    NOT_FOUND = 4
    CONFLICT = 5
    TIMEOUT = 6
    INTERRUPTED = 130


def code_of(error: VireoError) -> Exit:
    from vireo import errors

    if isinstance(error, errors.OperationFailed):
        return code_of_failure(error.problem)
    for kind, code in (
        (errors.Invalid, Exit.USAGE),
        (errors.Unauthenticated, Exit.AUTH),
        (errors.Forbidden, Exit.AUTH),
        (errors.NotFound, Exit.NOT_FOUND),
        (errors.Conflict, Exit.CONFLICT),
        (errors.TimedOut, Exit.TIMEOUT),
    ):
        if isinstance(error, kind):
            return code
    return Exit.FAILED


def error_text(error: VireoError, *, url: str) -> str:
    """The title, every bad field or host, and what to do next."""
    problem = error.problem
    lines = [f"error: {problem.title}"]
    named = [(item.field, item.detail) for item in problem.errors] + sorted(problem.reasons.items())
    width = max((len(name) for name, _ in named), default=0)
    lines += [f"  {name.ljust(width)}  {detail}" for name, detail in named]
    if problem.detail and not problem.errors:
        lines.insert(1, f"  {problem.detail}")
    hint = hint_of(error, url=url)
    if hint:
        lines.append(f"hint: {hint}")
    if problem.request:
        lines.append(f"request: {problem.request}")
    # What came from the server must not make lines of its own.
    return "\n".join(printable(line) for line in lines)


def hint_of(error: VireoError, *, url: str) -> str:
    from vireo import errors

    match error:
        case errors.OperationFailed() | errors.TimedOut():
            return f"vireo operation show {error.operation.id}"
        case errors.Unauthenticated():
            return (
                f"{url} wants a token: set VIREO_TOKEN, or store one with"
                " 'vireo context set NAME --url URL --token-stdin'"
            )
        case errors.PutAway():
            return "vireo audit archives"
        case errors.NotFound():
            noun = error.problem.title.rsplit(" ", 1)[-1].lower()
            return LISTS.get(noun, "vireo vm list")
        case errors.Conflict():
            return "look at it again with 'show', then repeat what still applies"
        case errors.Invalid():
            return "mend what is named above; --help shows what is understood"
        case errors.Unavailable():
            return (
                f"is the gateway at {url} up? 'vireo up' starts one,"
                " 'vireo context show' tells why it is this address"
            )
    return ""


def code_of_failure(problem: Problem) -> Exit:
    """How a command ends whose operation failed, or would fail, with this."""
    return {
        "urn:vireo:problem:conflict": Exit.CONFLICT,
        "urn:vireo:problem:not-found": Exit.NOT_FOUND,
        "urn:vireo:problem:put-away": Exit.NOT_FOUND,
    }.get(problem.type, Exit.FAILED)
