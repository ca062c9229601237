"""Hosts by the SDK. A host is named by its name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from schemas.forecasts import Capacity, MoreHosts
from schemas.loads import HostLoad
from schemas.metrics import LiveSample, Metrics
from schemas.resources import Host, HostState, HostTuning, VmSpec
from schemas.rules import Taint
from schemas.telemetry import HostReading
from vireo import metrics
from vireo.dry_runs import Beginning
from vireo.operations import Wait
from vireo.pages import PageOf, walk
from vireo.paths import checked_ref, labels_query, query_of, time_text
from vireo.transport import Transport

R = TypeVar("R")


class Hosts(Generic[R]):
    def __init__(self, transport: Transport, beginning: Beginning[R]) -> None:
        self._transport = transport
        self._beginning = beginning

    async def get(self, host: str, *, at: datetime | None = None) -> Host:
        """As it is, or as it was at a time (by the record's clock)."""
        query = query_of(at=time_text(at))
        return await self._transport.read(_path(host), Host, query=query)

    def list(
        self,
        *,
        state: HostState | None = None,
        labels: Mapping[str, str] | None = None,
        at: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Host]:
        """By name. With `at`, as they were then."""
        query = query_of(state=state, at=time_text(at)) + labels_query(labels)
        return walk(self._transport, "/v1/hosts", PageOf[Host], query, limit=limit)

    async def metrics(
        self,
        host: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        step_s: float | None = None,
        series: Sequence[str] = (),
    ) -> Metrics:
        """How it was over some time, the last hour by default; the step is chosen unless it is given."""
        path = f"{_path(host)}/metrics"
        return await metrics.history(
            self._transport, path, since=since, until=until, step_s=step_s, series=series
        )

    def watch(self, host: str, *, series: Sequence[str] = ()) -> AsyncIterator[LiveSample]:
        """Each sample as it is told, without end."""
        return metrics.watch(self._transport, f"{_path(host)}/metrics", series=series)

    async def telemetry(self, host: str) -> HostReading:
        return await self._transport.read(f"{_path(host)}/telemetry", HostReading)

    def loads(self, *, recent: int = 0, limit: int | None = None) -> AsyncIterator[HostLoad]:
        """How busy each is now, by name; with so many ticks of its CPU before."""
        query = query_of(recent=recent)
        return walk(self._transport, "/v1/telemetry/hosts", PageOf[HostLoad], query, limit=limit)

    async def capacity(
        self,
        spec: VmSpec | Mapping[str, Any] | None = None,
        *,
        by: str | None = None,
        without: Sequence[str] = (),
        add: Sequence[MoreHosts | Mapping[str, Any]] = (),
    ) -> Capacity:
        """How many more copies of a spec fit, and what stops the next one: as it is, or with hosts
        taken away or added. Without a spec: whether the VMs of the hosts taken away fit elsewhere."""
        asked = {"spec": spec, "by": by, "without": without, "add": add}
        body = {name: value for name, value in asked.items() if value}
        return await self._transport.ask("/v1/capacity", Capacity, body=body)

    async def configure(
        self,
        host: str,
        *,
        maintenance: bool | None = None,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Taint] | None = None,
        tuning: HostTuning | None = None,
        generation: int | None = None,
        wait: Wait = False,
        key: str | None = None,
    ) -> R:
        """Set what is given, leave the rest. `labels`, `taints` and `tuning` each replace all that
        operators had set of them; with the `generation` of the configuration that they were made from,
        they are refused if somebody else changed it meanwhile."""
        body: dict[str, Any] = {}
        if generation is not None:
            body["generation"] = generation
        if maintenance is not None:
            body["maintenance"] = maintenance
        if labels is not None:
            body["labels"] = dict(labels)
        if taints is not None:
            body["taints"] = msgspec.to_builtins(taints)
        if tuning is not None:
            body["tuning"] = msgspec.to_builtins(tuning)
        return await self._beginning.begin("PATCH", _path(host), body, wait=wait, key=key)


def _path(host: str) -> str:
    return f"/v1/hosts/{checked_ref('host', host)}"
