"""Event streams: what they send, how they are resumed, how they are filtered, how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import Struct

from chassis.bus import Bus, Outgoing
from chassis.memory_bus import MemoryBus
from schemas import events, samples, subjects
from schemas.ids import derived_id
from schemas.wire import encode, wrap
from services.gateway.settings import LimitSettings
from tests.fixtures.gateway import TOKEN, GatewayUnderTest, gateway_on

OTHER = derived_id(samples.VM, "other")


async def happen(
    bus: Bus,
    data: Struct,
    *,
    vm: str = samples.VM,
    operation: str | None = None,
    site: str = "main",
) -> int:
    """Let something happen; returns its place in EVENTS."""
    kind = subjects.BY_MESSAGE[type(data)].name.partition(".")[0]
    about = {"vm": vm, "host": "h1", "operation": operation or samples.OPERATION}[kind]
    envelope = wrap(
        data,
        id=derived_id(vm, f"{await bus.last_sequence(subjects.EVENTS)}"),
        site=site,
        sender="h1",
        at=samples.AT,
        about=f"{kind}/{about}",
        operation=operation,
    )
    subject = subjects.event(type(data), site=site, source="h1", id=about)
    ack = await bus.publish(Outgoing(subject=subject, data=encode(envelope)))
    return ack.sequence


def started(vm: str = samples.VM) -> events.VmStarted:
    return events.VmStarted(vm=vm, host="h1", generation=1)


def stopped(vm: str = samples.VM) -> events.VmStopped:
    return events.VmStopped(vm=vm, host="h1", generation=1, reason="guest")


class Tail:
    """The reading end of a stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The next block: its fields, a comment as the field with no name."""
        found: dict[str, str] = {}
        async with asyncio.timeout(5):
            async for line in self._lines:
                if not line:
                    return found
                name, _, value = line.partition(":")
                found[name] = value.removeprefix(" ")
        raise EOFError

    async def event(self) -> tuple[int, str]:
        """The next event's sequence and name."""
        while "id" not in (found := await self.block()):
            pass
        return int(found["id"]), found["event"]

    async def ended(self) -> bool:
        try:
            while True:
                await self.block()
        except EOFError:
            return True


@asynccontextmanager
async def tail(gateway: GatewayUnderTest, query: str = "", **headers: str) -> AsyncIterator[Tail]:
    async with gateway.http.stream("GET", f"/v1/events{query}", headers=headers) as answer:
        found = Tail(answer)
        if answer.status_code == 200:
            assert "retry" in await found.block()
        yield found


async def test_a_stream_sends_what_happens_from_now_on(gateway: GatewayUnderTest) -> None:
    await happen(gateway.bus, started())
    async with tail(gateway) as stream:
        assert stream.answer.headers["content-type"] == "text/event-stream"
        assert stream.answer.headers["x-request-id"]
        sequence = await happen(gateway.bus, stopped(), operation=samples.OPERATION)
        block = await stream.block()
        data = msgspec.json.decode(block["data"])
        assert (int(block["id"]), block["event"]) == (sequence, "vm.stopped")
        assert (data["type"], data["data"]["reason"]) == ("vireo.vm.stopped.v1", "guest")


async def test_a_stream_is_resumed_without_a_gap(gateway: GatewayUnderTest) -> None:
    places = [await happen(gateway.bus, started()) for _ in range(5)]
    for query, headers in ((f"?after={places[1]}", {}), ("", {"Last-Event-ID": str(places[1])})):
        async with tail(gateway, query, **headers) as stream:
            seen = [await stream.event() for _ in range(3)]
            assert seen == [(place, "vm.started") for place in places[2:]]


async def test_who_loses_a_stream_before_its_first_event_resumes_without_a_gap(
    gateway: GatewayUnderTest,
) -> None:
    await happen(gateway.bus, started())
    async with gateway.http.stream("GET", "/v1/events") as answer:
        begun = await Tail(answer).block()
    assert "data" not in begun
    missed = await happen(gateway.bus, stopped())
    async with tail(gateway, **{"Last-Event-ID": begun["id"]}) as stream:
        assert await stream.event() == (missed, "vm.stopped")


async def test_who_would_pass_by_what_is_in_files_is_told_so(gateway: GatewayUnderTest) -> None:
    places = [await happen(gateway.bus, started(vm), vm=vm) for vm in (samples.VM, OTHER)]
    first = subjects.event(events.VmStarted, site="main", source="h1", id=samples.VM)
    await gateway.bus.purge(subjects.EVENTS, first)
    third = await happen(gateway.bus, stopped())
    await gateway.bus.purge(
        subjects.EVENTS, subjects.event(events.VmStarted, site="main", source="h1", id=OTHER)
    )
    gateway.inventory.away_through = places[1]
    async with tail(gateway, f"?after={places[0]}") as stream:
        assert stream.answer.status_code == 410
    for after in (0, places[1]):
        async with tail(gateway, f"?after={after}") as stream:
            assert (await stream.event())[0] == third


