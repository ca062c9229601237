"""Metrics over time, as the metrics service answers them.

Series are columns over regular steps: the i-th element of each belongs to the step that begins at
`start` + i × `step_s`. Where nothing is known stands None, never zero; a series of which nothing at all
is known is absent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from schemas.ids import HostName, VmId
from schemas.queries import WaitSeconds

UnixSeconds = Annotated[float, Meta(ge=0, le=1e11)]
SeriesName = Annotated[str, Meta(min_length=1, max_length=63)]
SeriesNames = Annotated[tuple[SeriesName, ...], Meta(max_length=64)]

GONE = "gone"
"""The event that ends a stream of samples: there is no such VM or host any more."""


class GetHistory(Struct, frozen=True, kw_only=True):
    """Metrics `history`: the `Metrics` of a VM or of a host, whichever is named."""

    vm: VmId | None = None
    host: HostName | None = None
    since: UnixSeconds
    until: UnixSeconds
    step_s: Annotated[float, Meta(ge=1, le=1e9)] | None = None
    """The wish; left out, a step is chosen."""
    series: SeriesNames = ()
    """Only these; left out, all."""


class GetLive(Struct, frozen=True, kw_only=True):
    """Metrics `live`: the `LiveSamples` of a VM or a host after a moment. Waits up to `wait_s` seconds
    until there is one."""

    vm: VmId | None = None
    host: HostName | None = None
    after: UnixSeconds
    wait_s: WaitSeconds = 0
    series: SeriesNames = ()


class SeriesValues(Struct, frozen=True, kw_only=True):
    """One series: of each step the average, the least and the most."""

    unit: str
    avg: tuple[float | None, ...]
    min: tuple[float | None, ...]
    max: tuple[float | None, ...]


class Metrics(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a VM or a host was over some time."""

    vm: VmId | None = None
    host: HostName | None = None
    start: datetime
    step_s: int
    points: int
    series: dict[str, SeriesValues]


class LiveSample(Struct, frozen=True, kw_only=True):
    """One tick of a VM or a host: the series that are known, in their units."""

    at: datetime
    values: dict[str, float]


class LiveSamples(Struct, frozen=True, kw_only=True):
    samples: tuple[LiveSample, ...] = ()
