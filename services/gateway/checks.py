"""What is wrong with a request whose fields are good one by one: each mistake with its field. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import structs

from schemas.definitions import Template
from schemas.problems import FieldError
from schemas.requests import VmRequest, spec_of
from schemas.resources import HostTuning, VmSpec
from services.gateway.model import CapacityRequest, HostChange, TrialRequest


def spec_errors(spec: VmSpec) -> Iterator[FieldError]:
    """What is wrong with a spec whose fields are good one by one."""
    yield from part_errors(spec)
    page_kib = spec.hardware.huge_page_kib
    if page_kib is not None and spec.memory_mib * 1024 % page_kib:
        detail = f"must be a multiple of the huge pages' {page_kib // 1024} MiB"
        yield FieldError(field="/memory_mib", detail=detail)


def request_errors(request: VmRequest) -> Iterator[FieldError]:
    """What can be said against a request before its template is known."""
    if request.template is not None:
        yield from part_errors(request)
        return
    spec = spec_of(request, None, None)
    yield from spec if isinstance(spec, tuple) else spec_errors(spec)


def part_errors(part: VmSpec | VmRequest | Template) -> Iterator[FieldError]:
    """What is wrong with disks and cards beside one another."""
    disks, nics = part.disks or (), part.nics or ()
    for index, disk in enumerate(disks):
        if disk.image is None and disk.size_gib == 0:
            detail = "a disk without an image is blank and needs a size of at least 1 GiB"
            yield FieldError(field=f"/disks/{index}/size_gib", detail=detail)
    yield from _twice([disk.name for disk in disks], "/disks/{}/name")
    yield from _twice([nic.mac for nic in nics], "/nics/{}/mac")


def change_errors(change: HostChange) -> Iterator[FieldError]:
    """A change that changes nothing is a mistake."""
    wished = structs.asdict(change)
    del wished["generation"]
    if all(value is None for value in wished.values()):
        yield FieldError(field="", detail=f"expected at least one of: {', '.join(wished)}")
    taints = [f"{one.key}={one.value}:{one.effect}" for one in change.taints or ()]
    yield from _twice(taints, "/taints/{}")
    if change.tuning is not None and _is_upside_down(change.tuning):
        detail = "a host that is full cannot draw less than an idle one"
        yield FieldError(field="/tuning/full_watts", detail=detail)


def _is_upside_down(tuning: HostTuning) -> bool:
    idle, full = tuning.idle_watts, tuning.full_watts
    return idle is not None and full is not None and full < idle


def trial_errors(asked: TrialRequest) -> Iterator[FieldError]:
    """What can be said against the VM of a trial before its template is known."""
    for error in request_errors(asked.spec):
        yield FieldError(field=f"/spec{error.field}", detail=error.detail)


def capacity_errors(asked: CapacityRequest) -> Iterator[FieldError]:
    """What is wrong with a question for capacity whose fields are good one by one."""
    if asked.spec is None and not asked.without:
        yield FieldError(field="", detail="expected at least one of: spec, without")
    if asked.spec is None and asked.by is not None:
        yield FieldError(field="/by", detail="copies are counted by label: it needs a spec")
    if asked.spec is not None:
        for error in request_errors(asked.spec):
            yield FieldError(field=f"/spec{error.field}", detail=error.detail)
    for index, more in enumerate(asked.add):
        sizes = [more.cpus, more.memory_mib, more.disk_gib]
        if more.like is not None and any(size is not None for size in sizes):
            detail = "either like a host or of a size, not both"
            yield FieldError(field=f"/add/{index}", detail=detail)
        if more.like is None and None in sizes:
            detail = "expected like, or all of: cpus, memory_mib, disk_gib"
            yield FieldError(field=f"/add/{index}", detail=detail)


def _twice(values: list[str] | list[str | None], field: str) -> Iterator[FieldError]:
    count = Counter(values)
    for index, value in enumerate(values):
        if value is not None and count[value] > 1 and value in values[:index]:
            yield FieldError(field=field.format(index), detail=f"{value} is used twice")