async def test_the_header_is_stronger_than_the_parameter_that_stays_in_the_url(
    gateway: GatewayUnderTest,
) -> None:
    places = [await happen(gateway.bus, started()) for _ in range(3)]
    headers = {"Last-Event-ID": str(places[1])}
    async with tail(gateway, f"?after={places[0]}", **headers) as stream:
        assert (await stream.event())[0] == places[2]


async def test_who_saw_more_than_there_is_gets_all_there_is(gateway: GatewayUnderTest) -> None:
    place = await happen(gateway.bus, started())
    async with tail(gateway, **{"Last-Event-ID": "4711"}) as stream:
        assert (await stream.event())[0] == place


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"?vm={OTHER}", [2, 4]),
        ("?vm=web-1", [1, 3, 5, 6]),
        (f"?operation={samples.OPERATION}", [3, 5, 6]),
        ("?type=vm.stopped", [3, 4]),
        ("?type=vm.stopped&type=operation.*", [3, 4, 5, 6]),
        (f"?type=vm.*&vm={OTHER}", [2, 4]),
        ("?host=h1", [1, 2, 3, 4, 5, 6, 7]),
        ("?host=h2", []),
        ("?site=main", [1, 2, 3, 4, 5, 6, 7]),
        ("?site=other", []),
    ],
)
async def test_a_stream_sends_only_what_is_asked_for(
    gateway: GatewayUnderTest, query: str, expected: list[int]
) -> None:
    operation = samples.OPERATION
    accepted = events.OperationAccepted(
        command="vm.stop", kind="vm", target=samples.VM, request={"vm": samples.VM}
    )
    async with tail(gateway, query) as stream, tail(gateway) as everything:
        await happen(gateway.bus, started())
        await happen(gateway.bus, started(OTHER), vm=OTHER)
        await happen(gateway.bus, stopped(), operation=operation)
        await happen(gateway.bus, stopped(OTHER), vm=OTHER)
        await happen(gateway.bus, accepted, operation=operation)
        await happen(gateway.bus, accepted, operation=operation)
        await happen(gateway.bus, events.HostReturned(host="h1"))
        assert [(await everything.event())[0] for _ in range(7)] == list(range(1, 8))
        assert [(await stream.event())[0] for _ in expected] == expected
        await happen(gateway.bus, stopped(), operation=operation, site="other")
        if query == "?site=other":
            assert (await stream.event())[0] == 8


async def test_what_is_no_event_is_passed_over(gateway: GatewayUnderTest) -> None:
    async with tail(gateway) as stream:
        subject = subjects.event(events.VmStarted, site="main", source="h1", id=samples.VM)
        await gateway.bus.publish(Outgoing(subject=subject, data=b"\xff not json"))
        place = await happen(gateway.bus, started())
        assert (await stream.event())[0] == place


async def test_silence_is_filled_with_comments(gateway_bus: MemoryBus, tmp_path: Path) -> None:
    async with (
        gateway_on(gateway_bus, tmp_path, keepalive_s=0.05) as gateway,
        tail(gateway) as stream,
    ):
        assert await stream.block() == {"": "still here"}
        assert await stream.block() == {"": "still here"}
        place = await happen(gateway.bus, started())
        assert (await stream.event())[0] == place


async def test_streams_are_counted_and_freed(gateway_bus: MemoryBus, tmp_path: Path) -> None:
    limits = LimitSettings(streams=1)
    async with gateway_on(gateway_bus, tmp_path, limits=limits) as gateway:
        async with tail(gateway), tail(gateway) as second:
            assert second.answer.status_code == 429
            problem: dict[str, Any] = msgspec.json.decode(await second.answer.aread())
            assert problem["type"] == "urn:vireo:problem:too-many-requests"
        async with asyncio.timeout(5):
            while True:
                async with tail(gateway) as third:
                    if third.answer.status_code == 200:
                        break


async def test_a_stop_ends_the_streams(gateway_bus: MemoryBus, tmp_path: Path) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        async with gateway_on(gateway_bus, tmp_path) as gateway:
            request = http.build_request("GET", f"{gateway.url}/v1/events")
            answer = await http.send(request, stream=True)
        assert await Tail(answer).ended()
        await answer.aclose()


async def test_a_client_that_reads_nothing_is_cut_off(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    limits = LimitSettings(send_s=0.2, streams=1)
    async with gateway_on(gateway_bus, tmp_path, limits=limits) as gateway:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", gateway.settings.port, limit=1024
        )
        head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        writer.write(head.encode())
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        big = events.VmFailed(vm=samples.VM, host="h1", generation=1, detail="x" * 200_000)
        async with asyncio.timeout(10):
            while True:
                await happen(gateway.bus, big)
                async with tail(gateway) as second:
                    if second.answer.status_code == 200:
                        break
        writer.close()
