"""Answers: the resources of `schemas.resources`, with stored documents passed through as they are.

Pure. Field by field these are the resources (a test compares them); only where a resource holds a
document (spec, facts, placement, …) they hold its bytes, so that a page is made without decoding one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import Raw, Struct

from schemas.resources import HostConfig, HostImage, OperationMember, OperationStep
from services.inventory.cursors import cursor

Record = Mapping[str, Any]


class VmAnswer(Struct, frozen=True, kw_only=True):
    id: str
    site: str
    spec: Raw
    state: str
    power: str
    host: str
    generation: int
    created_at: datetime
    updated_at: datetime
    guest: Raw | None
    placement: Raw | None
    operation: str | None
    problem: str


class HostAnswer(Struct, frozen=True, kw_only=True):
    name: str
    site: str
    state: str
    facts: Raw
    config: Raw
    reserved_cpus: int
    reserved_memory_mib: int
    reserved_disk_gib: int
    vms: int
    registered_at: datetime
    updated_at: datetime


class OperationAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    command: str
    kind: str
    target: str
    name: str = ""
    phase: str
    actor: str
    created_at: datetime
    updated_at: datetime
    progress: float = 0.0
    detail: str = ""
    host: str | None = None
    problem: Raw | None = None
    trail: tuple[OperationStep, ...] = ()
    placement: Raw | None = None
    members: tuple[OperationMember, ...] = ()


class _Images(Struct, frozen=True):
    images: tuple[HostImage, ...] = ()


_encoder = msgspec.json.Encoder()
_images = msgspec.json.Decoder(_Images)
_names = msgspec.json.Decoder(list[list[str]])


def encode(answer: Struct) -> bytes:
    return _encoder.encode(answer)


def vm(record: Record) -> VmAnswer:
    return VmAnswer(**{**record, **_documents(record, "spec", "guest", "placement")})


def operation(record: Record, trail: tuple[OperationStep, ...] = ()) -> OperationAnswer:
    documents = _documents(record, "problem", "placement")
    fields = {**record, **documents, "name": record["name"] or ""}
    return OperationAnswer(**fields, trail=trail)


def host(record: Record, reserved: Record | None) -> HostAnswer:
    """`reserved` is the sum over the host's VMs, None where there are none."""
    config = record["config"] or _encoder.encode(HostConfig(host=record["name"]))
    return HostAnswer(
        **{**record, "facts": Raw(record["facts"]), "config": Raw(config)},
        reserved_cpus=reserved["cpus"] if reserved else 0,
        reserved_memory_mib=reserved["memory_mib"] if reserved else 0,
        reserved_disk_gib=_disk_gib(record["facts"], reserved) if reserved else 0,
        vms=reserved["vms"] if reserved else 0,
    )


def _disk_gib(facts: str, reserved: Record) -> int:
    """Sized disks, and those that have the size of their image on this host."""
    total: int = reserved["disk_gib"]
    unsized = _names.decode(reserved["unsized"])
    if unsized:
        sizes = {image.name: image.size_gib for image in _images.decode(facts).images}
        total += sum(sizes.get(name, 0) for names in unsized for name in names)
    return total


def _documents(record: Record, *names: str) -> dict[str, Raw | None]:
    return {name: None if record[name] is None else Raw(record[name]) for name in names}


def page(
    items: Sequence[Struct | Raw],
    keys: Sequence[str | int],
    *,
    limit: int,
    budget_bytes: int,
    list_name: str,
) -> bytes:
    """A page of at most `limit` items, and of no more than fit an answer; one it always has.

    `items` is one longer than `limit` where there is more; `keys` are what a cursor after each holds.
    """
    encoded = [_encoder.encode(item) for item in items[:limit]]
    fitting = _fitting(encoded, budget_bytes)
    members = [b'"items":[' + b",".join(encoded[:fitting]) + b"]"]
    if fitting < len(items):
        members.append(b'"next":' + _encoder.encode(cursor(list_name, keys[fitting - 1])))
    return b"{" + b",".join(members) + b"}"


def _fitting(encoded: Sequence[bytes], budget_bytes: int) -> int:
    """How many of the items fit, but at least one if there is one."""
    sizes = accumulate(len(item) + 1 for item in encoded)
    return max(sum(size <= budget_bytes for size in sizes), min(1, len(encoded)))
