"""Dry runs by the SDK: the same calls, answered with what would come of them, with nothing done.

    forecast = await client.dry_run.vms.create(spec)

Every call that changes something goes through one way of beginning it; here it is asked, not begun.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from schemas.forecasts import Forecast
from vireo.operations import Wait
from vireo.transport import Query, Transport

R = TypeVar("R", covariant=True)


class Beginning(Protocol[R]):
    """How a call that changes something is begun, and what it gives back."""

    async def begin(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        wait: Wait,
        key: str | None,
        query: Query | None = None,
    ) -> R: ...


class DryRuns:
    """Begins nothing: each call gives back a forecast. `wait` and `key` have no meaning here."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def begin(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        wait: Wait,
        key: str | None,
        query: Query | None = None,
    ) -> Forecast:
        return await self._transport.change(
            method, path, Forecast, body=body, query=[*(query or []), ("dry_run", "true")], key=key
        )
