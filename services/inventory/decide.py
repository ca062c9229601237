"""Projection: how rows follow from events. Pure; run over the same events it gives the same rows.

`project` takes the rows that one event concerns and gives them as they are afterwards. Events may come
late or in any order: every table says by position, generation or phase what may still change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

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


# What an event is, by its type: asked of every event several times, where isinstance takes its time.
_OF_OPERATIONS: frozenset[type[Any]] = frozenset(get_args(events.OperationEvent))
_OF_VMS: frozenset[type[Any]] = frozenset(get_args(events.VmEvent))
_OF_HOSTS: frozenset[type[Any]] = frozenset(get_args(events.HostEvent))
_TELLS_OF_BIRTH: frozenset[type[Any]] = frozenset(TELLS_OF_BIRTH)


def concerned(envelope: Envelope[Any], operations: Mapping[str, OperationRow]) -> Concerned:
    """What an event is about. An operation's events also concern the VM that is its target."""
    data = envelope.data
    kind = type(data)
    operation = operation_of(envelope)
    if kind in _OF_VMS:
        return Concerned(vm=data.vm, operation=operation, host=data.host)
    if kind in _OF_OPERATIONS:
        return Concerned(vm=_target(data, operations.get(operation or "")), operation=operation)
    return Concerned(operation=operation, host=host_told(envelope))


def operation_of(envelope: Envelope[Any]) -> str | None:
    """The operation that an event belongs to."""
    if envelope.operation is None and type(envelope.data) in _OF_OPERATIONS:
        return _id_in(envelope.subject, "operation")
    return envelope.operation


def _target(data: Any, operation: OperationRow | None) -> str | None:
    """The VM that an operation's event is about."""
    if type(data) is events.OperationAccepted:
        return data.target if data.kind == "vm" and is_uuid7(data.target) else None
    if operation is not None and operation.kind == "vm" and is_uuid7(operation.target):
        return operation.target
    return None


def host_told(envelope: Envelope[Any]) -> str | None:
    """The host that an event tells of, whose row may change: not that of a VM on it."""
    data = envelope.data
    if type(data) is events.HostRegistered:
        return data.facts.host
    if type(data) is events.HostConfigured:
        return data.config.host
    return data.host if type(data) in _OF_HOSTS else None


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
        if after.vm is not None and after.vm is not before.vm:
            rows.vms[after.vm.id] = changed.vms[after.vm.id] = after.vm
        if after.operation is not None and after.operation is not before.operation:
            id = after.operation.id
            rows.operations[id] = changed.operations[id] = after.operation
        if after.host is not None and after.host is not before.host:
            rows.hosts[after.host.name] = changed.hosts[after.host.name] = after.host
    return changed


def project(rows: Rows, fact: Fact, about: Concerned) -> Rows:
    """The rows that one event concerns, as they are after it; None for those that it leaves alone."""
    data = fact.envelope.data
    vm = operation = host = None
    if about.operation is not None:
        operation = operation_after(rows.operation, fact, about.operation)
    kind = type(data)
    if kind in _OF_VMS:
        vm = vm_after(rows.vm or new_vm(fact, data.vm), fact)
    elif rows.vm is not None and kind in _TELLS_OF_BIRTH:
        vm = rows.vm
    if vm is not None and operation is not None:
        vm = vm_in_birth(vm, fact, operation)
    if kind in _OF_HOSTS and about.host is not None:
        host = host_after(rows.host or new_host(fact, about.host), fact)
    return Rows(vm=vm, operation=operation, host=host)
