"""The agent as a process, on a real NATS server and libvirt's test driver."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from chassis import kv
from chassis.bus import Bus, CaughtUp, ConsumerConfig, Start
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.nats import NatsSettings, connect
from schemas import subjects, wire
from services.hostagent.journal import Journal
from tests.fixtures.hostagent import HOST, VM, assignment_of, test_driver_uri, write_image
from tests.fixtures.nats import NatsServer

WAIT_S = 30
ROOT = Path(__file__).parents[2]
SECCOMP = (
    sys.executable,
    str(ROOT / "tests/fixtures/under_seccomp.py"),
    str(ROOT / "deploy/seccomp/hostagent.json"),
)
"""The system calls that docker-compose.vsock.yml lets the agent make."""


@asynccontextmanager
async def agent(
    folder: Path, url: str, under: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One agent process, started by what it is `under`; ended by SIGTERM, it must say good-bye with 0."""
    config = folder / "agent.toml"
    config.write_text(
        f'host = "{HOST}"\nlibvirt_uri = "{test_driver_uri(folder)}"\n'
        f'data_dir = "{folder}/data"\nimage_dir = "{folder}/images"\ntick_s = 0.5\n'
        f'[nats]\nurls = ["{url}"]\n'
    )
    write_image(folder / "images")
    with (folder / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *under,
            *(sys.executable, "-m", "services.hostagent", "--config", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"]},
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_S):
            assert await process.wait() == 0, (folder / "agent.log").read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def play_scheduler(bus: Bus) -> None:
    await ensure_streams(bus, SystemClock())
    await bus.ensure_consumer(
        ConsumerConfig(
            stream=kv.stream_of(subjects.KV_FLEET),
            name=subjects.fleet_consumer(HOST),
            description="as the scheduler makes it",
            subjects=(kv.subject_of(subjects.KV_FLEET, subjects.host_keys(HOST)),),
            deliver="last_per_subject",
        )
    )


async def names_until(bus: Bus, last: str) -> list[str]:
    """The names of all events up to the first one called `last`."""
    names: list[str] = []
    start = Start(at="all")
    async with (
        asyncio.timeout(WAIT_S),
        bus.follow(subjects.EVENTS, [subjects.ALL_EVENTS], start=start) as feed,
    ):
        async for message in feed:
            if isinstance(message, CaughtUp):
                continue
            names.append(wire.unwrap(message.data).type.removeprefix("vireo.")[:-3])
            if names[-1] == last:
                break
    return names


@pytest.mark.parametrize("under", [(), SECCOMP], ids=["free", "as in its container"])
async def test_an_assignment_on_the_bus_becomes_events_on_the_bus(
    under: Sequence[str], own_nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = NatsSettings(urls=(own_nats_server.url,))
    async with connect(settings, name="test") as bus, agent(tmp_path, own_nats_server.url, under):
        await play_scheduler(bus)
        key = subjects.vm_key(vm=VM, host=HOST)
        await bus.publish(kv.put(subjects.KV_FLEET, key, wire.encode(assignment_of())))

        names = await names_until(bus, "operation.succeeded")
        async with bus.listen(subjects.telemetry(site="default", host=HOST)) as frames:
            frame = await anext(aiter(frames))

    assert [name for name in names if name != "host.registered"] == [
        *("operation.progressed", "vm.defined", "vm.started", "operation.succeeded"),
    ]
    assert msgspec.json.decode(frame.data)["vms"]["ids"] == [VM]


async def test_without_a_bus_the_agent_still_brings_its_guests_back(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "data" / "journal.sqlite")
    await journal.open()
    await journal.accept(assignment_of(), None)
    await journal.close()
    own_nats_server.kill()

    async with agent(tmp_path, own_nats_server.url):
        log = tmp_path / "agent.log"
        async with asyncio.timeout(WAIT_S):
            while "vm.started" not in log.read_text():
                await asyncio.sleep(0.05)
        own_nats_server.start()
        settings = NatsSettings(urls=(own_nats_server.url,))
        async with connect(settings, name="test") as bus:
            await play_scheduler(bus)
            names = await names_until(bus, "operation.succeeded")

    assert "vm.started" in names
