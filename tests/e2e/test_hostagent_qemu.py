"""The agent on real libvirt and real guests, on an isolated host; only the scheduler is acted out."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.guest import GuestImage
from deploy.lab import Host
from schemas import events, subjects
from schemas.actions import RebootVmOnce
from schemas.envelope import Envelope
from schemas.resources import DiskSpec, NicSpec
from schemas.telemetry import HostFrame
from services.hostagent import accel
from services.hostagent.settings import GuestAgentSettings, Settings
from tests.fixtures.hostagent import (
    VM,
    World,
    assignment_of,
    id_of,
    spec_of,
    world_of,
)

BOOT_S = 60.0


@pytest.fixture
async def world(lab_hosts: tuple[Host, Host], tiny_guest: GuestImage) -> AsyncIterator[World]:
    host = lab_hosts[0]
    settings = Settings(
        host=host.name,
        libvirt_uri=host.uri,
        domain_type="qemu",
        data_dir=host.data_dir / "agent",
        image_dir=tiny_guest.directory,
        tick_s=1,
        keepalive_s=1,
        guest_agent=GuestAgentSettings(interval_s=1),
    )
    async with world_of(settings) as one:
        try:
            yield one
        finally:
            await remove(one)
            (settings.data_dir / "journal.sqlite").unlink()


async def remove(world: World) -> None:
    """Leave no guest behind, whatever the test was about."""
    for vm in (VM, id_of(2)):
        end = assignment_of(99, vm=vm, host=world.settings.host, ended=True, stop_mode="forced")
        await world.assign(end)
        await world.ends(end, timeout_s=BOOT_S)


def wish(world: World, generation: int = 1, **changes: Any) -> Any:
    spec = spec_of(disks=(DiskSpec(image="tiny", size_gib=1),))
    return assignment_of(generation, host=world.settings.host, **{"spec": spec, **changes})


async def boot(world: World) -> None:
    await world.assign(wish(world))
    end = await world.ends(wish(world), timeout_s=BOOT_S)
    assert isinstance(end.data, events.OperationSucceeded), end.data


def virsh(world: World, *arguments: str) -> str:
    done = subprocess.run(
        ["virsh", "-q", "-c", world.settings.libvirt_uri, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def by_agent(world: World, name: str, **arguments: Any) -> Any:
    """What a guest's own agent answers to a command."""
    command = json.dumps({"execute": name, "arguments": arguments})
    return json.loads(virsh(world, "qemu-agent-command", "--timeout", "1", VM, command))["return"]


async def virsh_once_it_can(world: World, *arguments: str) -> None:
    """A libvirtd that has just started takes a moment to find its domains again."""
    async with asyncio.timeout(10):
        while True:
            try:
                virsh(world, *arguments)
            except subprocess.CalledProcessError:
                await asyncio.sleep(0.05)
            else:
                return


async def address(world: World) -> Envelope[Any]:
    """The event with which the guest's agent shows an address."""
    return await world.until(
        lambda one: isinstance(one.data, events.VmGuestChanged) and bool(one.data.guest.addresses),
        timeout_s=BOOT_S,
    )


