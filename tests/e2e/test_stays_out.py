"""What is done behind Vireo's back is told and mended; what is not Vireo's is left alone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import pytest

from schemas import subjects
from schemas.resources import Vm
from schemas.telemetry import HostFrame
from tests.fixtures.plane import (
    FOREIGN,
    Ear,
    Site,
    boot_moment,
    decoded,
    domain_of,
    foreign_as_it_is,
    qemu_of_vm,
    until,
)
from vireo import Client

NOTICED_S = 2.0
EVENT_S = 1.0


@asynccontextmanager
async def _disturbed(site: Site, vm: Vm) -> AsyncIterator[Ear]:
    """Hears what is told of a VM; what was done with it is to be noticed soon."""
    async with site.hearing(subjects.events_about("vm", vm.id, site="default")) as ear:
        began_at = datetime.now(UTC)
        yield ear
        drifted = await ear.event("vm.drifted", timeout_s=NOTICED_S)
        assert (drifted.time - began_at).total_seconds() < NOTICED_S


def _names(ear: Ear) -> list[str]:
    names = [".".join(subjects.parts_of_event(one.subject)[1::2]) for one in ear.heard]
    return [name for name in names if name != "vm.guest_changed"]


async def test_a_guest_destroyed_by_hand_is_started_again(site: Site, client: Client) -> None:
    vm = await site.created(client, "mended", host="h1")
    async with _disturbed(site, vm) as ear:
        site.virsh("h1", "destroy", domain_of(vm))
        await ear.event("vm.started", timeout_s=10)
    assert _names(ear) == ["vm.stopped", "vm.drifted", "vm.started"]
    assert site.virsh("h1", "domstate", domain_of(vm)).strip() == "running"
    assert await _is_shown(client, vm, "running")


async def test_a_guest_suspended_by_hand_is_resumed(site: Site, client: Client) -> None:
    vm = await site.created(client, "mended", host="h1")
    qemu = qemu_of_vm(vm)
    async with _disturbed(site, vm) as ear:
        site.virsh("h1", "suspend", domain_of(vm))
        await ear.event("vm.resumed", timeout_s=10)
    assert _names(ear) == ["vm.paused", "vm.drifted", "vm.resumed"]
    assert qemu_of_vm(vm) == qemu


async def test_a_running_guest_undefined_by_hand_is_defined_again_and_goes_on(
    site: Site, client: Client
) -> None:
    vm = await site.created(client, "mended", host="h1")
    qemu = qemu_of_vm(vm)
    async with _disturbed(site, vm):
        site.virsh("h1", "undefine", domain_of(vm))

    async def persistent() -> bool:
        return domain_of(vm) in site.virsh("h1", "list", "--persistent", "--name")

    await until(persistent, "the domain is defined again", 10)
    assert qemu_of_vm(vm) == qemu


async def test_a_domain_removed_by_hand_is_made_again_on_its_disks(
    site: Site, client: Client
) -> None:
    vm = await site.created(client, "mended", host="h1")
    disk = next(path for path in site.files_of(vm.id) if path.is_dir()) / "root.qcow2"
    inode = disk.stat().st_ino
    async with _disturbed(site, vm) as ear:
        site.virsh("h1", "destroy", domain_of(vm))
        site.virsh("h1", "undefine", domain_of(vm))
        await ear.event("vm.started", timeout_s=10)
    assert site.domains() == [("h1", domain_of(vm))]
    assert disk.stat().st_ino == inode

    async def runs() -> bool:
        return site.virsh("h1", "domstate", domain_of(vm)).strip() == "running"

    await until(runs, "the guest runs again", 10)


async def test_a_stopped_guest_started_by_hand_is_stopped_again(site: Site, client: Client) -> None:
    vm = await site.created(client, "mended", host="h1", power="stopped")
    async with _disturbed(site, vm) as ear:
        site.virsh("h1", "start", domain_of(vm))
        await ear.event("vm.stopped", timeout_s=90)
    assert _names(ear) == ["vm.started", "vm.drifted", "vm.stopped"]


async def test_a_guest_that_shuts_itself_down_is_told_within_a_second(
    site: Site, client: Client
) -> None:
    vm = await site.created(client, "ends", host="h1")
    await boot_moment(client, vm)
    async with site.hearing(subjects.events_about("vm", vm.id, site="default")) as ear:
        with LibvirtEvents(site, vm) as seen:
            ending = asyncio.create_task(_shut_down_from_inside(site, vm))
            told = await ear.event("vm.stopped", timeout_s=30)
            ending.cancel()
            stopped_at = seen.moment("Stopped")
        await ear.event("vm.started", timeout_s=10)
    assert told.data.reason == "guest"
    assert (told.time - stopped_at).total_seconds() < EVENT_S


async def _shut_down_from_inside(site: Site, vm: Vm) -> None:
    """By the guest's own agent, which answers one at a time: the host's may be asking just now."""
    shutdown = json.dumps({"execute": "guest-shutdown"})
    while True:
        await asyncio.to_thread(
            site.try_virsh, "h1", "qemu-agent-command", domain_of(vm), shutdown, "--timeout", "1"
        )
        await asyncio.sleep(0.2)


async def test_a_guest_that_dies_is_told_within_a_second_and_started_again(
    site: Site, client: Client
) -> None:
    vm = await site.created(client, "dies", host="h1")
    qemu = qemu_of_vm(vm)
    assert qemu is not None
    async with site.hearing(subjects.events_about("vm", vm.id, site="default")) as ear:
        died_at = datetime.now(UTC)
        os.kill(qemu, signal.SIGKILL)
        told = await ear.event("vm.crashed", timeout_s=10)
        await ear.event("vm.started", timeout_s=10)
    assert (told.time - died_at).total_seconds() < EVENT_S
    assert _names(ear) == ["vm.crashed", "vm.drifted", "vm.started"]


async def test_an_assignment_that_vanishes_from_fleet_is_no_order(
    site: Site, client: Client
) -> None:
    """Neither now nor when the agent starts again; put back, it is obeyed as before."""
    vm = await site.created(client, "kept", host="h1")
    qemu = qemu_of_vm(vm)
    key = subjects.vm_key(vm=vm.id, host="h1")
    async with site.bus() as connection:
        bucket = await connection.jetstream().key_value(subjects.KV_FLEET)
        assignment = (await bucket.get(key)).value
        assert assignment is not None
        await bucket.delete(key)
        await _agent_hears_all(site)
        await bucket.purge(key)
        await _agent_hears_all(site)
        assert qemu_of_vm(vm) == qemu

        killed = site.kill("hostagent-h1")
        await until(lambda: _is_replaced(site, killed), "the agent runs again")
        await _agent_hears_all(site)
        assert qemu_of_vm(vm) == qemu
        assert site.virsh("h1", "domstate", domain_of(vm)).strip() == "running"
        await bucket.put(key, assignment)
    await site.delete(client, vm.id)
    assert qemu_of_vm(vm) is None


async def _is_replaced(site: Site, killed: int) -> bool:
    return site.pid("hostagent-h1") not in (None, killed)


async def _agent_hears_all(site: Site) -> None:
    """Wait until the agent has handled everything that FLEET has for it."""
    consumer = subjects.fleet_consumer("h1")
    async with site.bus() as connection:

        async def heard() -> bool:
            info = await connection.jetstream().consumer_info(f"KV_{subjects.KV_FLEET}", consumer)
            return (info.num_pending, info.num_ack_pending) == (0, 0)

        await until(heard, "the agent has heard all")


async def test_a_foreign_domain_is_shown_and_left_alone(site: Site, client: Client) -> None:
    """The fixture looks at it again when the session ends, whatever tests have done by then."""
    before = foreign_as_it_is(site)
    shown = decoded(site.cli("host", "show", "h1", "-o", "json"))["facts"]["foreign"]
    assert [(one["name"], one["state"], one["memory_mib"]) for one in shown] == [
        (FOREIGN, "running", 32)
    ]
    assert FOREIGN in site.cli("host", "show", "h1")
    vm = await site.created(client, "beside", host="h1")
    await site.delete(client, vm.id)
    assert foreign_as_it_is(site) == before
    assert before.pid is not None


async def test_a_foreign_domain_that_comes_and_goes_is_shown_within_seconds(
    site: Site, client: Client
) -> None:
    definition = site.hosts["h2"].data_dir / "passing.xml"
    definition.write_text(
        "<domain type='qemu'><name>passing</name><memory unit='MiB'>32</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )

    async def shown(*, names: list[str]) -> bool:
        return [one.name for one in (await client.hosts.get("h2")).facts.foreign] == names

    try:
        site.virsh("h2", "define", str(definition))
        await until(lambda: shown(names=["passing"]), "the new domain is shown", 10)
    finally:
        site.virsh("h2", "undefine", "passing")
    await until(lambda: shown(names=[]), "it is shown no more", 10)


async def test_a_guest_that_hangs_costs_the_others_nothing(site: Site, client: Client) -> None:
    """Its QEMU is frozen: neither libvirt's monitor nor the guest's agent answers."""
    hung = await site.created(client, "hung", host="h1")
    well = await site.created(client, "well", host="h1")
    for vm in (hung, well):
        await boot_moment(client, vm)
    qemu = qemu_of_vm(hung)
    assert qemu is not None
    async with site.hearing(subjects.telemetry(site="default", host="h1")) as ear:
        os.kill(qemu, signal.SIGSTOP)
        try:
            frozen_at = datetime.now(UTC)
            created = await site.created(client, "new", host="h1")
            await until(lambda: _has_heard(ear, 10), "ten frames come", 30)
            await until(lambda: _is_asked_on(ear, well.id), "the other guest's agent is asked on")
            reading = await client.vms.telemetry(well.id)
        finally:
            os.kill(qemu, signal.SIGCONT)
    assert created.state == "running"
    assert reading.guest is not None
    assert reading.guest.at > frozen_at
    frames = _frames(ear)[:10]
    gaps = [(later.at - one.at).total_seconds() for one, later in pairwise(frames)]
    # One frame waits until libvirt is given up for that guest; the others come as ever.
    assert max(gaps) < 4, gaps
    assert len([gap for gap in gaps if gap > 2]) <= 1, gaps
    for frame in frames:
        row = frame.vms.ids.index(well.id)
        assert frame.vms.block_read_bytes[row] is not None
        assert hung.id in frame.vms.ids


async def _is_asked_on(ear: Ear, vm: str) -> bool:
    guests = (one for frame in _frames(ear) for one in frame.guests)
    return len([one for one in guests if one.vm == vm and not one.error]) >= 3


def _frames(ear: Ear) -> list[HostFrame]:
    return [msgspec.json.decode(one.data, type=HostFrame) for one in ear.heard]


async def test_many_guests_that_hang_cost_the_others_next_to_nothing(
    site: Site, client: Client
) -> None:
    """Then only what QEMU has to be asked for is left out."""
    hung = [await site.created(client, f"hung{n}", host="h1") for n in range(4)]
    well = await site.created(client, "well", host="h1")
    frozen = [qemu for vm in hung if (qemu := qemu_of_vm(vm)) is not None]
    async with site.hearing(subjects.telemetry(site="default", host="h1")) as ear:
        try:
            for qemu in frozen:
                os.kill(qemu, signal.SIGSTOP)
            await until(lambda: _has_heard(ear, 8), "frames come", 30)
            operation = await client.vms.stop(well.id, mode="forced", wait=10)
            # What hangs can still be deleted: libvirt is patient with it, and then kills it.
            await client.vms.delete(hung[0].id, wait=60)
        finally:
            for qemu in frozen:
                with suppress(ProcessLookupError):
                    os.kill(qemu, signal.SIGCONT)
    assert operation.latest.phase == "succeeded"
    last = msgspec.json.decode(ear.heard[7].data, type=HostFrame)
    assert {vm.id for vm in (*hung, well)} <= set(last.vms.ids)
    assert last.vms.state[last.vms.ids.index(well.id)] == "running"


async def _has_heard(ear: Ear, count: int) -> bool:
    return len(ear.heard) >= count


async def _is_shown(client: Client, vm: Vm, state: str) -> bool:
    async def shown() -> bool:
        return (await client.vms.get(vm.id)).state == state

    await until(shown, f"it is shown {state}", 10)
    return True


class LibvirtEvents:
    """What libvirt itself tells of a domain, with libvirt's own times."""

    LINE = re.compile(r"^(\S+ \S+): event 'lifecycle' .*: (\w+) ")

    def __init__(self, site: Site, vm: Vm) -> None:
        uri = site.hosts[vm.host].uri
        self._process = subprocess.Popen(
            [
                *("virsh", "-c", uri, "event", "--loop", "--timestamp", "--timeout", "60"),
                *("--event", "lifecycle", "--domain", domain_of(vm)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TZ": "UTC"},
        )

    def __enter__(self) -> LibvirtEvents:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def moment(self, what: str) -> datetime:
        """When it happened; reads until it is told."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = self.LINE.match(line)
            if found is not None and found[2] == what:
                stamp = found[1].removesuffix("+0000")
                return datetime.fromisoformat(stamp).replace(tzinfo=UTC)
        pytest.fail(f"libvirt never told {what}")
