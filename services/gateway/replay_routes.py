"""The routes of replays: recorded events published again, for programs to try themselves on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas import commands
from schemas.problems import FieldError
from schemas.resources import Operation
from services.gateway.answers import Answer
from services.gateway.asked import Asked, name_in_path
from services.gateway.desk import Desk
from services.gateway.handlers import id_of
from services.gateway.model import Nothing, ReplayRequest, WishQuery
from services.gateway.orders import obey
from services.gateway.route import Route


def replay_errors(asked: ReplayRequest) -> Iterator[FieldError]:
    if asked.since.tzinfo is None or asked.until.tzinfo is None:
        for field, at in (("since", asked.since), ("until", asked.until)):
            if at.tzinfo is None:
                yield FieldError(field=f"/{field}", detail="expected a time with its zone")
    elif asked.since >= asked.until:
        yield FieldError(field="/until", detail="expected a time after since")


async def _start(desk: Desk, asked: Asked[WishQuery, ReplayRequest]) -> Answer:
    wanted = asked.body
    vm = await id_of(desk, wanted.vm) if wanted.vm else None

    async def target(_command: str) -> str:
        return wanted.name

    def make(name: str) -> commands.ReplayEvents:
        return commands.ReplayEvents(
            name=name,
            since=wanted.since,
            until=wanted.until,
            speed=wanted.speed,
            vm=vm,
            host=wanted.host,
            operation=wanted.operation,
            types=wanted.types,
        )

    return await obey(desk, asked, target, make)


async def _stop(desk: Desk, asked: Asked[WishQuery, Nothing]) -> Answer:
    async def target(_command: str) -> str:
        return name_in_path("replay", asked.path["name"])

    return await obey(desk, asked, target, lambda name: commands.StopReplay(name=name))


REPLAYS: tuple[Route[Any, Any], ...] = (
    Route(
        method="POST",
        path="/v1/replays",
        name="start_replay",
        summary="Publish recorded events again, under `vireo.replay.<name>.…`",
        description="At their own pace, or `speed` times as fast; 0 is as fast as it goes.",
        handler=_start,
        answer=Operation,
        query=WishQuery,
        body=ReplayRequest,
        check=replay_errors,
    ),
    Route(
        method="DELETE",
        path="/v1/replays/{name}",
        name="stop_replay",
        summary="Stop what is being published under a name",
        handler=_stop,
        answer=Operation,
        query=WishQuery,
        body=Nothing,
    ),
)
