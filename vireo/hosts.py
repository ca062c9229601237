"""Hosts by the SDK. A host is named by its name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from schemas.resources import Host, HostState, HostTuning
from schemas.rules import Taint
from schemas.telemetry import HostReading
from vireo.operations import Operations, PendingOperation, Wait
from vireo.pages import PageOf, walk
from vireo.paths import checked_ref, labels_query, query_of
from vireo.transport import Transport


class Hosts:
    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    async def get(self, host: str) -> Host:
        return await self._transport.read(_path(host), Host)

    def list(
        self,
        *,
        state: HostState | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Host]:
        """By name."""
        query = query_of(state=state) + labels_query(labels)
        return walk(self._transport, "/v1/hosts", PageOf[Host], query, limit=limit)

    async def telemetry(self, host: str) -> HostReading:
        return await self._transport.read(f"{_path(host)}/telemetry", HostReading)

    async def configure(
        self,
        host: str,
        *,
        maintenance: bool | None = None,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Taint] | None = None,
        tuning: HostTuning | None = None,
        wait: Wait = False,
        key: str | None = None,
    ) -> PendingOperation:
        """Set what is given, leave the rest. `labels`, `taints` and `tuning` each replace all that
        operators had set of them."""
        body: dict[str, Any] = {}
        if maintenance is not None:
            body["maintenance"] = maintenance
        if labels is not None:
            body["labels"] = dict(labels)
        if taints is not None:
            body["taints"] = msgspec.to_builtins(taints)
        if tuning is not None:
            body["tuning"] = msgspec.to_builtins(tuning)
        return await self._operations.begin("PATCH", _path(host), body, wait=wait, key=key)


def _path(host: str) -> str:
    return f"/v1/hosts/{checked_ref('host', host)}"
