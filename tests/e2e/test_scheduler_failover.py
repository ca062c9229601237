"""Two schedulers of one site, as processes: one is active, the other takes over, and both together keep
to what each host can take."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.bus import BusError
from chassis.kv import subject_of
from schemas import subjects
from tests.fixtures.nats import NatsServer
from tests.fixtures.scheduler import SITE
from tests.fixtures.scheduler_site import (
    CLOCK,
    FLEET,
    PATIENCE_S,
    TICK_S,
    Site,
    eventually,
    scheduler_site,
)

VMS = 300
ROOM = 120
"""How many of the VMs each of the two hosts can take."""
VM_MIB = 32
RESERVE_MIB = 512
FAIL_OVER_S = 5.0
UNPIN = f"$JS.API.CONSUMER.UNPIN.{subjects.COMMANDS}.scheduler-{SITE}"


@pytest.fixture
async def site(own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Site]:
    async with scheduler_site(own_nats_server, tmp_path) as made:
        await asyncio.gather(made.start("one"), made.start("two"))
        memory_mib = RESERVE_MIB + ROOM * VM_MIB
        for host in ("h1", "h2"):
            await made.register(host, cpus=512, memory_mib=memory_mib, disk_gib=1 << 20)
        async with asyncio.timeout(PATIENCE_S):
            for host, name in itertools.product(("h1", "h2"), ("one", "two")):
                await registered(made, host, name)
        yield made


async def registered(site: Site, host: str, name: str) -> None:
    """The host is known, and this scheduler is warm."""
    key = subject_of(subjects.KV_FLEET, subjects.host_facts_key(host))
    while await site.bus.last(FLEET, key) is None or "service_ready" not in site.log(name):
        await asyncio.sleep(TICK_S)


async def active(site: Site) -> str | None:
    """Which of the two places VMs now."""
    last = await site.bus.last(FLEET, subject_of(subjects.KV_FLEET, subjects.term_key(SITE)))
    return json.loads(last.data)["scheduler"] if last else None


async def every_create_has_ended_once(site: Site, operations: list[str]) -> None:
    async def all_have() -> bool:
        return set(operations) <= {operation for operation, _ in await site.outcomes()}

    await eventually(all_have)
    outcomes = await site.outcomes()
    ends = ("vm.scheduled", "operation.failed")
    assert {sum(outcomes[one, end] for end in ends) for one in operations} == {1}
    keys = [key.split(".") for key in await site.vm_keys()]
    assert len({vm for _, vm, _ in keys}) == len(keys) == 2 * ROOM
    assert Counter(host for _, _, host in keys) == {"h1": ROOM, "h2": ROOM}


async def test_when_the_active_one_is_killed_the_other_one_takes_over(site: Site) -> None:
    wishes = asyncio.gather(*(site.create(f"vm{number}") for number in range(VMS)))
    async with asyncio.timeout(PATIENCE_S):
        while len(await site.vm_keys()) < 20:
            await asyncio.sleep(0)
    killed = await active(site)
    assert killed is not None
    await site.kill(killed)
    killed_at = CLOCK.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while await active(site) == killed:
            await asyncio.sleep(TICK_S)
    assert CLOCK.monotonic() - killed_at < FAIL_OVER_S

    await every_create_has_ended_once(site, await wishes)


async def test_while_both_are_active_no_vm_is_placed_twice_and_no_host_gets_too_much(
    site: Site,
) -> None:
    terms: list[str | None] = []

    async def pass_the_turn_on() -> None:
        """Again and again, while each has commands in hand."""
        while True:
            await site.bus.request(UNPIN, b'{"group": "active"}', timeout_s=5)
            terms.append(await active(site))
            await asyncio.sleep(0.01)

    turning = asyncio.create_task(pass_the_turn_on())
    operations = await asyncio.gather(*(site.create(f"vm{number}") for number in range(VMS)))
    try:
        await every_create_has_ended_once(site, list(operations))
    finally:
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)

    assert {"one", "two"} <= set(terms), "only one of them placed anything"


async def test_one_that_is_told_to_stop_leaves_no_gap(site: Site) -> None:
    first = await site.create("first")

    async def is_placed() -> bool:
        return await active(site) is not None

    await eventually(is_placed)
    leaving = await active(site)
    assert leaving is not None
    assert await site.stop(leaving) == 0
    began = CLOCK.monotonic()
    second = await site.create("second")

    async def both_are_scheduled() -> bool:
        try:
            outcomes = await site.outcomes()
        except BusError:
            return False
        return all(outcomes[one, "vm.scheduled"] == 1 for one in (first, second))

    await eventually(both_are_scheduled)
    assert CLOCK.monotonic() - began < FAIL_OVER_S / 2
