"""A service's life on a real bus: it starts, says that it is ready, works, and ends cleanly."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import tomli_w

from chassis.bus import Bus, NoResponders, Outgoing
from chassis.health import Health
from chassis.micro import ask
from chassis.nats.connect import connect
from chassis.nats.settings import NatsSettings
from chassis.run import run_until, running
from chassis.service import BatchConsumer, Consumer, Endpoint, Rig, Service
from chassis.settings import ChassisSettings
from chassis.work import ServiceBroke
from schemas.problems import Problem
from schemas.queries import Empty
from schemas.subjects import COMMANDS
from tests.fixtures.nats import NatsServer
from vireo.standalone.child import Notified
from vireo.standalone.readiness import Watch

ROOT = Path(__file__).parents[2]


def settings_for(server: NatsServer) -> ChassisSettings:
    return ChassisSettings(nats=NatsSettings(urls=(server.url,)), grace_s=10)


@asynccontextmanager
async def client(server: NatsServer) -> AsyncIterator[Bus]:
    async with connect(NatsSettings(urls=(server.url,)), name="test") as bus:
        yield bus


def consumer_of(handler: object, name: str) -> Consumer | BatchConsumer:
    return Consumer(
        stream=COMMANDS,
        name=name,
        description="for a test",
        subjects=("vireo.cmd.test.>",),
        handler=handler,  # type: ignore[arg-type]
    )


async def test_a_service_makes_the_streams_answers_and_counts(own_nats_server: NatsServer) -> None:
    handled = asyncio.Event()

    async def build(_settings: ChassisSettings, _rig: Rig) -> Service:
        async def handle(_message: object) -> None:
            handled.set()

        async def echo(_request: Empty) -> bytes:
            return b'"hello"'

        endpoint = Endpoint(name="echo", description="Says hello", request=Empty, handler=echo)
        return Service(
            description="A test", consumers=[consumer_of(handle, "birds")], endpoints=[endpoint]
        )

    async with (
        running("gateway", settings_for(own_nats_server), build) as work,
        client(own_nats_server) as bus,
        asyncio.timeout(20),
    ):
        await work.until_ready()
        assert await ask(bus, "gateway", "echo", Empty(), timeout_s=2) == b'"hello"'
        answer = await ask(bus, "gateway", "ready", Empty(), timeout_s=2)
        assert isinstance(answer, bytes)
        assert msgspec.json.decode(answer, type=Health).ready
        await bus.publish(Outgoing(subject="vireo.cmd.test.vm.create", data=b"{}"))
        await handled.wait()
        while 'outcome="' not in (text := work.meters.text()).partition("handled_total")[2]:
            await asyncio.sleep(0.01)
        assert 'consumer="birds"' in text
        metrics = await ask(bus, "gateway", "metrics", Empty(), timeout_s=2)
        assert isinstance(metrics, bytes)
        assert b"vireo_service_info{" in metrics
    async with client(own_nats_server) as bus:
        with pytest.raises(NoResponders):
            await ask(bus, "gateway", "live", Empty(), timeout_s=2)


async def test_what_is_in_hand_is_finished_before_stores_are_closed(
    own_nats_server: NatsServer,
) -> None:
    story: list[str] = []
    begun, go_on, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def build(_settings: ChassisSettings, _rig: Rig) -> Service:
        async def handle(_message: object) -> None:
            story.append("begun")
            begun.set()
            await go_on.wait()
            story.append("finished")

        async def loop() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                story.append("loop ended")

        async def close() -> None:
            story.append("closed")

        return Service(
            description="A test",
            consumers=[consumer_of(handle, "slow")],
            background=[loop],
            close=close,
        )

    async with asyncio.timeout(20), client(own_nats_server) as bus:
        task = asyncio.create_task(
            run_until(stop, "scheduler", settings_for(own_nats_server), build)
        )
        await _published(bus, "vireo.cmd.test.vm.create")
        await begun.wait()
        stop.set()
        await asyncio.sleep(0)
        go_on.set()
        await task
    assert story == ["begun", "finished", "loop ended", "closed"]


async def test_a_service_that_cannot_work_yet_is_alive_but_not_ready(
    own_nats_server: NatsServer,
) -> None:
    warm = asyncio.Event()

    async def build(_settings: ChassisSettings, _rig: Rig) -> Service:
        return Service(description="A test", ready=warm.is_set)

    async with (
        running("metrics", settings_for(own_nats_server), build) as work,
        client(own_nats_server) as bus,
        asyncio.timeout(20),
    ):
        while "endpoints" in work.doctor.health().missing:
            await asyncio.sleep(0.01)
        refusal = await ask(bus, "metrics", "ready", Empty(), timeout_s=2)
        assert isinstance(refusal, Problem)
        assert refusal.detail == "waits for service"
        assert isinstance(await ask(bus, "metrics", "live", Empty(), timeout_s=2), bytes)
        warm.set()
        assert isinstance(await ask(bus, "metrics", "ready", Empty(), timeout_s=2), bytes)


async def test_a_background_loop_that_breaks_brings_the_service_down(
    own_nats_server: NatsServer,
) -> None:
    async def build(_settings: ChassisSettings, _rig: Rig) -> Service:
        async def loop(*, settings: str) -> None:
            raise LookupError(f"nothing there for {len(settings)} characters")

        return Service(description="A test", background=[partial(loop, settings="secret")])

    # Named by its function: what it was given may hold more than a log should.
    with pytest.raises(ServiceBroke, match=r"build\.<locals>\.loop ended$") as caught:
        async with asyncio.timeout(20):
            await run_until(asyncio.Event(), "metrics", settings_for(own_nats_server), build)
    assert isinstance(caught.value.__cause__, LookupError)


PROGRAM = """
import asyncio
from chassis import run
from chassis.service import Service
from chassis.settings import ChassisSettings

