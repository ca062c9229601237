"""Replays by the SDK: recorded events published again, under subjects of their own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from vireo.dry_runs import Beginning
from vireo.operations import Wait
from vireo.paths import checked_ref
from vireo.transport import Transport

R = TypeVar("R")


class Replays(Generic[R]):
    def __init__(self, transport: Transport, beginning: Beginning[R]) -> None:
        self._transport = transport
        self._beginning = beginning

    async def start(
        self,
        name: str,
        *,
        since: datetime,
        until: datetime,
        speed: float = 1.0,
        vm: str | None = None,
        host: str | None = None,
        operation: str | None = None,
        types: Sequence[str] = (),
        wait: Wait = False,
        key: str | None = None,
    ) -> R:
        """Publish what was stored from `since` to `until` under `vireo.replay.<name>.…`, `speed` times as
        fast as it was; 0 is as fast as it goes."""
        filters = {"vm": vm, "host": host, "operation": operation, "types": list(types)}
        body: dict[str, Any] = {
            "name": name,
            "since": since,
            "until": until,
            "speed": speed,
            **{key: value for key, value in filters.items() if value},
        }
        return await self._beginning.begin("POST", "/v1/replays", body, wait=wait, key=key)

    async def stop(self, name: str, *, wait: Wait = False, key: str | None = None) -> R:
        path = f"/v1/replays/{checked_ref('replay', name)}"
        return await self._beginning.begin("DELETE", path, None, wait=wait, key=key)
