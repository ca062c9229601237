"""The whole agent on a bus and a hypervisor in memory: what it does when the world misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from chassis import kv
from schemas import events, subjects
from schemas.actions import RebootVmOnce
from schemas.resources import DiskSpec, ForeignDomain
from services.hostagent.memory_hypervisor import MemoryHypervisor
from services.hostagent.settings import RetrySettings, Settings
from tests.fixtures.hostagent import (
    HOST,
    VM,
    World,
    assignment_of,
    id_of,
    spec_of,
    world_of,
    write_image,
)

WAIT_S = 10.0


def settings_in(folder: Path) -> Settings:
    write_image(folder / "images")
    return Settings(
        host=HOST,
        data_dir=folder / "data",
        image_dir=folder / "images",
        tick_s=0.2,
        survey_s=0.2,
        facts_s=0.2,
        reboot_s=0.5,
        ask_again_s=0.1,
        retry=RetrySettings(first_s=0.01, longest_s=0.05, attempts=3, restart_first_s=0.05),
    )


@pytest.fixture
def hypervisor() -> MemoryHypervisor:
    return MemoryHypervisor()


@pytest.fixture
async def world(hypervisor: MemoryHypervisor, tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(settings_in(tmp_path), hypervisor) as one:
        yield one


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


def state(hypervisor: MemoryHypervisor) -> str:
    domain = hypervisor.domains.get(VM)
    return "absent" if domain is None else domain.seen.state


async def test_an_assignment_becomes_a_running_guest(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    end = await world.ends(assignment_of())

    assert isinstance(end.data, events.OperationSucceeded)
    assert state(hypervisor) == "running"
    assert world.names() == ["vm.defined", "vm.started"]
    assert (end.actor, end.source) == ("ada", f"/vireo/default/{HOST}")


async def test_a_vm_lives_through_all_its_wishes(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    wishes = [
        assignment_of(1),
        assignment_of(2, power="paused"),
        assignment_of(3),
        assignment_of(4, power="stopped"),
        assignment_of(5),
        assignment_of(6, ended=True),
    ]
    for assignment in wishes:
        await world.assign(assignment)
        end = await world.ends(assignment)
        assert isinstance(end.data, events.OperationSucceeded)

    assert world.names() == [
        *("vm.defined", "vm.started", "vm.paused", "vm.resumed"),
        *("vm.stopped", "vm.started", "vm.stopped", "vm.deleted"),
    ]
    assert (hypervisor.domains, hypervisor.disks) == ({}, {})


async def test_a_guest_that_dies_is_told_and_started_again(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())

    hypervisor.guest_stops(VM, "crashed")

    await until(lambda: world.names()[2:] == ["vm.crashed", "vm.drifted", "vm.started"])
    assert state(hypervisor) == "running"


async def test_a_guest_that_keeps_dying_is_started_ever_less_often(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())
    loop = asyncio.get_running_loop()
    waits = []
    for _ in range(4):
        died_s = loop.time()
        hypervisor.guest_stops(VM)
        await until(lambda: state(hypervisor) == "running")
        waits.append(loop.time() - died_s)

    assert waits[0] < waits[3]
    assert waits[3] > 0.1


async def test_what_was_undefined_by_hand_comes_back_on_its_disks(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())
    hypervisor.log.clear()

    hypervisor.tamper(None, vm=VM)

    await until(lambda: world.names()[2:] == ["vm.stopped", "vm.drifted", "vm.started"])
    assert hypervisor.log == ["define", "start"]


async def test_lost_disks_are_never_replaced_by_blank_ones(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())
    hypervisor.disks.clear()
    hypervisor.tamper(None, vm=VM)
    await world.happens("vm.failed")

    await world.assign(assignment_of(2))
    end = await world.ends(assignment_of(2))

    assert isinstance(end.data, events.OperationFailed)
    assert "missing" in end.data.problem.detail
    assert hypervisor.disks == {}


async def test_an_agent_that_was_away_finds_out_what_happened(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())
    await world.stop()
    hypervisor.guest_stops(VM, "crashed")

    await world.start()

    await until(lambda: world.names()[2:] == ["vm.crashed", "vm.drifted", "vm.started"])


async def test_a_restart_of_the_agent_changes_nothing_and_tells_nothing(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())
    told, done = world.names(), list(hypervisor.log)

    await world.stop()
    await world.start()
    await world.assign(assignment_of(vm=id_of(2)))
    await world.ends(assignment_of(vm=id_of(2)))

    assert world.names(about=f"vm/{VM}") == told
    assert hypervisor.log[: len(done)] == done
    assert hypervisor.domains[VM].starts == 1


async def test_a_missing_assignment_is_no_order(world: World, hypervisor: MemoryHypervisor) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())

    await world.withdraw(assignment_of())
    await world.assign(assignment_of(vm=id_of(2)))
    await world.ends(assignment_of(vm=id_of(2)))

    assert state(hypervisor) == "running"
    hypervisor.guest_stops(VM)
    await until(lambda: state(hypervisor) == "running")


async def test_a_deleted_vm_is_forgotten_when_its_key_is_purged(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    ended = assignment_of(2, ended=True)
    await world.assign(assignment_of())
    await world.ends(assignment_of())
    await world.assign(ended)
    await world.ends(ended)
    await world.withdraw(ended)

    again = assignment_of(1, operation=id_of(77))
    await world.assign(again)

    assert isinstance((await world.ends(again)).data, events.OperationSucceeded)
    assert state(hypervisor) == "running"


async def test_an_older_generation_that_comes_late_is_ignored(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of(2))
    await world.ends(assignment_of(2))

    await world.assign(assignment_of(1, ended=True))
    await world.assign(assignment_of(vm=id_of(2)))
    await world.ends(assignment_of(vm=id_of(2)))

    assert state(hypervisor) == "running"


async def test_an_image_that_is_not_there_fails_the_operation_and_leaves_nothing(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    disks = (DiskSpec(size_gib=1), DiskSpec(name="data", image="nowhere"))
    assignment = assignment_of(spec=spec_of(disks=disks))

    await world.assign(assignment)
    end = await world.ends(assignment)

    assert isinstance(end.data, events.OperationFailed)
    assert end.data.problem.detail == "image 'nowhere' is not on this host"
    assert (hypervisor.domains, hypervisor.disks) == ({}, {})


async def test_a_hypervisor_that_is_away_delays_an_operation(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    hypervisor.disconnect()
    await world.assign(assignment_of())

    hypervisor.reconnect()

    assert isinstance((await world.ends(assignment_of())).data, events.OperationSucceeded)


async def test_a_hypervisor_that_stays_away_fails_the_operation(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    hypervisor.disconnect()
    await world.assign(assignment_of())

    end = await world.ends(assignment_of())

    assert isinstance(end.data, events.OperationFailed)
    assert "did not answer" in end.data.problem.detail


async def test_a_guest_that_does_not_listen_is_destroyed_after_its_grace(tmp_path: Path) -> None:
    hypervisor = MemoryHypervisor(obedient=False)
    async with world_of(settings_in(tmp_path), hypervisor) as world:
        await world.assign(assignment_of())
        await world.ends(assignment_of())
        stop = assignment_of(2, power="stopped", grace_s=0.3)
        await world.assign(stop)
        end = await world.ends(stop)

    detail = "guest cut off: it had not shut down within 0.3 s"
    assert end.data == events.OperationSucceeded(detail=detail)
    assert hypervisor.log.count("ask_to_stop") >= 2
    assert hypervisor.log[-1] == "destroy"


async def test_a_newer_wish_cuts_the_grace_short_and_ends_the_older_operation(
    tmp_path: Path,
) -> None:
    hypervisor = MemoryHypervisor(obedient=False)
    async with world_of(settings_in(tmp_path), hypervisor) as world:
        await world.assign(assignment_of())
        await world.ends(assignment_of())
        patient = assignment_of(2, power="stopped", grace_s=3600)
        await world.assign(patient)
        await until(lambda: "ask_to_stop" in hypervisor.log)
        forced = assignment_of(3, power="stopped", stop_mode="forced")
        await world.assign(forced)

        assert isinstance((await world.ends(forced)).data, events.OperationSucceeded)
        superseded = await world.ends(patient)

    assert isinstance(superseded.data, events.OperationFailed)
    assert superseded.data.problem.type == "urn:vireo:problem:conflict"


async def test_one_slow_guest_holds_up_no_other(tmp_path: Path) -> None:
    hypervisor = MemoryHypervisor(obedient=False)
    settings = replace(settings_in(tmp_path), concurrency=1)
    async with world_of(settings, hypervisor) as world:
        await world.assign(assignment_of())
        await world.ends(assignment_of())
        await world.assign(assignment_of(2, power="stopped", grace_s=3600))
        await until(lambda: "ask_to_stop" in hypervisor.log)

        other = assignment_of(vm=id_of(2))
        await world.assign(other)

        assert isinstance((await world.ends(other)).data, events.OperationSucceeded)


def reboot_of(world: World, *, in_s: float = 60, vm: str = VM) -> RebootVmOnce:
    deadline = world.clock.now() + timedelta(seconds=in_s)
    return RebootVmOnce(vm=vm, mode="graceful", deadline=deadline)


async def test_a_reboot_is_done_once_however_often_it_comes(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())
    for _ in range(2):
        await world.reboot(reboot_of(world), operation=id_of(50))
    await world.happens("vm.rebooted")
    await world.reboot(reboot_of(world, vm=id_of(8)), operation=id_of(51))
    await world.until(lambda one: one.operation == id_of(51))

    assert hypervisor.log.count("reboot graceful") == 1


async def test_a_reboot_that_comes_too_late_is_not_done(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    await world.assign(assignment_of())
    await world.ends(assignment_of())

    await world.reboot(reboot_of(world, in_s=-1), operation=id_of(50))
    end = await world.happens("operation.failed")

    assert end.data.problem.type == "urn:vireo:problem:deadline-exceeded"
    assert "reboot graceful" not in hypervisor.log


async def test_a_guest_that_ignores_a_reboot_fails_it(tmp_path: Path) -> None:
    async with world_of(settings_in(tmp_path), MemoryHypervisor(obedient=False)) as world:
        await world.assign(assignment_of())
        await world.ends(assignment_of())
        await world.reboot(reboot_of(world), operation=id_of(50))
        end = await world.happens("operation.failed")

    assert end.data.problem.type == "urn:vireo:problem:guest-failed"


async def test_a_host_registers_and_again_when_something_changes(
    world: World, hypervisor: MemoryHypervisor
) -> None:
    first = await world.happens("host.registered")
    stranger = ForeignDomain(name="pet", uuid="u", state="running", cpus=2, memory_mib=512)
    hypervisor.foreign = (stranger,)
    second = await world.until(
        lambda one: one.type == "vireo.host.registered.v1" and one.id != first.id
    )

    assert first.data.facts.images[0].name == "tiny"
    assert second.data.facts == replace(first.data.facts, foreign=(stranger,))


async def test_the_lease_is_kept(world: World) -> None:
    await until(lambda: world.bus.connected)
    subject = kv.subject_of(subjects.KV_LEASES, HOST)
    async with asyncio.timeout(WAIT_S):
        while await world.bus.last(kv.stream_of(subjects.KV_LEASES), subject) is None:
            await asyncio.sleep(0.01)


async def test_garbage_in_fleet_is_put_aside_and_stops_nothing(world: World) -> None:
    key = subjects.vm_key(vm=id_of(5), host=HOST)
    await world.bus.publish(kv.put(subjects.KV_FLEET, key, b"\xff not json"))

    await world.assign(assignment_of())

    assert isinstance((await world.ends(assignment_of())).data, events.OperationSucceeded)
    async with asyncio.timeout(WAIT_S):
        while await world.bus.last_sequence(subjects.DEADLETTERS) == 0:
            await asyncio.sleep(0.01)
