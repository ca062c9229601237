"""Projection: how rows follow from events. Pure; run over the same events it gives the same rows.

`project` takes the rows that one event concerns and gives them as they are afterwards. Events may come
late or in any order: every table says by position, generation or phase what may still change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from schemas import events
from schemas.envelope import Envelope
from schemas.ids import is_uuid7
from services.inventory.columns import in_utc
from services.inventory.host_rows import host_after, new_host
from services.inventory.model import Fact, OperationRow, Rows, Tables
from services.inventory.operation_rows import operation_after
from services.inventory.vm_rows import TELLS_OF_BIRTH, new_vm, vm_after, vm_in_birth


class Concerned(Struct, frozen=True, kw_only=True):
    """Which rows an event concerns, by id."""

    vm: str | None = None
    operation: str | None = None
    host: str | None = None


def fact(envelope: Envelope[Any], position: int) -> Fact:
    return Fact(envelope=envelope, position=position, at=in_utc(envelope.time))


def concerned(envelope: Envelope[Any], operations: Mapping[str, OperationRow]) -> Concerned:
    """What an event is about. An operation's events also concern the VM that is its target."""
    data = envelope.data
    operation = envelope.operation
    if operation is None and isinstance(data, events.OperationEvent):
        operation = _id_in(envelope.subject, "operation")
    return Concerned(
        vm=_vm_of(data, operations.get(operation or "")),
        operation=operation,
        host=_host_of(data),
    )


def _vm_of(data: Any, operation: OperationRow | None) -> str | None:
    if isinstance(data, events.VmEvent):
        return data.vm
    if isinstance(data, events.OperationAccepted):
        return data.target if data.kind == "vm" and is_uuid7(data.target) else None
    if isinstance(data, events.OperationEvent) and operation and operation.kind == "vm":
        return operation.target if is_uuid7(operation.target) else None
    return None


def _host_of(data: Any) -> str | None:
    if isinstance(data, events.HostRegistered):
        return data.facts.host
    if isinstance(data, events.HostConfigured):
        return data.config.host
    if isinstance(data, events.OperationEvent | events.DefinitionEvent):
        return None
    host: str = data.host
    return host


def _id_in(subject: str | None, kind: str) -> str | None:
    """The id in a CloudEvents subject `<kind>/<id>`."""
    said, _, id = (subject or "").partition("/")
    return id if said == kind and is_uuid7(id) else None


def project_all(tables: Tables, facts: Iterable[Fact]) -> Tables:
    """The rows that change when `facts` happen, in order, to `tables`."""
    rows = Tables(
        vms=dict(tables.vms), operations=dict(tables.operations), hosts=dict(tables.hosts)
    )
    changed = Tables(vms={}, operations={}, hosts={})
    for each in facts:
        about = concerned(each.envelope, rows.operations)
        before = Rows(
            vm=rows.vms.get(about.vm or ""),
            operation=rows.operations.get(about.operation or ""),
            host=rows.hosts.get(about.host or ""),
        )
        after = project(before, each, about)
        _keep(after, rows)
        _keep(_differing(before, after), changed)
    return changed


def _differing(before: Rows, after: Rows) -> Rows:
    return Rows(
        vm=after.vm if after.vm is not before.vm else None,
        operation=after.operation if after.operation is not before.operation else None,
        host=after.host if after.host is not before.host else None,
    )


def _keep(after: Rows, tables: Tables) -> None:
    if after.vm is not None:
        tables.vms[after.vm.id] = after.vm
    if after.operation is not None:
        tables.operations[after.operation.id] = after.operation
    if after.host is not None:
        tables.hosts[after.host.name] = after.host


def project(rows: Rows, fact: Fact, about: Concerned) -> Rows:
    """The rows that one event concerns, as they are after it; None for those that it leaves alone."""
    data = fact.envelope.data
    vm = operation = host = None
    if about.operation is not None:
        operation = operation_after(rows.operation, fact, about.operation)
    if isinstance(data, events.VmEvent):
        vm = vm_after(rows.vm or new_vm(fact, data.vm), fact)
    elif rows.vm is not None and isinstance(data, TELLS_OF_BIRTH):
        vm = rows.vm
    if vm is not None and operation is not None:
        vm = vm_in_birth(vm, fact, operation)
    if isinstance(data, events.HostEvent) and about.host is not None:
        host = host_after(rows.host or new_host(fact, about.host), fact)
    return Rows(vm=vm, operation=operation, host=host)