async def build(settings, rig):
    return Service(description="A test")

run.main("gateway", ChassisSettings, build)
"""


async def _process(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_says_that_it_is_ready_and_ends_with_0_when_told_to_stop(
    number: signal.Signals, own_nats_server: NatsServer, tmp_path: Path
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(tomli_w.dumps({"nats": {"urls": [own_nats_server.url]}}))
    async with asyncio.timeout(30), Watch(Notified(), tmp_path / "notify") as watch:
        process = await _process("--config", str(config), **watch.environment)
        await watch.ready()
        process.send_signal(number)
        _, logged = await process.communicate()
    events = [msgspec.json.decode(line)["event"] for line in logged.splitlines()]
    assert process.returncode == 0, logged.decode()
    assert events[-1] == "service_stopped"
    assert "service_ready" in events


async def test_a_process_that_waits_for_the_bus_can_still_be_stopped() -> None:
    async with asyncio.timeout(30):
        process = await _process(VIREO_NATS_URLS="nats://127.0.0.1:1")
        assert process.stderr is not None
        await process.stderr.readline()  # it has begun, and says that nobody is there
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def test_wrong_settings_end_a_process_with_2_and_all_reasons() -> None:
    async with asyncio.timeout(30):
        process = await _process(VIREO_GATEWAY_SIET="x", VIREO_LOG_LEVEL="loud")
        _, said = await process.communicate()
    assert process.returncode == 2
    assert said.decode().splitlines() == [
        "gateway: 2 settings are wrong:",
        "  VIREO_GATEWAY_SIET: unknown setting; did you mean VIREO_GATEWAY_SITE?",
        "  VIREO_LOG_LEVEL: Invalid enum value 'loud'",
    ]


async def test_settings_can_be_checked_without_starting() -> None:
    async with asyncio.timeout(30):
        process = await _process("--check-settings")
        said, _ = await process.communicate()
    assert (process.returncode, said) == (0, b"gateway: the settings are good\n")


async def _published(bus: Bus, subject: str) -> None:
    """Publish as soon as the service has made the stream."""
    while True:
        try:
            await bus.publish(Outgoing(subject=subject, data=b"{}"))
        except Exception:  # noqa: BLE001 - not there yet, in whichever words
            await asyncio.sleep(0.05)
        else:
            return
