"""Restarts under a running system: it recovers by itself within ten seconds, guests notice nothing."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from msgspec import Struct

from schemas.resources import Vm
from tests.fixtures.plane import (
    Site,
    boot_moment,
    domain_of,
    is_event,
    qemu_of_vm,
    until,
)
from vireo import Client

RECOVERY_S = 10.0
_numbers = itertools.count(1)

Restart = Callable[[Site], None]


class Pulse(Struct, frozen=True, kw_only=True):
    """What stays as it is when a guest notices nothing."""

    qemu: int | None
    booted_at: float
    """By this machine's clock, as far as the guest's own uptime tells."""


async def pulse(client: Client, vm: Vm, *, after: datetime | None = None) -> Pulse:
    """From a report of the guest that was made `after` a moment."""
    booted_at = await boot_moment(client, vm, after=after)
    return Pulse(qemu=qemu_of_vm(vm), booted_at=booted_at)


RESTARTS: dict[str, Restart] = {
    "nats killed": lambda site: _end(site, "nats", signal.SIGKILL),
    "nats stopped": lambda site: _end(site, "nats", signal.SIGTERM),
    "postgres killed": lambda site: _end(site, "postgres", signal.SIGKILL),
    "postgres stopped": lambda site: _end(site, "postgres", signal.SIGINT),
    "libvirtd killed": lambda site: site.hosts["h1"].restart_libvirtd(kill=True),
    "libvirtd stopped": lambda site: site.hosts["h1"].restart_libvirtd(),
}


def _end(site: Site, child: str, number: int) -> None:
    site.kill(child, number)


@pytest.mark.parametrize("what", ["nats", "postgres", "libvirtd"])
async def test_a_part_is_restarted_and_all_goes_on(site: Site, client: Client, what: str) -> None:
    before = await site.last_sequence()
    steady = await site.created(client, "steady", host="h1")
    at_first = await pulse(client, steady)
    for how in (f"{what} killed", f"{what} stopped"):
        began, began_at = time.monotonic(), datetime.now(UTC)
        RESTARTS[how](site)
        # A client that is told to come again does so.
        await _creates_again(site, client)
        now = await pulse(client, steady, after=began_at)
        took_s = time.monotonic() - began
        assert took_s < RECOVERY_S, f"{how}: {took_s:.1f} s until all went on"
        assert now.qemu == at_first.qemu
        assert now.booted_at == pytest.approx(at_first.booted_at, abs=2)
    told = await site.check_nothing_lost(after=before)
    assert [one.name for one in told if one.name in ("vm.drifted", "vm.crashed")] == []


async def _creates_again(site: Site, client: Client) -> None:
    name = f"new{next(_numbers)}"
    created: list[Vm] = []

    async def done() -> bool:
        created.append(await site.created(client, name, host="h1"))
        return True

    await until(done, "a new VM is made", RECOVERY_S)
    assert await _runs(site, created[0])


async def test_vireo_up_is_stopped_and_started_on_its_state(site: Site, client: Client) -> None:
    """Guests run on meanwhile; what happens to them is found out, told and mended afterwards."""
    before = await site.last_sequence()
    steady = await site.created(client, "steady", host="h1")
    disturbed = await site.created(client, "disturbed", host="h2")
    at_first = await pulse(client, steady)
    stopped_at = datetime.now(UTC)

    site.plane.stop()
    site.virsh("h2", "destroy", domain_of(disturbed))
    assert qemu_of_vm(steady) == at_first.qemu
    site.plane.start()

    await site.settled()
    now = await pulse(client, steady, after=stopped_at)
    assert now.qemu == at_first.qemu
    assert now.booted_at == pytest.approx(at_first.booted_at, abs=2)
    await until(lambda: _runs(site, disturbed), "what was destroyed runs again", RECOVERY_S)
    await until(lambda: _is_shown_running(client, disturbed), "it is shown running", RECOVERY_S)
    told = await site.check_nothing_lost(after=before)
    later = [
        one.name
        for one in told
        if getattr(one.envelope.data, "vm", "") == disturbed.id and one.envelope.time > stopped_at
    ]
    assert [name for name in later if name != "vm.guest_changed"] == [
        "vm.stopped",
        "vm.drifted",
        "vm.started",
    ]


async def test_a_host_loses_power_and_its_guests_come_back(site: Site, client: Client) -> None:
    before = await site.last_sequence()
    lost = await site.created(client, "lost", host="h2")
    off = await site.created(client, "off", host="h2", power="stopped")
    other = await site.created(client, "other", host="h1")
    survivor = qemu_of_vm(other)
    await boot_moment(client, lost)

    cut_at = datetime.now(UTC)
    site.hosts["h2"].crash()
    assert qemu_of_vm(lost) is None
    site.hosts["h2"].start()

    await until(lambda: _runs(site, lost), "the guest is started again", 2 * RECOVERY_S)

    async def booted_again() -> bool:
        return await boot_moment(client, lost, after=cut_at) > cut_at.timestamp()

    await until(booted_again, "the guest reports a new boot", 60)
    assert site.virsh("h2", "domstate", domain_of(off)).strip() == "shut off"
    assert qemu_of_vm(other) == survivor
    told = await site.check_nothing_lost(after=before)
    names = [one.name for one in told if getattr(one.envelope.data, "vm", "") == lost.id]
    assert "vm.drifted" in names
    assert names.count("vm.started") == 2


async def test_a_host_without_libvirtd_is_worked_for_as_soon_as_it_answers(
    site: Site, client: Client
) -> None:
    """What is assigned meanwhile waits, and is done within the retries' time."""
    async with site.hearing() as ear:
        site.hosts["h2"].crash()
        pending = await client.vms.create(
            {
                "name": "patient",
                "memory_mib": 96,
                "disks": [{"image": "tiny"}],
                "on": {"host": "h2"},
            }
        )
        await ear.first(
            lambda message: is_event(message, "vm.scheduled"), "it is placed", timeout_s=5
        )
        site.hosts["h2"].start()
        operation = await asyncio.wait_for(pending.wait(), 2 * RECOVERY_S)
    assert operation.phase == "succeeded"


async def _runs(site: Site, vm: Vm) -> bool:
    return site.virsh(vm.host, "domstate", domain_of(vm)).strip() == "running"


async def _is_shown_running(client: Client, vm: Vm) -> bool:
    return (await client.vms.get(vm.id)).state == "running"
