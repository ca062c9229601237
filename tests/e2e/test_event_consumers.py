"""Outside programs that follow the record: resumed behind the stream's beginning, shared under a name."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as Nats

from bench.test_driver import node_file
from deploy.control_plane import ControlPlane
from schemas.subscriptions import SettleEvents
from tests.fixtures.plane import until
from vireo import Client, Invalid, NotFound
from vireo.settings import ClientSettings

WAIT_S = 30.0


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """In a directory that Postgres' own user may enter."""
    with tempfile.TemporaryDirectory(prefix="vireo-heard-") as directory:
        place = Path(directory)
        place.chmod(0o711)
        hosts = {"h1": node_file(place / "node.xml")}
        with ControlPlane(place / "state", hosts) as running:
            yield running


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    async with Client(plane.url, plane.token) as client:
        yield client


@pytest.fixture
async def bus(plane: ControlPlane) -> AsyncIterator[Nats]:
    password = (plane.state_dir / "credentials/operator.password").read_text().strip()
    bus = await nats.connect(
        f"nats://127.0.0.1:{plane.nats_port}", user="operator", password=password
    )
    yield bus
    await bus.close()


async def rack(client: Client, name: str) -> None:
    """Something that happens: three events, one of them `host.configured`."""
    await client.hosts.configure("h1", labels={"rack": name}, wait=WAIT_S)


def lines(plane: ControlPlane, *arguments: str) -> list[dict[str, object]]:
    done = plane.cli("event", "tail", "-o", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_stream_resumes_behind_its_beginning_without_hole_or_double(
    plane: ControlPlane, client: Client, bus: Nats
) -> None:
    for number in range(4):
        await rack(client, f"r{number}")
    whole = await bus.jetstream().stream_info("EVENTS")
    stored = [header.id async for header in client.events.list()]
    count = whole.state.messages
    assert len(stored) == count

    # As after seven days: the stream has lost its first events, the record has them.
    await bus.jetstream().purge_stream("EVENTS", keep=4)
    seen = lines(plane, "--after", "0", "--count", str(count), "--name", "resumed")
    assert [each["id"] for each in seen] == stored
    one = lines(plane, "--after", "3", "--count", "2")
    assert [each["id"] for each in one] == stored[3:5]
    configured = lines(plane, "--after", "0", "--type", "host.configured", "--count", "4")
    assert {each["type"] for each in configured} == {"vireo.host.configured.v1"}
    two = ("--type", "host.registered", "--type", "host.configured")
    either = lines(plane, "--after", "0", *two, "--count", "5")
    told = {each["type"] for each in either}
    assert told == {"vireo.host.registered.v1", "vireo.host.configured.v1"}

    # The same name goes on where it was, whatever was restarted meanwhile.
    await rack(client, "later")
    following = lines(plane, "--name", "resumed", "--count", "3")
    assert {each["id"] for each in following}.isdisjoint(stored)
    assert len({each["id"] for each in following}) == 3


def start(plane: ControlPlane, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "vireo.cli", "event", "subscribe", *arguments],
        env=plane.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def test_processes_that_share_a_name_handle_each_event(
    plane: ControlPlane, client: Client, tmp_path: Path
) -> None:
    await client.subscriptions.begin("shared", types=("host.configured",))
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    common = ("shared", "--type", "host.configured", "--exec")
    processes = [start(plane, *common, f"tee -a {file}") for file in files]
    try:
        for number in range(8):
            await rack(client, f"shared-{number}")

        def handled() -> list[str]:
            text = "".join(file.read_text() for file in files if file.exists())
            return [
                json.loads(line)["data"]["config"]["labels"]["rack"] for line in text.splitlines()
            ]

        async def all_handled() -> bool:
            return len(handled()) >= 8

        await until(all_handled, "every event was handled", timeout_s=WAIT_S)
        assert sorted(handled()) == [f"shared-{number}" for number in range(8)]
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)
    listed = await asyncio.to_thread(plane.cli, "event", "subscriptions", "-o", "json")
    assert json.loads(listed.stdout) == [{"name": "shared", "waiting": 0}], listed.stderr
    state = await client.subscriptions.end("shared")
    assert state.waiting == 0


@asynccontextmanager
async def no_gateway(plane: ControlPlane) -> AsyncIterator[list[object]]:
    """It is killed and nobody starts it again meanwhile; who asks for it, is shown the door."""
    knocks: list[object] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks.append(reader)
        writer.close()

    os.kill(plane.pid, signal.SIGSTOP)
    try:
        os.kill(plane.children()["gateway"], signal.SIGKILL)
        async with asyncio.timeout(WAIT_S), await listening(refuse, plane.port):
            yield knocks
    finally:
        os.kill(plane.pid, signal.SIGCONT)


