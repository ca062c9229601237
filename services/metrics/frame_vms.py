"""The VMs of one frame, each made into values only when somebody asks for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from msgspec.structs import fields

from schemas.telemetry import GuestSample, VmColumns
from services.metrics.model import VmNewest, VmSample

_COLUMNS = tuple(field.name for field in fields(VmSample))
_NONE = VmColumns()


class FrameVms(Mapping[str, VmNewest]):
    """The VMs of one frame by id. Frames come by the thousand a second, and few of their VMs are asked for
    in between."""

    def __init__(
        self,
        *,
        columns: VmColumns,
        guests: Mapping[str, GuestSample],
        former: VmColumns = _NONE,
        elapsed_s: float = 0.0,
    ) -> None:
        self.columns = columns
        self.guests = guests
        self._former = former
        self._elapsed_s = elapsed_s

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __getitem__(self, vm: str) -> VmNewest:
        sample = _sample(self.columns, self._rows[vm])
        return VmNewest(
            sample=sample,
            cpu_busy=self._cpus(self._busy_before.get(vm), sample.cpu_time_ns),
            cpu_steal=self._cpus(self._stolen_before.get(vm), sample.cpu_steal_ns),
            guest=self.guests.get(vm),
        )

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self.columns.ids)}

    @cached_property
    def _busy_before(self) -> dict[str, int | None]:
        return dict(zip(self._former.ids, self._former.cpu_time_ns, strict=False))

    @cached_property
    def _stolen_before(self) -> dict[str, int | None]:
        return dict(zip(self._former.ids, self._former.cpu_steal_ns, strict=False))

    def _cpus(self, before_ns: int | None, now_ns: int | None) -> float | None:
        return cpus_busy(before_ns=before_ns, now_ns=now_ns, elapsed_s=self._elapsed_s)


def _sample(columns: VmColumns, row: int) -> VmSample:
    values: dict[str, Any] = {
        name: column[row] for name in _COLUMNS if (column := getattr(columns, name))
    }
    return VmSample(**values)


def cpus_busy(*, before_ns: int | None, now_ns: int | None, elapsed_s: float) -> float | None:
    """CPUs busy between two readings of a counter; None if it began anew or no time went by."""
    if before_ns is None or now_ns is None or elapsed_s <= 0 or now_ns < before_ns:
        return None
    return round((now_ns - before_ns) / 1e9 / elapsed_s, 4)
