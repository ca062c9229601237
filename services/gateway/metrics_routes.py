"""The routes of metrics over time: a graph's worth of the past, or what is told from now on, as it comes.

What belongs here: from a request to the metrics service's question, and its answer back.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any

import msgspec
import structlog
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Meta, Struct

from schemas.metrics import (
    GONE,
    GetHistory,
    GetLive,
    LiveSample,
    LiveSamples,
    Metrics,
    SeriesNames,
)
from schemas.problems import FieldError, Problem, invalid_request, not_found
from schemas.queries import GetHost, GetVm
from schemas.resources import VmState
from services.gateway import decide
from services.gateway.answers import Answer, Refused, refuse
from services.gateway.asked import Asked, name_in_path
from services.gateway.desk import Desk
from services.gateway.durations import moment_s, seconds
from services.gateway.handlers import id_of
from services.gateway.model import Nothing
from services.gateway.route import Route
from services.gateway.stream import SEQUENCE, relay

log = structlog.get_logger()

HOUR_S = 3600.0
RECENT_S = 10.0
"""Who begins to watch is shown this much of what was, so as not to wait for the next tick."""
WATCH_S = 3.0
"""How long the metrics service is asked to wait at a time; so long, at most, its end waits for us."""
QUIET_S = 10.0
"""After so long without a value it is asked whether there still is such a VM or host."""
MICROSECONDS = 1_000_000
LAST = b"event: %s\ndata: {}\n\n" % GONE.encode()

_samples = msgspec.json.Decoder(LiveSamples)

Moment = Annotated[str, Meta(min_length=1, max_length=40)]


class MetricsQuery(Struct, frozen=True, kw_only=True):
    """Query of metrics: a time in RFC 3339, or how long ago (`1h`, `7d`); the last hour by default."""

    from_: Moment | None = None
    to: Moment | None = None
    step: Annotated[str, Meta(min_length=1, max_length=20)] | None = None
    """A duration; left out, about 300 steps are made of the time."""
    series: SeriesNames = ()
    """Only these; left out, all."""


async def vm_metrics(desk: Desk, asked: Asked[MetricsQuery, Nothing]) -> Answer | ASGIApp:
    vm = await id_of(desk, asked.path["vm"])
    return await _metrics(desk, asked, {"vm": vm})


async def host_metrics(desk: Desk, asked: Asked[MetricsQuery, Nothing]) -> Answer | ASGIApp:
    host = name_in_path("host", asked.path["host"])
    return await _metrics(desk, asked, {"host": host})


async def _metrics(
    desk: Desk, asked: Asked[MetricsQuery, Nothing], whose: dict[str, Any]
) -> Answer | ASGIApp:
    now_s = desk.rig.clock.now().timestamp()
    if "text/event-stream" in asked.headers.get("accept", ""):
        question = _live_question(asked, whose, now_s)
        # The first answer is awaited here: what is wrong is said before the stream begins.
        if await _is_gone(desk, question):
            raise refuse(_no_such(question))
        first = await _watched(desk, question)
        return _live(desk, asked, question, first)
    question_of_past = history_question(asked.query, whose, now_s=now_s)
    if isinstance(question_of_past, list):
        raise refuse(invalid_request(*question_of_past))
    return Answer(body=await desk.ask("metrics", "history", question_of_past))


def history_question(
    query: MetricsQuery, whose: dict[str, Any], *, now_s: float
) -> GetHistory | list[FieldError]:
    """The question, or everything that is wrong with it. Pure."""
    until_s = moment_s(query.to, now_s=now_s) if query.to is not None else now_s
    since_s = (
        moment_s(query.from_, now_s=now_s)
        if query.from_ is not None
        else max(0.0, (until_s or now_s) - HOUR_S)
    )
    step_s = seconds(query.step) if query.step is not None else None
    wrong = [
        FieldError(field=f"query/{name}", detail=detail)
        for name, detail, is_wrong in (
            ("from", "expected a time like 2026-03-01T12:00:00Z, or how long ago: 1h, 7d", since_s),
            ("to", "expected a time like 2026-03-01T12:00:00Z, or how long ago: 1h, 7d", until_s),
        )
        if is_wrong is None or not 0 <= is_wrong <= MOST_S
    ]
    if query.step is not None and (step_s is None or not 1 <= step_s <= MOST_STEP_S):
        detail = "expected a duration from 1s on: 30s, 5m, 1d"
        wrong.append(FieldError(field="query/step", detail=detail))
    if wrong or since_s is None or until_s is None:
        return wrong
    if until_s <= since_s:
        return [FieldError(field="query/to", detail="expected a time after `from`")]
    return GetHistory(since=since_s, until=until_s, step_s=step_s, series=query.series, **whose)


MOST_S = 1e11
MOST_STEP_S = 1e9


# live


def _live_question(
    asked: Asked[MetricsQuery, Nothing], whose: dict[str, Any], now_s: float
) -> GetLive:
    """What to watch, after which moment. Raises Refused."""
    given = {"from": asked.query.from_, "to": asked.query.to, "step": asked.query.step}
    errors = [
        FieldError(
            field=f"query/{name}", detail="a stream knows no past: ask without text/event-stream"
        )
        for name, value in given.items()
        if value is not None
    ]
    last = asked.headers.get("last-event-id") or None
    if last is not None and not SEQUENCE.fullmatch(last):
        detail = "expected the id of a sample: a number"
        errors.append(FieldError(field="header/Last-Event-ID", detail=detail))
    if errors:
        raise refuse(invalid_request(*errors))
    after_s = int(last) / MICROSECONDS if last is not None else max(0.0, now_s - RECENT_S)
    return GetLive(after=after_s, series=asked.query.series, **whose)


def _live(
    desk: Desk, asked: Asked[MetricsQuery, Nothing], question: GetLive, first: LiveSamples
) -> ASGIApp:
    async def send_samples(_scope: Scope, receive: Receive, send: Send) -> None:
        with desk.streams.one(desk.crowded("Too many streams are open.")):
            asked.extend(None)
            hello = b": metrics of Vireo\nretry: 2000\n\n"
            await relay(desk, hello, partial(_read, desk, question, first), receive, send)

    return send_samples


async def _read(
    desk: Desk, question: GetLive, first: LiveSamples, queue: asyncio.Queue[bytes]
) -> None:
    """Put sample after sample until the VM is gone; the client comes again when the metrics service goes
    away."""
    found, now_s = first, desk.rig.clock.monotonic
    told_s = now_s()
    while True:
        if any(sample.values for sample in found.samples):
            told_s = now_s()
        elif found.samples or now_s() - told_s > QUIET_S:
            if await _is_gone(desk, question):
                await queue.put(LAST)
                return
            told_s = now_s()
        for sample in found.samples:
            await queue.put(sample_frame(sample))
            question = msgspec.structs.replace(question, after=sample.at.timestamp())
        try:
            found = await _watched(desk, msgspec.structs.replace(question, wait_s=WATCH_S))
        except Refused as refused:
            log.warning("metrics_stream_ended", reason=str(refused))
            return


class _Existing(Struct, frozen=True):
    """As much of a VM as says whether it still is."""

    state: VmState


async def _is_gone(desk: Desk, question: GetLive) -> bool:
    """Whether the inventory knows that there is no such VM or host. What is younger than its knowledge,
    or cannot be asked now, may be there."""
    try:
        if question.vm is None:
            await desk.ask("inventory", "host.get", GetHost(host=question.host or ""))
            return False
        found = await desk.ask("inventory", "vm.get", GetVm(vm=question.vm))
    except Refused as refused:
        fresh_s = desk.settings.fresh_operation_s
        now = desk.rig.clock.now()
        young = question.vm is not None and decide.is_fresh(question.vm, now=now, within_s=fresh_s)
        return refused.refusal.problem.status == 404 and not young
    return msgspec.json.decode(found, type=_Existing).state == "deleted"


def _no_such(question: GetLive) -> Problem:
    if question.vm is not None:
        return not_found("VM", question.vm)
    return not_found("host", question.host or "")


async def _watched(desk: Desk, question: GetLive) -> LiveSamples:
    timeout_s = question.wait_s + desk.settings.ask_timeout_s
    return _samples.decode(await desk.ask("metrics", "watch", question, timeout_s=timeout_s))


def sample_frame(sample: LiveSample) -> bytes:
    """A sample as server-sent event; its id is its moment in microseconds."""
    id = round(sample.at.timestamp() * MICROSECONDS)
    return b"id: %d\nevent: sample\ndata: %s\n\n" % (id, msgspec.json.encode(sample))


_DESCRIPTION = (
    "Of each step the average, the least and the most; a gap is null. Fine steps are kept for an hour, "
    "minutes for a day, half-hours for a month, six hours for a year, weeks for ten. With "
    "`Accept: text/event-stream`, each tick as it is told: `id` is what `Last-Event-ID` goes on after, and "
    "`event: gone` is the last of a VM that was deleted."
)

VM_METRICS: Route[MetricsQuery, Nothing] = Route(
    method="GET",
    path="/v1/vms/{vm}/metrics",
    name="get_vm_metrics",
    summary="Show how a VM was over some time, or watch it",
    description=_DESCRIPTION,
    handler=vm_metrics,
    answer=Metrics,
    query=MetricsQuery,
    body=Nothing,
    streams=True,
)
HOST_METRICS: Route[MetricsQuery, Nothing] = Route(
    method="GET",
    path="/v1/hosts/{host}/metrics",
    name="get_host_metrics",
    summary="Show how a host was over some time, or watch it",
    description=_DESCRIPTION,
    handler=host_metrics,
    answer=Metrics,
    query=MetricsQuery,
    body=Nothing,
    streams=True,
)
