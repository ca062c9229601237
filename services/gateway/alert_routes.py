"""The routes about alerts: what fires, what a rule would find, and of which rules nobody is told. Rules
themselves are definitions (`definition_routes`)."""

from __future__ import annotations

from functools import partial
from typing import Any

from msgspec import Struct

from schemas import commands
from schemas.alerts import (
    Alert,
    AlertRule,
    ListAlerts,
    ListSilences,
    RuleTrial,
    Silence,
    TryRule,
)
from schemas.definition_faults import faults_of
from schemas.resources import Operation
from services.gateway.answers import Answer
from services.gateway.asked import Asked, name_in_path
from services.gateway.desk import Desk
from services.gateway.model import Nothing, SilenceRequest, WishQuery
from services.gateway.orders import obey
from services.gateway.route import Route


async def _ask(endpoint: str, query: Struct, desk: Desk, _asked: Asked[Nothing, Nothing]) -> Answer:
    return Answer(body=await desk.ask("metrics", endpoint, query))


async def _try(desk: Desk, asked: Asked[Nothing, AlertRule]) -> Answer:
    return Answer(body=await desk.ask("metrics", "alert.try", TryRule(rule=asked.body)))


async def _silence(desk: Desk, asked: Asked[WishQuery, SilenceRequest]) -> Answer:
    body = asked.body

    async def target(_command: str) -> str:
        return body.rule

    def make(rule: str) -> commands.SilenceAlert:
        return commands.SilenceAlert(rule=rule, for_s=body.for_s, reason=body.reason)

    return await obey(desk, asked, target, make)


async def _unsilence(desk: Desk, asked: Asked[WishQuery, Nothing]) -> Answer:
    async def target(_command: str) -> str:
        return name_in_path("alert rule", asked.path["rule"])

    return await obey(desk, asked, target, lambda rule: commands.UnsilenceAlert(rule=rule))


def _lists(
    path: str, name: str, summary: str, endpoint: str, query: Struct, answer: type[Struct]
) -> Route[Any, Any]:
    return Route(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        handler=partial(_ask, endpoint, query),
        answer=answer,
        query=Nothing,
        body=Nothing,
        page=True,
    )


ALERTS: tuple[Route[Any, Any], ...] = (
    _lists(
        *("/v1/alerts", "list_alerts", "List what fires, and what may soon", "alert.list"),
        *(ListAlerts(), Alert),
    ),
    _lists(
        *("/v1/alerts/silences", "list_silences", "List the rules of which nobody is told"),
        *("alert.silences", ListSilences(), Silence),
    ),
    Route(
        method="POST",
        path="/v1/alerts/try",
        name="try_rule",
        summary="Show what a rule finds now",
        description="What grows is counted from when a rule is applied. Nothing is changed.",
        handler=_try,
        answer=RuleTrial,
        query=Nothing,
        body=AlertRule,
        check=faults_of,
        yaml=True,
        asks=True,
    ),
    Route(
        method="POST",
        path="/v1/alerts/silences",
        name="silence_alert",
        summary="Tell nobody of what a rule finds, for some time",
        description="Events are told all the same. A silence of the same rule is replaced.",
        handler=_silence,
        answer=Operation,
        query=WishQuery,
        body=SilenceRequest,
    ),
    Route(
        method="DELETE",
        path="/v1/alerts/silences/{rule}",
        name="unsilence_alert",
        summary="Tell of what a rule finds again",
        handler=_unsilence,
        answer=Operation,
        query=WishQuery,
        body=Nothing,
    ),
)
