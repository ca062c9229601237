"""Kill -9 of any one process at any point of a create: nobody can tell afterwards.

Points are events that are seen on the bus, and moments that a seed chooses (VIREO_TEST_SEED; a failure
prints it). The processes take turns, because the supervisor gives back more slowly what dies often.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections import Counter
from collections.abc import Iterable

import pytest

from schemas.resources import Operation, VmSpec
from tests.fixtures.plane import (
    CREATED,
    Site,
    Told,
    domain_of,
    ended,
    qemu_of_vm,
    spec_of,
    until,
)
from vireo import Client, PendingOperation, Unavailable

HOST = "h1"
VICTIMS = ("gateway", "scheduler", f"hostagent-{HOST}", "inventory", "metrics", "nats", "postgres")
POINTS = (
    "operation.accepted",
    "vm.scheduled",
    "operation.progressed",
    "vm.defined",
    "vm.started",
)
SEED = int(os.environ.get("VIREO_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
CREATE_MS = 1200
"""About how long a create takes: random moments are chosen within it."""
UNMOVED = {("gateway", "vm.defined"), ("gateway", "vm.started")} | {
    ("metrics", point) for point in POINTS if point != "vm.defined"
}
"""Left out: what has nothing more to do with a create at that point."""
CASES = [
    *((point, victim) for point in POINTS for victim in VICTIMS if (victim, point) not in UNMOVED),
    *(("a random moment", victim) for victim in VICTIMS),
]


@pytest.mark.parametrize(("point", "victim"), CASES)
async def test_a_create_goes_on_after_a_kill(
    site: Site, client: Client, point: str, victim: str
) -> None:
    before = await site.last_sequence()
    delay_ms = random.Random(f"{SEED}/{victim}").uniform(0, CREATE_MS)
    print(f"VIREO_TEST_SEED={SEED}, random moment {delay_ms:.0f} ms")
    spec = spec_of(f"killed-{victim}"[:32], host=HOST)
    async with site.hearing() as ear:
        creating = asyncio.create_task(_create(client, spec))
        if point in POINTS:
            await ear.event(point)
        else:
            await asyncio.sleep(delay_ms / 1000)
        killed = site.kill(victim)
    operation = await ended(client, (await creating).id)
    await until(lambda: _is_replaced(site, victim, killed), f"{victim} runs again")

    await until(lambda: _is_told(site, operation.id, after=before), "the whole trail is told")
    told = await site.check_nothing_lost(after=before)
    await _check_made_once(site, client, await client.operations.get(operation.id))
    assert said_of(operation.id, told) == CREATED


async def _create(client: Client, spec: VmSpec) -> PendingOperation:
    """As a careful client does: the same request with the same key until it is answered."""
    key = str(uuid.uuid4())
    async with asyncio.timeout(30):
        while True:
            try:
                return await client.vms.create(spec, key=key)
            except Unavailable:
                await asyncio.sleep(0.1)


async def _is_told(site: Site, operation: str, *, after: int) -> bool:
    """Whoever is killed between a write and its event tells it when it is back: the guest is faster."""
    return said_of(operation, await site.told(after=after)) >= CREATED


def said_of(operation: str, told: Iterable[Told]) -> Counter[str]:
    """How often each event of an operation was told; what the guest says of itself apart."""
    names = (one.name for one in told if one.envelope.operation == operation)
    return Counter(name for name in names if name != "vm.guest_changed")


async def _is_replaced(site: Site, victim: str, killed: int) -> bool:
    return site.pid(victim) not in (None, killed)


async def _check_made_once(site: Site, client: Client, operation: Operation) -> None:
    assert (operation.phase, operation.problem) == ("succeeded", None)
    trail = [step.event for step in operation.trail]
    assert Counter(trail) == CREATED
    assert (trail[0], trail[-1]) == ("operation.accepted", "operation.succeeded")
    vms = [vm async for vm in client.vms.list()]
    assert [(vm.id, vm.state, vm.host) for vm in vms] == [(operation.target, "running", HOST)]
    assert site.domains() == [(HOST, domain_of(vms[0]))]
    assert site.virsh(HOST, "domstate", domain_of(vms[0])).strip() == "running"
    assert qemu_of_vm(vms[0]) is not None
