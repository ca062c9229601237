"""The arguments that several commands share, and the form of examples in their help."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, TypeVar

import typer

from schemas.ids import is_name
from vireo.cli import completion
from vireo.cli.printing import Output as OutputFormat
from vireo.cli.quantities import moment

T = TypeVar("T")
Given = TypeVar("Given")


def examples(*lines: str) -> str:
    """The end of a command's help: examples, each on a line of its own."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def parsed(option: str, parse: Callable[[Given], T], text: Given) -> T:
    """`text` read by `parse`, or a usage error that names the option."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def moment_of(option: str, text: str | None) -> datetime | None:
    """The time that an option gives, or a usage error."""
    now = datetime.now(UTC)
    return None if text is None else parsed(option, partial(moment, now=now), text)


def as_name(text: str) -> str:
    """`text` where it may name a site or a host. Raises ValueError."""
    if not is_name(text):
        raise ValueError(f"{text!r} is no name: lower-case letters, digits and hyphens, at most 63")
    return text


Output = Annotated[
    OutputFormat,
    typer.Option(
        "-o",
        "--output",
        help="json and yaml are exactly the resource.",
        metavar="table|wide|json|yaml",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for the operation's end, or don't.")
]
Timeout = Annotated[
    str, typer.Option("--timeout", help="How long to wait: 30s, 5m.", metavar="DURATION")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Do nothing; show what would come of it, and why.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")]
Vm = Annotated[
    str, typer.Argument(help="Name or id of the VM.", autocompletion=completion.vms, metavar="VM")
]
Host = Annotated[
    str,
    typer.Argument(help="Name of the host.", autocompletion=completion.hosts, metavar="HOST"),
]
OnlyHost = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="Only those of this host.",
        autocompletion=completion.hosts,
        metavar="HOST",
    ),
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="KEY=VALUE; may be repeated.", metavar="K=V")
]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Show at most so many.", min=1, metavar="N")
]
At = Annotated[
    str | None,
    typer.Option(
        "--at", help="As it was then: 2026-03-01T12:30 (UTC), or 2h ago as 2h.", metavar="TIME"
    ),
]
Forced = Annotated[bool, typer.Option("--force", help="Pull the plug instead of asking the guest.")]
Grace = Annotated[
    str,
    typer.Option("--grace", help="How long the guest may take to shut down.", metavar="DURATION"),
]

WAIT = "5m"
GRACE = "60s"