async def listening(answer: Any, port: int) -> asyncio.Server:
    """As soon as the one who was killed has let go."""
    while True:
        try:
            return await asyncio.start_server(answer, "127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)


def answers(plane: ControlPlane) -> bool:
    with suppress(OSError):
        return bool(plane.get("/v1/hosts"))
    return False


async def racks_heard(client: Client, *, after: int, count: int) -> list[str]:
    """As an open event stream tells them."""
    found: list[str] = []
    types = ("host.configured",)
    async with aclosing(client.events.stream(types=types, after=str(after))) as stream:
        async for event in stream:
            found.append(json.loads(event.raw)["data"]["config"]["labels"]["rack"])
            if len(found) == count:
                break
    return found


async def test_a_gateway_that_dies_is_outlived_by_those_who_listen(
    plane: ControlPlane, client: Client, bus: Nats, tmp_path: Path
) -> None:
    """Killed while a stream is open and a program has an event in hand, and away for longer than a
    request is tried again."""
    newest = (await bus.jetstream().stream_info("EVENTS")).state.last_seq
    heard = asyncio.create_task(racks_heard(client, after=newest, count=2))
    await client.subscriptions.begin("steady", types=("host.configured",))
    handled, door = tmp_path / "handled.jsonl", tmp_path / "door"
    os.mkfifo(door)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntee -a {handled}\nread _ < {door}\n")
    program.chmod(0o755)

    def racks() -> list[str]:
        lines = handled.read_text().splitlines() if handled.exists() else []
        return [json.loads(line)["data"]["config"]["labels"]["rack"] for line in lines]

    async def is_in_hand() -> bool:
        return racks() == ["before"]

    subscriber = start(
        plane, "steady", "--type", "host.configured", "--exec", str(program), "--count", "2"
    )
    try:
        await rack(client, "before")
        await until(is_in_hand, "it is in hand", timeout_s=WAIT_S)
        async with no_gateway(plane) as knocks:
            await asyncio.to_thread(door.write_text, "go on\n")

            async def asked_in_vain() -> bool:
                return len(knocks) > ClientSettings().attempts

            await until(asked_in_vain, "it asks more often than a request", timeout_s=WAIT_S)
        await asyncio.to_thread(plane.wait_until, lambda: answers(plane), "the gateway is back")
        await rack(client, "after")
        await asyncio.to_thread(door.write_text, "go on\n")
        assert await asyncio.to_thread(subscriber.wait, WAIT_S) == 0
    finally:
        subscriber.terminate()
        subscriber.wait(10)
    assert racks() == ["before", "after"]
    async with asyncio.timeout(WAIT_S):
        assert await heard == ["before", "after"]
    assert (await client.subscriptions.end("steady")).waiting == 0


async def test_what_a_program_cannot_handle_comes_again_and_then_is_a_dead_letter(
    plane: ControlPlane, client: Client, bus: Nats
) -> None:
    await client.subscriptions.begin("failing", types=("host.configured",))
    await rack(client, "unwelcome")
    done = await asyncio.to_thread(
        plane.cli,
        *("event", "subscribe", "failing", "--type", "host.configured", "--exec", "false"),
        *("--attempts", "2", "--count", "1"),
    )
    assert "again in 1 s" in done.stderr, done
    assert "after 2 attempts it is a dead letter" in done.stderr, done
    letter = await bus.jetstream().get_last_msg("DEADLETTERS", "vireo.dlq.EVENTS.SUB_failing")
    assert letter.headers is not None
    assert letter.headers["Vireo-Dead-Reason"] == "false ended with 1"
    assert letter.headers["Vireo-Dead-Delivered"] == "2"
    assert json.loads(letter.data or b"")["data"]["config"]["labels"] == {"rack": "unwelcome"}
    assert (await client.subscriptions.end("failing")).waiting == 0
    with pytest.raises(NotFound):
        await client.subscriptions.take("failing", wait_s=0.2)


async def test_an_event_that_nobody_settles_is_handed_out_again(
    plane: ControlPlane, client: Client
) -> None:
    await client.subscriptions.begin("leased", types=("host.configured",), lease_s=1)
    await rack(client, "leased")
    first = (await client.subscriptions.take("leased")).items[0]
    second = (await client.subscriptions.take("leased")).items[0]
    assert (first.delivered, second.delivered) == (1, 2)
    assert first.sequence == second.sequence
    await client.subscriptions.settle("leased", SettleEvents(done=(second.receipt,)))
    assert (await client.subscriptions.take("leased", wait_s=0.2)).items == ()
    await client.subscriptions.end("leased")


async def test_a_receipt_of_others_is_refused(client: Client) -> None:
    await client.subscriptions.begin("own")
    for receipt in (
        "$JS.ACK.EVENTS.SUB_other.1.1.1.1.1",
        "$JS.ACK.EVENTS.inventory.1.1.1.1.1",
        "$JS.ACK.COMMANDS.SUB_own.1.1.1.1.1",
        "vireo.cmd.default.vm.delete",
    ):
        with pytest.raises(Invalid):
            await client.subscriptions.settle("own", SettleEvents(done=(receipt,)))
    await client.subscriptions.end("own")
