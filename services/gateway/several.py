"""Requests for several VMs: their names, what is wrong with them, what is told of each. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from schemas.commands import CreateVm, CreateVms, told_of
from schemas.copies import creates_of
from schemas.envelope import Envelope
from schemas.events import OperationAccepted
from schemas.ids import derived_id, is_name
from schemas.problems import FieldError
from schemas.subjects import BY_MESSAGE
from schemas.wire import wrap
from services.gateway.model import BatchRequest

NUMBER = "{n}"


def names_of(request: BatchRequest) -> tuple[str, ...]:
    """The names of the VMs: those given, or counted from 1."""
    if request.names:
        return request.names
    pattern = request.pattern or f"{request.spec.name}-{NUMBER}"
    return tuple(
        pattern.replace(NUMBER, str(number)) for number in range(1, (request.count or 0) + 1)
    )


def batch_errors(request: BatchRequest) -> Iterator[FieldError]:
    """What is wrong with a request whose fields are good one by one."""
    if (request.count is None) == (not request.names):
        yield FieldError(field="", detail="expected either count or names")
        return
    if request.pattern is not None and request.names:
        yield FieldError(field="/pattern", detail="not together with names")
    elif request.pattern is not None and NUMBER not in request.pattern:
        yield FieldError(field="/pattern", detail=f"expected {NUMBER} in it, for the number")
    field = "/names" if request.names else "/pattern"
    names = names_of(request)
    for name in names:
        if not is_name(name):
            detail = f"{name!r} is no name: lower-case letters, digits, hyphens, at most 63"
            yield FieldError(field=field, detail=detail)
            return
    for place, name in enumerate(request.names):
        if name in request.names[:place]:
            yield FieldError(field=f"/names/{place}", detail=f"{name} is used twice")


def accepted_members(
    command: Envelope[Any], *, site: str, sender: str
) -> tuple[Envelope[OperationAccepted], ...]:
    """The events that tell of the operations of a command's members, where it has any."""
    if not isinstance(command.data, CreateVms):
        return ()
    return tuple(
        wrap(
            OperationAccepted(
                command=BY_MESSAGE[CreateVm].name,
                kind="vm",
                target=create.data.vm,
                request=msgspec.to_builtins(told_of(create.data)),
            ),
            id=derived_id(create.id, "operation.accepted"),
            site=site,
            sender=sender,
            at=command.time,
            about=f"operation/{create.id}",
            operation=create.id,
            cause=command.id,
            actor=command.actor,
            traceparent=command.traceparent,
        )
        for create in creates_of(command)
    )
