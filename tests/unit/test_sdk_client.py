"""The SDK against a gateway on a real socket: one key per change, operations to await, typed errors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from schemas.events import VmStarted
from schemas.problems import Problem
from schemas.resources import DiskSpec, VmSpec
from schemas.wire import encode, wrap
from tests.fixtures.gateway_standin import (
    NOW,
    TOKEN,
    Answer,
    Gateway,
    away,
    host,
    id_of,
    in_flight,
    losing,
    serving,
    steps_of_a_create,
)
from vireo import (
    Client,
    ClientSettings,
    Conflict,
    Invalid,
    NotFound,
    OperationFailed,
    TimedOut,
    Unauthenticated,
    Unavailable,
    VireoError,
)

QUICK = ClientSettings(
    attempts=3,
    backoff_first_s=0.01,
    backoff_most_s=0.02,
    poll_first_s=0.005,
    poll_most_s=0.01,
    patience_s=0.2,
    page_size=2,
)
SPEC = VmSpec(name="web1", disks=(DiskSpec(image="tiny"),))
UNPLACEABLE = Problem(
    type="urn:vireo:problem:unplaceable",
    title="No host can take the VM",
    status=409,
    reasons={"h1": "memory: 64 MiB free, 512 MiB needed"},
)


@contextlib.asynccontextmanager
async def at(
    gateway: Gateway, *, token: str = TOKEN, settings: ClientSettings = QUICK
) -> AsyncIterator[Client]:
    async with serving(gateway) as url, Client(url, token, settings=settings) as client:
        yield client


async def test_a_created_vm_can_be_awaited_and_read() -> None:
    gateway = Gateway()
    async with at(gateway) as client:
        pending = await client.vms.create(SPEC)
        ended = await pending
        vm = await client.vms.get("web1")
    assert (ended.phase, ended.host, len(ended.trail)) == ("succeeded", "h1", 4)
    assert (vm.id, vm.spec) == (pending.target, SPEC)


async def test_waiting_in_the_call_itself_gives_the_ended_operation() -> None:
    async with at(Gateway()) as client:
        pending = await client.vms.create(SPEC, wait=True)
    assert pending.ended
    assert pending.latest.phase == "succeeded"


async def test_an_answer_lost_on_the_way_is_asked_for_again_with_the_same_key() -> None:
    gateway = Gateway()
    async with (
        serving(gateway) as url,
        losing(url, answers=1) as (line_url, line),
        Client(line_url, TOKEN, settings=QUICK) as client,
    ):
        await client.vms.create(SPEC, wait=True)
    posts = [request for request in gateway.requests if request.method == "POST"]
    assert [post.path for post in posts] == ["/v1/vms", "/v1/vms"]
    assert posts[0] == posts[1]
    assert len(posts[0].key) >= 32
    assert len(gateway.vms) == 1
    assert line.connections >= 2


async def test_every_call_has_a_key_of_its_own_unless_one_is_given() -> None:
    gateway = Gateway()
    async with at(gateway) as client:
        await client.vms.create(SPEC)
        await client.vms.stop("web1")
        first = await client.vms.pause("web1", key="mine")
        again = await client.vms.pause("web1", key="mine")
    keys = [request.key for request in gateway.requests]
    assert len(set(keys)) == 3
    assert keys[2:] == ["mine", "mine"]
    assert first.id == again.id


async def test_a_server_that_is_away_or_still_busy_is_tried_again() -> None:
    gateway = Gateway()
    gateway.refuses_next = [away(), in_flight()]
    async with at(gateway) as client:
        await client.vms.create(SPEC)
    assert len({request.key for request in gateway.requests}) == 1
    assert len(gateway.requests) == 3


async def test_tries_are_bounded() -> None:
    gateway = Gateway()
    gateway.refuses_next = [away()] * 9
    async with at(gateway) as client:
        with pytest.raises(Unavailable, match="The bus is away"):
            await client.vms.create(SPEC)
    assert len(gateway.requests) == QUICK.attempts


async def test_nobody_listening_is_said_with_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with Client(url, TOKEN, settings=QUICK) as client:
        with pytest.raises(Unavailable, match=url):
            await client.vms.get("web1")


async def test_a_failed_operation_raises_its_problem() -> None:
    gateway = Gateway()
    gateway.fails_with = UNPLACEABLE
    async with at(gateway) as client:
        pending = await client.vms.create(SPEC)
        with pytest.raises(OperationFailed) as caught:
            await pending
    assert caught.value.problem == UNPLACEABLE
    assert caught.value.operation.trail[-1].event == "operation.failed"


async def test_a_wait_ends_in_time_and_the_operation_goes_on() -> None:
    gateway = Gateway()
    gateway.looks_to_end = 1_000_000
    async with at(gateway) as client:
        pending = await client.vms.create(SPEC)
        with pytest.raises(TimedOut) as caught:
            await pending.wait(0.03)
    assert caught.value.operation.phase == "accepted"


async def test_a_wait_outlives_a_server_that_is_away_for_a_while() -> None:
    gateway = Gateway()
    async with at(gateway, settings=structs.replace(QUICK, patience_s=30)) as client:
        pending = await client.vms.create(SPEC)
        gateway.refuses_next = [away()] * (QUICK.attempts + 1)
        assert (await pending).phase == "succeeded"


async def test_steps_come_one_by_one_and_once() -> None:
    gateway = Gateway()
    gateway.looks_to_end = 3
    async with at(gateway) as client:
        pending = await client.vms.create(SPEC)
        steps = [step.event async for step in pending.steps()]
    assert steps == ["operation.accepted", "vm.scheduled", "vm.started", "operation.succeeded"]
    assert pending.result().phase == "succeeded"


async def test_steps_that_overtook_others_are_told_once_and_after_the_acceptance() -> None:
    accepted, scheduled, started, _ = steps_of_a_create()
    gateway = Gateway()
    gateway.trails_before = [(scheduled,), (accepted, started), (accepted, scheduled, started)]
    gateway.looks_to_end = 4
    async with at(gateway) as client:
        pending = await client.vms.create(SPEC)
        steps = [step.event async for step in pending.steps()]
    assert steps == ["operation.accepted", "vm.started", "vm.scheduled", "operation.succeeded"]


async def test_every_bad_field_is_named() -> None:
    async with at(Gateway()) as client:
        with pytest.raises(Invalid) as caught:
            await client.vms.create({"name": "a", "cpus": 999, "memory_mib": 1 << 30, "colour": 1})
    assert [item.field for item in caught.value.errors] == ["/colour", "/cpus", "/memory_mib"]


async def test_errors_have_types() -> None:
    gateway = Gateway()
    async with at(gateway) as client:
        await client.vms.create(SPEC, key="k")
        with pytest.raises(Conflict):
            await client.vms.create(SPEC)
        with pytest.raises(Conflict):
            await client.vms.create(structs.replace(SPEC, name="web2"), key="k")
        with pytest.raises(NotFound):
            await client.vms.get("web9")
        with pytest.raises(NotFound):
            await client.hosts.get("../vms")
    async with at(gateway, token="another") as client:
        with pytest.raises(Unauthenticated):
            await client.vms.get("web1")


async def test_an_answer_that_is_no_problem_keeps_its_status() -> None:
    gateway = Gateway()
    gateway.refuses_next = [Answer(418, b"<html>"), Answer(200, b"<html>")]
    async with at(gateway) as client:
        with pytest.raises(VireoError) as caught:
            await client.vms.get("web1")
        assert caught.value.problem.status == 418
        with pytest.raises(VireoError, match="cannot be read"):
            await client.vms.get("web1")


async def test_a_list_is_walked_to_its_end_or_to_the_limit() -> None:
    gateway = Gateway()
    for number in range(5):
        gateway.add_vm(structs.replace(SPEC, name=f"web{number}"))
    async with at(gateway) as client:
        every = [vm.spec.name async for vm in client.vms.list()]
        three = [vm.spec.name async for vm in client.vms.list(limit=3)]
    assert every == ["web0", "web1", "web2", "web3", "web4"]
    assert three == every[:3]
    assert len(gateway.requests) == 3 + 2


async def test_a_host_is_read_and_configured() -> None:
    gateway = Gateway()
    async with at(gateway) as client:
        assert await client.hosts.get("h1") == host("h1")
        assert [found.name async for found in client.hosts.list()] == ["h1"]
        await client.hosts.configure("h1", maintenance=True, wait=True)
    assert gateway.requests[2].body == b'{"maintenance":true}'


def started(number: int) -> bytes:
    message = wrap(
        VmStarted(vm=id_of(1), host="h1", generation=number),
        id=id_of(100 + number),
        site="home",
        sender="h1",
        at=NOW,
        about=f"vm/{id_of(1)}",
    )
    return encode(message)


async def test_a_stream_of_events_goes_on_after_the_last_one_seen() -> None:
    gateway = Gateway()
    gateway.events = [started(number) for number in range(1, 6)]
    gateway.events_per_connection = 2
    seen = []
    async with (
        at(gateway) as client,
        contextlib.aclosing(client.events.stream(after="1")) as events,
    ):
        async for event in events:
            seen.append((event.sequence, event.name, event.envelope().data.generation))
            if len(seen) == 4:
                break
    assert seen == [(str(n), "vm.started", n) for n in (2, 3, 4, 5)]
    assert gateway.resumed_after == ["1", "3"]


async def test_a_stream_that_broke_before_its_first_event_goes_on_where_it_stood() -> None:
    gateway = Gateway()
    gateway.stands_at = "3"
    gateway.events = [started(number) for number in range(1, 6)]
    gateway.events_per_connection = 0
    async with at(gateway) as client, contextlib.aclosing(client.events.stream()) as events:
        first = asyncio.create_task(anext(events))
        async with asyncio.timeout(10):
            while len(gateway.resumed_after) < 2:
                await asyncio.sleep(0.005)
            gateway.events_per_connection = 1
            assert (await first).sequence == "4"
    assert gateway.resumed_after[:2] == ["", "3"]


async def test_a_stream_survives_refusals_in_between() -> None:
    gateway = Gateway()
    gateway.events = [started(1)]
    gateway.refuses_next = [away(), away()]
    async with at(gateway) as client, contextlib.aclosing(client.events.stream()) as events:
        assert (await anext(events)).name == "vm.started"


async def test_the_history_of_events_is_a_list() -> None:
    gateway = Gateway()
    gateway.events = [started(number) for number in range(1, 4)]
    async with at(gateway) as client:
        found = [header.id async for header in client.events.list()]
    assert found == [id_of(101), id_of(102), id_of(103)]


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8470", "ftp://host", "http://", "http://u:secret@host", "http://h/?a=1"]
)
def test_what_is_no_address_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="gateway") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_a_token_that_is_none_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="token") as caught:
        Client("http://127.0.0.1:1", "sec\nret")
    assert "sec" not in str(caught.value)
