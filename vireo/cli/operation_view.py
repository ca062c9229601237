"""How operations and events look: rows, the page of an operation with its trail, lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from schemas.envelope import Header
from schemas.resources import ENDED, Operation, OperationStep
from vireo.cli import words
from vireo.cli.layout import Page, Section, Table
from vireo.cli.vm_view import placement_sections


def operation_table(operations: Sequence[Operation], *, wide: bool, now: datetime) -> Table:
    columns: tuple[str, ...] = ("id", "command", "target", "phase", "host", "age")
    if wide:
        columns += ("by", "took", "detail")
    rows = tuple(_row(op, now) + (_wide(op) if wide else ()) for op in operations)
    return Table(columns=columns, rows=rows)


def operation_page(operation: Operation, *, now: datetime) -> Page:
    sections = [_what(operation, now)]
    if operation.problem is not None:
        sections.append(_problem(operation))
    sections.append(Section(title="Trail", table=trail_table(operation.trail)))
    if operation.placement is not None:
        sections += placement_sections(operation.placement)
    return Page(title=f"{operation.command}: {operation.phase}", sections=tuple(sections))


def trail_table(trail: Sequence[OperationStep]) -> Table:
    """Each step with the time since the start, and since the step before."""
    before = [0.0, *(step.elapsed_ms for step in trail)]
    return Table(
        columns=("time", "since start", "step", "event", "by", "detail"),
        rows=tuple(
            (
                words.clock(step.at),
                f"{step.elapsed_ms:.0f} ms",
                f"{step.elapsed_ms - earlier:+.0f} ms",
                step.event,
                step.source.rsplit("/", 1)[-1],
                step.detail,
            )
            for step, earlier in zip(trail, before, strict=False)
        ),
    )


def step_line(step: OperationStep) -> str:
    """A step as a line of a log: `+  312 ms  vm.started  h1`."""
    by = step.source.rsplit("/", 1)[-1]
    return "  ".join(filter(None, (f"+{step.elapsed_ms:6.0f} ms", step.event, by, step.detail)))


def event_line(name: str, header: Header) -> str:
    """An event as a line: when, which, by whom, about what, and its data in short."""
    by = header.source.rsplit("/", 1)[-1]
    about = header.subject or words.NOTHING
    line = f"{words.clock(header.time)}  {name:<20}  {by:<9}  {about}  {data_in_short(header)}"
    return line.rstrip()


def data_in_short(header: Header) -> str:
    """The data's plain values but for what the line says already; `--json` shows all."""
    data = msgspec.json.decode(header.data)
    if not isinstance(data, dict):
        return ""
    problem = data.get("problem")
    if isinstance(problem, dict):
        return words.shortened(str(problem.get("detail") or problem.get("title") or ""))
    said = (header.subject or "", header.source.rsplit("/", 1)[-1])
    told = [
        f"{name}={value}"
        for name, value in _facts_of(data).items()
        if isinstance(value, str | int | float)
        and value != ""
        and str(value) not in said[1:]
        and not said[0].endswith(f"/{value}")
    ]
    return words.shortened(" ".join(told))


def _facts_of(data: dict[str, Any]) -> dict[str, Any]:
    """An event about an alert holds it whole: what tells is the rule, of what, and its value."""
    alert = data.get("alert")
    if isinstance(alert, dict):
        value = alert.get("value")
        return {"rule": alert.get("rule"), **alert.get("labels", {}), "value": value}
    silence = data.get("silence")
    return silence if isinstance(silence, dict) else data


def took(operation: Operation) -> str:
    return words.duration((operation.updated_at - operation.created_at).total_seconds())


def _row(operation: Operation, now: datetime) -> tuple[str, ...]:
    return (
        operation.id,
        operation.command,
        operation.name or operation.target,
        operation.phase,
        operation.host or words.NOTHING,
        words.age(operation.created_at, now),
    )


def _wide(operation: Operation) -> tuple[str, ...]:
    said = operation.problem.title if operation.problem else operation.detail
    return (operation.actor, took(operation), said or words.NOTHING)


def _what(operation: Operation, now: datetime) -> Section:
    begun = f"{words.when(operation.created_at)} ({words.age(operation.created_at, now)} ago)"
    facts = (
        ("id", operation.id),
        ("command", operation.command),
        ("target", " ".join(filter(None, (operation.kind, operation.name, operation.target)))),
        ("phase", operation.phase),
        ("host", operation.host or words.NOTHING),
        ("by", operation.actor),
        ("accepted", begun),
        ("took" if operation.phase in ENDED else "so far", took(operation)),
    )
    return Section(title="Operation", facts=facts)


def _problem(operation: Operation) -> Section:
    problem = operation.problem
    if problem is None:
        return Section(title="Problem")
    facts = [("title", problem.title), ("detail", problem.detail)]
    facts += [(item.field, item.detail) for item in problem.errors]
    facts += [(f"host {host}", why) for host, why in sorted(problem.reasons.items())]
    return Section(title="Problem", facts=tuple((name, text) for name, text in facts if text))
