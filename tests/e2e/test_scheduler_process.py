"""The scheduler as a process of its own, on a real nats-server: killed, and cut off from the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.bus import Unavailable
from chassis.catalogue import ensure_streams
from chassis.kv import entry
from schemas import subjects
from tests.fixtures.nats import NatsServer
from tests.fixtures.scheduler_site import (
    CLOCK,
    FLEET,
    PATIENCE_S,
    TICK_S,
    Site,
    eventually,
    scheduler_site,
)


@pytest.fixture
async def site(own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Site]:
    async with scheduler_site(own_nats_server, tmp_path) as made:
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
