"""Micro services over both buses: ADR-32's wire format, bounded dispatch, errors that leak nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from chassis.bus import Bus, Incoming, NoResponders, Unavailable
from chassis.clock import SystemClock
from chassis.ids import SystemIds
from chassis.meters import Meters
from chassis.micro import ask, ask_again, serve
from chassis.micro_discovery import Identity
from chassis.service import Endpoint, Retry, Tagged
from schemas.problems import Problem, not_found

PATIENCE_S = 5.0
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Greet(Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(max_length=10)]


class Greeting(Struct, frozen=True, kw_only=True):
    text: str


async def greet(request: Greet) -> Greeting:
    return Greeting(text=f"hello {request.name}")


def endpoint(handler: Any, **more: object) -> Endpoint:
    return Endpoint(
        name="greet",
        description="Says hello",
        request=Greet,
        handler=handler,
        **more,  # type: ignore[arg-type]
    )


def identity(name: str) -> Identity:
    return Identity(
        name=name,
        id="ID1",
        version="1.2.3",
        description="Greets",
        started_at=STARTED,
        metadata={"site": "test"},
    )


@asynccontextmanager
async def serving(
    bus: Bus, name: str, endpoints: Sequence[Endpoint], meters: Meters | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    up = asyncio.Event()
    task = asyncio.create_task(
        serve(
            bus,
            identity(name),
            endpoints,
            meters=meters or Meters(),
            clock=SystemClock(),
            ids=SystemIds(),
            on_serving=up.set,
        )
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await up.wait()
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def asked(bus: Bus, name: str, request: Struct | bytes) -> bytes | Problem:
    return await ask(bus, name, "greet", request, timeout_s=PATIENCE_S)


async def raw(bus: Bus, name: str, body: bytes) -> Incoming:
    return await bus.request(f"vireo.svc.{name}.greet", body, timeout_s=PATIENCE_S)


async def test_an_endpoint_answers_with_its_struct(bus: Bus, unique: str) -> None:
    async with serving(bus, unique, [endpoint(greet)]):
        assert await asked(bus, unique, Greet(name="ada")) == b'{"text":"hello ada"}'


async def test_ready_bytes_pass_through(bus: Bus, unique: str) -> None:
    async def handle(request: Greet) -> bytes:
        return b"ready " + request.name.encode()

    async with serving(bus, unique, [endpoint(handle)]):
        assert await asked(bus, unique, Greet(name="ada")) == b"ready ada"


async def test_one_who_knows_an_answer_by_its_tag_is_told_whether_it_is_still_true(
    bus: Bus, unique: str
) -> None:
    tag = "1"

    async def handle(request: Greet) -> Tagged:
        return Tagged(tag=tag, body=b"greeting " + tag.encode())

    async def current() -> str:
        return tag

    async def again(known: str | None) -> Tagged | Problem:
        greeting = Greet(name="ada")
        return await ask_again(bus, unique, "greet", greeting, known=known, timeout_s=PATIENCE_S)

    async with serving(bus, unique, [endpoint(handle, tag=current)]):
        found = [await again(known) for known in (None, "1", "0")]
        tag = "2"
        found.append(await again("1"))
        wire = await raw(bus, unique, b'{"name":"ada"}')

    one, two = Tagged(tag="1", body=b"greeting 1"), Tagged(tag="2", body=b"greeting 2")
    assert found == [one, Tagged(tag="1", body=None), one, two]
    assert (wire.data, wire.headers) == (b"greeting 2", {"ETag": "2"})


async def test_all_who_came_before_a_look_at_the_tag_share_it_and_nobody_else(
    bus: Bus, unique: str
) -> None:
    looks: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()

    async def current() -> str:
        look: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        looks.put_nowait(look)
        return await look

    async def handle(request: Greet) -> Tagged:
        return Tagged(tag="new", body=request.name.encode())

    def asking(known: str | None, name: str) -> asyncio.Task[Tagged | Problem]:
        greeting = Greet(name=name)
        return asyncio.create_task(
            ask_again(bus, unique, "greet", greeting, known=known, timeout_s=PATIENCE_S)
        )

    async with serving(bus, unique, [endpoint(handle, tag=current)]), asyncio.timeout(PATIENCE_S):
        early = asking("1", "ada")
        first = await looks.get()
        late = [asking("1", "bob"), asking("2", "bob"), asking("2", "bob")]
        # Who knows nothing waits for no look; what came before it is there, too.
        assert await asking(None, "eve") == Tagged(tag="new", body=b"eve")
        first.set_result("1")
        (await looks.get()).set_result("2")
        found = [await each for each in (early, *late)]
    still = Tagged(tag="2", body=None)
    changed = Tagged(tag="new", body=b"bob")
    assert found == [Tagged(tag="1", body=None), changed, still, still]
    assert looks.empty()


async def test_one_who_knows_an_answer_is_not_told_that_it_is_true_while_nobody_can_say_so(
    bus: Bus, unique: str
) -> None:
    async def away() -> str:
        raise Retry(1, "away")

    async with serving(bus, unique, [endpoint(greet, tag=away)]):
        greeting = Greet(name="ada")
        found = await ask_again(bus, unique, "greet", greeting, known="1", timeout_s=PATIENCE_S)
    assert isinstance(found, Problem)
    assert found.status == 503


async def test_an_endpoint_without_a_tag_answers_whatever_is_known(bus: Bus, unique: str) -> None:
    async with serving(bus, unique, [endpoint(greet)]):
        greeting = Greet(name="ada")
        found = await ask_again(bus, unique, "greet", greeting, known="1", timeout_s=PATIENCE_S)
    assert found == Tagged(tag="", body=b'{"text":"hello ada"}')


async def test_a_problem_arrives_as_a_problem_and_as_a_micro_error(bus: Bus, unique: str) -> None:
    problem = not_found("vm", "x")

    async def handle(request: Greet) -> Problem:
        return problem

    async with serving(bus, unique, [endpoint(handle)]):
        answer = await asked(bus, unique, Greet(name="ada"))
        wire = await raw(bus, unique, b'{"name":"ada"}')

    assert answer == problem
    assert wire.headers == {
        "Nats-Service-Error-Code": "404",
        "Nats-Service-Error": "No such vm: There is no vm 'x'.",
    }
    assert msgspec.json.decode(wire.data, type=Problem) == problem


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"\xff\xfe", ""),
        (b"[]", ""),
        (b"{}", ""),
        (b'{"name":7}', "/name"),
        (b'{"name":"far too long a name"}', "/name"),
    ],
)
async def test_a_request_that_cannot_be_read_is_400_and_names_the_field(
    bus: Bus, unique: str, body: bytes, field: str
) -> None:
    async with serving(bus, unique, [endpoint(greet)]):
        answer = await asked(bus, unique, body)

    assert isinstance(answer, Problem)
    assert (answer.status, [error.field for error in answer.errors]) == (400, [field])


async def test_an_unexpected_failure_is_500_with_an_id_and_leaks_nothing(
    bus: Bus, unique: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handle(request: Greet) -> Greeting:
        raise RuntimeError("password=hunter2")

    async with serving(bus, unique, [endpoint(handle)]):
        wire = await raw(bus, unique, b'{"name":"ada"}')

    assert b"hunter2" not in wire.data
    assert "hunter2" not in str(wire.headers)
    problem = msgspec.json.decode(wire.data, type=Problem)
    assert (problem.status, problem.title) == (500, "internal error")
    assert problem.instance.removeprefix("urn:uuid:") in capsys.readouterr().out


@pytest.mark.parametrize("error", [Retry(1, "the database is away"), Unavailable("away")])
async def test_what_cannot_be_answered_now_is_503(bus: Bus, unique: str, error: Exception) -> None:
    async def handle(request: Greet) -> Greeting:
        raise error

    async with serving(bus, unique, [endpoint(handle)]):
        answer = await asked(bus, unique, Greet(name="ada"))

    assert isinstance(answer, Problem)
    assert answer.status == 503


async def test_slow_requests_hold_up_only_as_many_as_work_at_once_and_one_too_many_is_503(
    bus: Bus, unique: str
) -> None:
    slow, may_end = asyncio.Semaphore(0), asyncio.Event()

    async def handle(request: Greet) -> Greeting:
        if request.name == "slow":
            slow.release()
            await may_end.wait()
        return await greet(request)

    async with serving(bus, unique, [endpoint(handle, concurrency=2, line=1)]):
        first = asyncio.ensure_future(asked(bus, unique, Greet(name="slow")))
        await slow.acquire()
        assert await asked(bus, unique, Greet(name="quick")) == b'{"text":"hello quick"}'
        second = asyncio.ensure_future(asked(bus, unique, Greet(name="slow")))
        await slow.acquire()
        two = [asyncio.ensure_future(asked(bus, unique, Greet(name=each))) for each in "xy"]
        (refused,), _ = await asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED)
        may_end.set()
        answers = await asyncio.gather(first, second, *two)

    problems = [each for each in answers if isinstance(each, Problem)]
    assert problems == [refused.result()]
    assert problems[0].status == 503
    assert list(answers[:2]) == [b'{"text":"hello slow"}'] * 2
    assert [each for each in answers[2:] if each not in problems] == [b'{"text":"hello x"}']


async def test_who_waits_for_a_turn_is_answered_in_the_order_of_asking(
    bus: Bus, unique: str
) -> None:
    begun, may_end, handled = asyncio.Event(), asyncio.Event(), list[str]()

    async def handle(request: Greet) -> Greeting:
        begun.set()
        await may_end.wait()
        handled.append(request.name)
        return await greet(request)

    names = [f"n{number}" for number in range(20)]
    async with serving(bus, unique, [endpoint(handle, concurrency=1, line=len(names))]):
        answers = [asyncio.ensure_future(asked(bus, unique, Greet(name=each))) for each in names]
        await begun.wait()
        may_end.set()
        await asyncio.gather(*answers)

    assert handled == names


async def test_what_nobody_serves_has_no_responders(bus: Bus, unique: str) -> None:
    with pytest.raises(NoResponders):
        await asked(bus, unique, Greet(name="ada"))


async def test_two_instances_share_the_requests(bus: Bus, unique: str) -> None:
    async with serving(bus, unique, [endpoint(greet)]), serving(bus, unique, [endpoint(greet)]):
        wires = [await raw(bus, unique, b'{"name":"ada"}') for _ in range(10)]

    assert {wire.data for wire in wires} == {b'{"text":"hello ada"}'}


async def test_on_stopping_a_request_in_hand_and_those_behind_it_are_answered(
    bus: Bus, unique: str
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def handle(request: Greet) -> Greeting:
        begun.set()
        await may_end.wait()
        return await greet(request)

    one_at_a_time = endpoint(handle, concurrency=1, line=1)
    async with serving(bus, unique, [one_at_a_time]) as task:
        answers = [
            asyncio.ensure_future(asked(bus, unique, Greet(name=each)))
            for each in ("ada", "bob", "one too many")
        ]
        await begun.wait()
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)  # so the others are there
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
        may_end.set()
        assert await answers[0] == b'{"text":"hello ada"}'
        assert await answers[1] == b'{"text":"hello bob"}'


@pytest.mark.parametrize("suffix", ["", ".{name}", ".{name}.ID1"])
async def test_a_service_is_found_by_everybody_by_name_and_by_id(
    bus: Bus, unique: str, suffix: str
) -> None:
    async with serving(bus, unique, [endpoint(greet)]):
        answer = await bus.request(
            "$SRV.PING" + suffix.format(name=unique), b"", timeout_s=PATIENCE_S
        )

    assert msgspec.json.decode(answer.data) == {
        "type": "io.nats.micro.v1.ping_response",
        "name": unique,
        "id": "ID1",
        "version": "1.2.3",
        "metadata": {"site": "test"},
    }


async def test_info_describes_the_endpoints(bus: Bus, unique: str) -> None:
    async with serving(bus, unique, [endpoint(greet)]):
        answer = await bus.request(f"$SRV.INFO.{unique}", b"", timeout_s=PATIENCE_S)

    assert msgspec.json.decode(answer.data) == {
        "type": "io.nats.micro.v1.info_response",
        "name": unique,
        "id": "ID1",
        "version": "1.2.3",
        "metadata": {"site": "test"},
        "description": "Greets",
        "endpoints": [
            {
                "name": "greet",
                "subject": f"vireo.svc.{unique}.greet",
                "queue_group": "q",
                "metadata": {"description": "Says hello"},
            }
        ],
    }


async def test_stats_count_requests_errors_and_time(bus: Bus, unique: str) -> None:
    meters = Meters()
    async with serving(bus, unique, [endpoint(greet)], meters):
        await asked(bus, unique, Greet(name="ada"))
        await asked(bus, unique, b"[]")
        answer = await bus.request(f"$SRV.STATS.{unique}", b"", timeout_s=PATIENCE_S)

    said = msgspec.json.decode(answer.data)
    (greeting,) = said["endpoints"]
    assert (said["type"], said["started"]) == (
        "io.nats.micro.v1.stats_response",
        "2026-01-02T03:04:05Z",
    )
    assert (greeting["num_requests"], greeting["num_errors"]) == (2, 1)
    assert greeting["last_error"] == "400:The request is not valid"
    assert greeting["processing_time"] >= greeting["average_processing_time"] > 0
    counted = {
        outcome: meters.value("vireo_requests_answered_total", endpoint="greet", outcome=outcome)
        for outcome in ("answered", "400")
    }
    assert counted == {"answered": 1, "400": 1}
