"""The scheduler as a process of its own, on a real nats-server: killed, and cut off from the bus."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chassis.bus import Bus, CaughtUp, Incoming, Outgoing, Start, Unavailable
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.ids import SystemIds
from chassis.kv import entry, put, stream_of
from chassis.nats import NatsSettings, connect
from schemas import subjects
from schemas.commands import CreateVm
from schemas.events import HostRegistered
from schemas.wire import encode, unwrap, wrap
from tests.fixtures.nats import NatsServer
from tests.fixtures.scheduler import SITE, facts, spec

FLEET = stream_of(subjects.KV_FLEET)
PATIENCE_S = 30.0
TICK_S = 0.05
RENEWAL_S = 1.0

IDS = SystemIds()
CLOCK = SystemClock()


class Site:
    """A scheduler process, its bus, and what the test plays: gateway and hosts."""

    def __init__(self, bus: Bus, server: NatsServer, directory: Path) -> None:
        self.bus = bus
        self.server = server
        self._log = directory / "scheduler.log"
        self._process: Process | None = None

    async def start(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "VIREO_SITE": SITE,
            "VIREO_NATS_URLS": self.server.url,
            "VIREO_LOG_FORMAT": "json",
        }
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.scheduler", env=environment, stderr=log
            )

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None

    async def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        code = await self._process.wait()
        self._process = None
        return code

    async def renew(self, *hosts: str) -> None:
        """Renew the hosts' leases until cancelled."""
        while True:
            for host in hosts:
                try:
                    await self.bus.publish(put(subjects.KV_LEASES, host, b"{}", ttl_s=10))
                except Unavailable:
                    continue
            await asyncio.sleep(RENEWAL_S)

    async def register(self, host: str, **changes: Any) -> None:
        id = IDS.new()
        envelope = wrap(
            HostRegistered(facts=facts(host, **changes)),
            id=id,
            site=SITE,
            sender=host,
            at=CLOCK.now(),
            about=f"host/{host}",
        )
        subject = subjects.event(HostRegistered, site=SITE, source=host, id=host)
        await self.bus.publish(Outgoing(subject=subject, data=encode(envelope), message_id=id))

    async def create(self, name: str, **changes: Any) -> str:
        """Wish for a VM; returns the operation."""
        id, vm = IDS.new(), IDS.new()
        wish = wrap(
            CreateVm(vm=vm, spec=spec(name, memory_mib=32, **changes)),
            id=id,
            site=SITE,
            sender="gateway",
            at=CLOCK.now(),
            about=f"vm/{vm}",
            operation=id,
            actor="ann",
        )
        subject = subjects.command(CreateVm, site=SITE)
        await self.bus.publish(Outgoing(subject=subject, data=encode(wish), message_id=id))
        return id

    async def stored(self, stream: str) -> list[Incoming]:
        found: list[Incoming] = []
        async with self.bus.follow(stream, [">"], start=Start(at="all")) as messages:
            async for message in messages:
                if isinstance(message, CaughtUp):
                    return found
                found.append(message)
        return found

    async def outcomes(self) -> Counter[tuple[str, str]]:
        """How often each operation was said to be scheduled or failed."""
        said = [unwrap(message.data) for message in await self.stored(subjects.EVENTS)]
        return Counter(
            (event.operation or "", subjects.BY_TYPE[event.type].name)
            for event in said
            if event.operation is not None
        )

    async def vm_keys(self) -> list[str]:
        keys = [entry(message).key for message in await self.stored(FLEET)]
        return [key for key in keys if key.startswith("vm.")]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(TICK_S)


@asynccontextmanager
async def _site(server: NatsServer, directory: Path) -> AsyncIterator[Site]:
    async with connect(NatsSettings(urls=(server.url,)), name="test") as bus:
        await ensure_streams(bus, CLOCK)
        site = Site(bus, server, directory)
        renewals = asyncio.create_task(site.renew("h1", "h2"))
        try:
            yield site
        finally:
            renewals.cancel()
            await asyncio.wait([renewals])
            await site.kill()


@pytest.fixture
async def site(own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Site]:
    async with _site(own_nats_server, tmp_path) as made:
        await made.start()
        for host in ("h1", "h2"):
            await made.register(host, cpus=512, memory_mib=1 << 20, disk_gib=1 << 20)
        yield made


async def test_a_host_that_registers_can_read_its_assignments(site: Site) -> None:
    operation = await site.create("web")

    async def scheduled() -> bool:
        return (await site.outcomes())[operation, "vm.scheduled"] == 1

    await eventually(scheduled)
    (key,) = await site.vm_keys()
    host = key.rpartition(".")[2]
    async with site.bus.pull(FLEET, subjects.fleet_consumer(host), batch=10) as deliveries:
        keys = {entry((await anext(aiter(deliveries))).message).key for _ in range(2)}
    assert keys == {key, subjects.host_facts_key(host)}


async def test_told_to_stop_it_ends_with_zero(site: Site) -> None:
    operation = await site.create("web")

    async def scheduled() -> bool:
        return (await site.outcomes())[operation, "vm.scheduled"] == 1

    await eventually(scheduled)
    assert await site.stop() == 0


VMS = 400


@pytest.mark.parametrize("after", [1, 40, 250])
async def test_killed_amid_creates_each_vm_is_placed_once_and_no_event_is_missing(
    site: Site, after: int
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (begin := await site.bus.last_sequence(FLEET)) < 2:
            await asyncio.sleep(TICK_S)
    wishes = asyncio.gather(*(site.create(f"vm{number}") for number in range(VMS)))
    async with asyncio.timeout(PATIENCE_S):
        while await site.bus.last_sequence(FLEET) < begin + after:
            await asyncio.sleep(0)
    await site.kill()
    left = await site.bus.last(subjects.COMMANDS, ">")
    operations = await wishes
    assert left is not None, "it was killed too late to show anything"
    await site.start()

    async def all_are_said() -> bool:
        outcomes = await site.outcomes()
        return all(outcomes[operation, "vm.scheduled"] for operation in operations)

    await eventually(all_are_said)
    outcomes = await site.outcomes()
    assert {outcomes[operation, "vm.scheduled"] for operation in operations} == {1}
    assert len(await site.vm_keys()) == VMS


async def test_after_the_bus_was_restarted_it_goes_on_by_itself(site: Site) -> None:
    first = await site.create("before")

    async def before_is_said() -> bool:
        return (await site.outcomes())[first, "vm.scheduled"] == 1

    await eventually(before_is_said)
    site.server.restart()

    async def created_again() -> bool:
        try:
            await ensure_streams(site.bus, CLOCK)
            return (await site.outcomes())[first, "vm.scheduled"] == 1
        except Unavailable:
            return False

    await eventually(created_again)
    began = CLOCK.monotonic()
    second = await site.create("after")

    async def after_is_said() -> bool:
        return (await site.outcomes())[second, "vm.scheduled"] == 1

    await eventually(after_is_said)
    assert CLOCK.monotonic() - began < 10
