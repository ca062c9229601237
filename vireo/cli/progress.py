"""What is seen of an operation while a command waits for it: a live line on a terminal, plain lines
elsewhere; always on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vireo.cli.operation_view import step_line
from vireo.cli.printing import note
from vireo.cli.words import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from schemas.resources import Operation, OperationStep
    from vireo.operations import PendingOperation


async def watch(pending: PendingOperation, *, timeout_s: float, quiet: bool) -> Operation:
    """The operation once it has succeeded; its steps are shown as they come."""
    if quiet:
        return await pending.wait(timeout_s)
    if sys.stderr.isatty():
        await _live(pending, timeout_s)
    else:
        async for step in pending.steps(timeout_s):
            note(step_line(step))
    return pending.result()


async def _live(pending: PendingOperation, timeout_s: float) -> None:
    with _bar() as bar:
        task = bar.add_task(pending.latest.phase, total=1.0, step="")
        async for step in pending.steps(timeout_s):
            bar.update(
                task,
                description=pending.latest.phase,
                completed=pending.latest.progress,
                step=_brief(step),
            )
        bar.update(task, description=pending.latest.phase, completed=pending.latest.progress)


def _brief(step: OperationStep) -> str:
    return printable(" ".join(filter(None, (step.event, step.detail))))


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<9}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
