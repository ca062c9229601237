"""The gateway on a real nats-server: one command per key, streams over a restart, the process's end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from chassis.bus import Bus, BusError, Outgoing
from chassis.clock import SystemClock
from chassis.nats import NatsSettings, connect
from schemas import events, samples, subjects
from schemas.ids import derived_id
from schemas.wire import encode, read_header, wrap
from tests.fixtures.gateway import GatewayUnderTest, free_port, gateway_on
from tests.fixtures.nats import NatsServer

SPEC = {"name": "web", "disks": [{"image": "tiny"}]}
KEY = {"Idempotency-Key": "make-web"}


@pytest.fixture
async def on_nats(own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[GatewayUnderTest]:
    settings = NatsSettings(urls=(own_nats_server.url,))
    async with (
        connect(settings, name="gateway") as bus,
        gateway_on(bus, tmp_path / "gateway") as found,
    ):
        yield found


async def test_of_many_at_once_under_one_key_one_publishes(on_nats: GatewayUnderTest) -> None:
    answers = await asyncio.gather(
        *(on_nats.http.post("/v1/vms", json=SPEC, headers=KEY) for _ in range(10))
    )
    assert {answer.status_code for answer in answers} <= {202, 409}
    command = await only_command(on_nats.bus)
    again = await on_nats.http.post("/v1/vms", json=SPEC, headers=KEY)
    assert (again.status_code, again.json()["id"]) == (202, command)
    assert again.headers["idempotency-replayed"] == "true"
    other = await on_nats.http.post("/v1/vms", json={**SPEC, "cpus": 2}, headers=KEY)
    assert other.status_code == 422
    assert len(await on_nats.messages(subjects.EVENTS)) == 1


async def test_without_the_bus_nothing_is_half_done_and_later_all_is(
    on_nats: GatewayUnderTest, own_nats_server: NatsServer
) -> None:
    own_nats_server.kill()
    async with asyncio.timeout(20):
        answer = await on_nats.http.post("/v1/vms", json=SPEC, headers=KEY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        own_nats_server.start()
        while (answer := await on_nats.http.post("/v1/vms", json=SPEC, headers=KEY)).is_error:
            assert answer.status_code in (503, 409)
            await asyncio.sleep(0.05)
    assert await only_command(on_nats.bus) == answer.json()["id"]


async def test_a_stream_goes_on_over_a_restart_of_the_bus(
    on_nats: GatewayUnderTest, own_nats_server: NatsServer
) -> None:
    async with on_nats.http.stream("GET", "/v1/events?type=vm.started") as answer:
        lines = answer.aiter_lines()
        assert await next_id(lines) == 0, "where the stream begins: nothing has happened yet"
        first = await happen(on_nats.bus, "first")
        assert await next_id(lines) == first
        own_nats_server.restart()
        second = await happen(on_nats.bus, "second")
        assert await next_id(lines) == second


async def only_command(bus: Bus) -> str:
    """The id of the one command that was ever published."""
    assert await bus.last_sequence(subjects.COMMANDS) == 1
    message = await bus.last(subjects.COMMANDS, "vireo.cmd.>")
    assert message is not None
    return read_header(message.data).id


async def happen(bus: Bus, name: str) -> int:
    started = events.VmStarted(vm=samples.VM, host="h1", generation=1)
    envelope = wrap(
        started,
        id=derived_id(samples.VM, name),
        site="main",
        sender="h1",
        at=samples.AT,
        about=f"vm/{samples.VM}",
    )
    subject = subjects.event(events.VmStarted, site="main", source="h1", id=samples.VM)
    message = Outgoing(subject=subject, data=encode(envelope), message_id=envelope.id)
    async with asyncio.timeout(20):
        while True:
            try:
                return (await bus.publish(message)).sequence
            except BusError:
                await asyncio.sleep(0.05)


async def next_id(lines: AsyncIterator[str]) -> int:
    async with asyncio.timeout(20):
        async for line in lines:
            if line.startswith("id: "):
                return int(line.removeprefix("id: "))
    raise EOFError


async def test_the_process_makes_its_token_serves_and_ends_with_0_while_a_stream_is_open(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    port, token_file = free_port(), tmp_path / "state" / "admin.token"
    environment = {
        **os.environ,
        "VIREO_NATS_URLS": own_nats_server.url,
        "VIREO_GATEWAY_PORT": str(port),
        "VIREO_GATEWAY_ADMIN_TOKEN_FILE": str(token_file),
    }
    log = tmp_path / "gateway.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.gateway"), stderr=output, env=environment
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await live(http, process)
            token = token_file.read_text().strip()
            http.headers["Authorization"] = f"Bearer {token}"
            async with asyncio.timeout(10):
                while (await http.post("/v1/vms", json=SPEC)).status_code != 202:
                    await asyncio.sleep(0.05)
            async with http.stream("GET", "/v1/events") as stream:
                assert stream.status_code == 200
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(10):
                    assert await process.wait() == 0
        text = log.read_text()
        assert "operation_accepted" in text
        assert token not in text
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def live(http: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    clock = SystemClock()
    until = clock.monotonic() + 20
    while clock.monotonic() < until:
        assert process.returncode is None
        try:
            if (await http.get("/health/live")).status_code == 200:
                return
        except httpx.TransportError:
            await clock.sleep(0.05)
    raise TimeoutError("the gateway did not come up")
