"""Alerts by the SDK: what fires, what a rule would find, and of which rules nobody is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from schemas.alerts import Alert, AlertRule, RuleTrial, Silence
from vireo.dry_runs import Beginning
from vireo.operations import Wait
from vireo.pages import PageOf
from vireo.paths import checked_ref
from vireo.transport import Transport

R = TypeVar("R")

_SILENCES = "/v1/alerts/silences"


class Alerts(Generic[R]):
    """Rules themselves are defined: `client.rules`."""

    def __init__(self, transport: Transport, beginning: Beginning[R]) -> None:
        self._transport = transport
        self._beginning = beginning

    async def list(self) -> AsyncIterator[Alert]:
        """What fires, then what may soon."""
        for alert in (await self._transport.read("/v1/alerts", PageOf[Alert])).items:
            yield alert

    async def try_rule(self, rule: AlertRule) -> RuleTrial:
        """What a rule would find now, applied or not."""
        return await self._transport.ask("/v1/alerts/try", RuleTrial, body=rule)

    async def silences(self) -> AsyncIterator[Silence]:
        for silence in (await self._transport.read(_SILENCES, PageOf[Silence])).items:
            yield silence

    async def silence(
        self,
        rule: str,
        *,
        for_s: float,
        reason: str = "",
        wait: Wait = False,
        key: str | None = None,
    ) -> R:
        """Tell nobody of what a rule finds for so long; events are told all the same."""
        body = {"rule": rule, "for_s": for_s, "reason": reason}
        return await self._beginning.begin("POST", _SILENCES, body, wait=wait, key=key)

    async def unsilence(self, rule: str, *, wait: Wait = False, key: str | None = None) -> R:
        path = f"{_SILENCES}/{checked_ref('alert rule', rule)}"
        return await self._beginning.begin("DELETE", path, None, wait=wait, key=key)