def qemu_pid(world: World) -> int:
    """QEMU's process, by the id that stands in its command line."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"qemu-system" in words[0] and VM.encode() in words:
            return int(entry.parent.name)
    raise AssertionError("no QEMU runs for this VM")


async def test_a_guest_boots_shows_itself_reboots_and_is_removed_without_a_trace(
    world: World,
) -> None:
    await boot(world)
    guest = (await address(world)).data.guest
    assert guest.os
    assert guest.kernel

    async with world.bus.listen(
        subjects.telemetry(site="default", host=world.settings.host)
    ) as frames:
        async for message in frames:
            frame = msgspec.json.decode(message.data, type=HostFrame)
            if frame.guests and frame.guests[0].memory_total_kib:
                break
    assert frame.vms.ids == (VM,)
    assert frame.vms.state == ("running",)
    assert (frame.vms.cpu_time_ns[0] or 0) > 0
    assert ((frame.vms.cpu_steal_ns[0] or 0) > 0) == Path("/proc/self/schedstat").exists()
    assert (frame.vms.memory_rss_kib[0] or 0) > 0
    (sample,) = frame.guests
    assert not sample.error
    assert sample.load1 is not None
    assert sample.uptime_s is not None
    assert sample.cpus_online == 1
    assert frame.sample.memory_total_mib
    assert frame.sample.disk_free_bytes

    deadline = world.clock.now() + timedelta(seconds=60)
    action = RebootVmOnce(vm=VM, mode="graceful", deadline=deadline)
    await world.reboot(action, operation=id_of(50))
    rebooted = await world.until(lambda one: one.operation == id_of(50), timeout_s=BOOT_S)
    assert isinstance(rebooted.data, events.VmRebooted), rebooted.data

    for generation, change in enumerate(({"power": "paused"}, {}), start=2):
        await world.assign(wish(world, generation, **change))
        await world.ends(wish(world, generation))
    await address(world)
    stop = wish(world, 4, power="stopped", grace_s=30)
    await world.assign(stop)
    end = await world.ends(stop, timeout_s=BOOT_S)
    assert isinstance(end.data, events.OperationSucceeded)
    assert (world.settings.data_dir / "vms" / VM / "console.log").stat().st_size > 0

    await world.assign(wish(world, 5, ended=True))
    await world.ends(wish(world, 5, ended=True))

    assert virsh(world, "list", "--all", "--uuid").split() == []
    assert list((world.settings.data_dir / "vms").iterdir()) == []


async def test_a_guest_whose_qemu_is_killed_is_told_as_crashed_and_runs_again(
    world: World,
) -> None:
    await boot(world)

    killed_at = world.clock.now()
    os.kill(qemu_pid(world), signal.SIGKILL)

    crashed = await world.happens("vm.crashed", timeout_s=10)
    drifted = await world.happens("vm.drifted", timeout_s=10)
    again = await world.until(
        lambda one: one.type == "vireo.vm.started.v1" and one.time > crashed.time, timeout_s=10
    )
    assert (crashed.time - killed_at).total_seconds() < 1
    assert crashed.time <= drifted.time <= again.time
    assert virsh(world, "domstate", VM).strip() == "running"


async def test_a_guest_whose_kernel_panics_is_told_within_a_second_and_runs_again(
    world: World,
) -> None:
    await boot(world)
    await address(world)
    handle = by_agent(world, "guest-file-open", path="/proc/sysrq-trigger", mode="w")

    panicked_at = world.clock.now()
    crash = base64.b64encode(b"c").decode()
    with suppress(subprocess.CalledProcessError):
        # Its agent does not live to answer.
        by_agent(world, "guest-file-write", handle=handle, **{"buf-b64": crash})
        by_agent(world, "guest-file-flush", handle=handle)

    crashed = await world.happens("vm.crashed", timeout_s=10)
    again = await world.until(
        lambda one: one.type == "vireo.vm.started.v1" and one.time > crashed.time, timeout_s=10
    )
    assert crashed.data.detail == "the guest's kernel panicked"
    assert (crashed.time - panicked_at).total_seconds() < 1
    assert (again.time - crashed.time).total_seconds() < 5
    assert virsh(world, "domstate", VM).strip() == "running"


async def test_a_restart_of_libvirtd_and_of_the_agent_touches_no_guest(
    world: World, lab_hosts: tuple[Host, Host]
) -> None:
    await boot(world)
    before = qemu_pid(world)
    told = world.names()

    lab_hosts[0].restart_libvirtd()
    await world.stop()
    await world.start()
    await world.assign(wish(world, 2))
    end = await world.ends(wish(world, 2), timeout_s=BOOT_S)

    assert isinstance(end.data, events.OperationSucceeded), end.data
    assert qemu_pid(world) == before
    assert [name for name in world.names() if name != "vm.guest_changed"] == told


async def test_an_agent_finds_libvirtd_again_by_itself(
    world: World, lab_hosts: tuple[Host, Host]
) -> None:
    await boot(world)

    lab_hosts[0].restart_libvirtd(kill=True)
    await virsh_once_it_can(world, "destroy", VM)

    drifted = await world.happens("vm.drifted", timeout_s=10)
    await world.until(
        lambda one: one.type == "vireo.vm.started.v1" and one.time > drifted.time, timeout_s=10
    )


async def test_what_was_undefined_and_destroyed_by_hand_runs_again_on_its_disk(
    world: World,
) -> None:
    await boot(world)
    disk = world.settings.data_dir / "vms" / VM / "root.qcow2"
    inode = disk.stat().st_ino

    virsh(world, "undefine", VM)
    await world.happens("vm.drifted", timeout_s=10)
    virsh(world, "destroy", VM)

    stopped = await world.happens("vm.stopped", timeout_s=10)
    await world.until(
        lambda one: one.type == "vireo.vm.started.v1" and one.time > stopped.time, timeout_s=10
    )
    assert disk.stat().st_ino == inode
    assert virsh(world, "domstate", VM).strip() == "running"


async def test_a_foreign_domain_is_shown_and_left_alone(world: World) -> None:
    stranger = world.settings.data_dir / "stranger.xml"
    stranger.write_text(
        "<domain type='qemu'><name>stranger</name><memory unit='MiB'>64</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )
    try:
        virsh(world, "define", str(stranger))
        shown = await world.until(
            lambda one: (
                isinstance(one.data, events.HostRegistered) and bool(one.data.facts.foreign)
            ),
            timeout_s=10,
        )
        (foreign,) = shown.data.facts.foreign
        assert (foreign.name, foreign.state, foreign.memory_mib) == ("stranger", "stopped", 64)
        await boot(world)
        assert virsh(world, "domstate", "stranger").strip() == "shut off"
    finally:
        virsh(world, "undefine", "stranger")
        stranger.unlink()


async def test_a_network_that_is_not_there_fails_the_operation_with_the_reason(
    world: World,
) -> None:
    spec = spec_of(nics=(NicSpec(network="nowhere"),))
    await world.assign(wish(world, spec=spec))
    end = await world.ends(wish(world), timeout_s=BOOT_S)

    assert isinstance(end.data, events.OperationFailed)
    assert "nowhere" in end.data.problem.detail


async def test_a_kernel_that_boots_is_recognised_and_one_that_cannot_is_not(
    tiny_guest: GuestImage, tmp_path: Path
) -> None:
    assert await accel.boots(tiny_guest.kernel, accelerator="tcg", limit_s=30)

    broken = tmp_path / "broken.vmlinuz"
    broken.write_bytes(b"no kernel")
    assert not await accel.boots(broken, accelerator="tcg", limit_s=30)


async def test_the_choice_of_accelerator_is_remembered(
    tiny_guest: GuestImage, tmp_path: Path
) -> None:
    memory = tmp_path / "accelerator.json"
    first = await accel.choose("auto", image_dir=tiny_guest.directory, memory=memory, limit_s=5)
    kept = memory.read_bytes() if memory.exists() else b""
    second = await accel.choose("auto", image_dir=tiny_guest.directory, memory=memory, limit_s=5)

    assert first == second
    assert (memory.read_bytes() if memory.exists() else b"") == kept
