"""What the agent relies on in any hypervisor: the one in memory and libvirt's test driver alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.assignments import VmAssignment
from schemas.cloud_init import CloudInit
from schemas.resources import DiskSpec, NicSpec, StopMode
from services.hostagent.disks import Disks
from services.hostagent.hypervisor import (
    Changed,
    Claimed,
    Connected,
    Hypervisor,
    HypervisorFailure,
    HypervisorUnavailable,
    Notice,
    Rebooted,
)
from services.hostagent.libvirt_hypervisor import LibvirtHypervisor
from services.hostagent.memory_hypervisor import MemoryHypervisor
from services.hostagent.model import Define, Destroy, Move, Pause, Resume, Stamp, Start, Undefine
from tests.fixtures.hostagent import VM, assignment_of, id_of, spec_of, test_driver_uri, write_image

WAIT_S = 5.0


class Notices:
    """Everything that a hypervisor told, to be waited for."""

    def __init__(self) -> None:
        self.heard: list[Notice] = []
        self._more = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, notice: Notice) -> None:
        self.heard.append(notice)
        task = asyncio.ensure_future(self._wake())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wake(self) -> None:
        async with self._more:
            self._more.notify_all()

    async def expect(self, notice: Notice) -> None:
        async with asyncio.timeout(WAIT_S), self._more:
            await self._more.wait_for(lambda: notice in self.heard)


def libvirt_test_driver(folder: Path, *, vsock: bool = False) -> LibvirtHypervisor:
    write_image(folder / "images")
    return LibvirtHypervisor(
        uri=test_driver_uri(folder),
        domain_type="test",
        disks=Disks(folder / "data", folder / "images", empty=True),
        cmdline="console=ttyS0",
        threads=4,
        agent_threads=1,
        timeout_s=10,
        keepalive_s=2,
        vsock=vsock,
    )


@asynccontextmanager
async def running(hypervisor: Hypervisor) -> AsyncIterator[tuple[Hypervisor, Notices]]:
    notices = Notices()
    hypervisor.listen(notices)
    task = asyncio.create_task(hypervisor.run())
    try:
        await notices.expect(Connected())
        yield hypervisor, notices
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(params=["memory", "libvirt test driver"])
async def pair(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Hypervisor, Notices]]:
    made: Hypervisor = (
        MemoryHypervisor() if request.param == "memory" else libvirt_test_driver(tmp_path)
    )
    async with running(made) as both:
        yield both


@pytest.fixture
def hypervisor(pair: tuple[Hypervisor, Notices]) -> Hypervisor:
    return pair[0]


@pytest.fixture
def notices(pair: tuple[Hypervisor, Notices]) -> Notices:
    return pair[1]


async def make(hypervisor: Hypervisor, *, start: bool = False) -> None:
    assignment = assignment_of()
    for disk in assignment.spec.disks:
        await hypervisor.create_disk(VM, disk)
    await hypervisor.move([Define(assignment)])
    if start:
        await hypervisor.move([Start(VM)])


async def state(hypervisor: Hypervisor) -> str:
    observed = await hypervisor.observe(VM)
    return "absent" if observed is None else observed.state


async def test_what_was_never_made_is_not_there(hypervisor: Hypervisor) -> None:
    assert await hypervisor.observe(VM) is None


async def test_a_defined_domain_tells_all_that_it_was_defined_with(hypervisor: Hypervisor) -> None:
    await make(hypervisor)

    observed = await hypervisor.observe(VM)

    assert observed is not None
    assert (observed.state, observed.ours, observed.persistent) == ("stopped", True, True)
    assert (observed.generation, observed.spec) == (1, spec_of())
    assert (observed.cpus, observed.memory_mib) == (1, 128)


async def test_text_of_any_alphabet_survives_in_the_metadata(hypervisor: Hypervisor) -> None:
    spec = spec_of(metadata={"note": '<Grüße> & "日本" \x07 \U0001f426 ]]>'})
    await hypervisor.create_disk(VM, spec.disks[0])
    await hypervisor.move([Define(assignment_of(spec=spec))])

    observed = await hypervisor.observe(VM)

    assert observed is not None
    assert observed.spec == spec


async def test_a_life_goes_through_its_states(hypervisor: Hypervisor) -> None:
    await make(hypervisor)
    seen = [await state(hypervisor)]
    for move in (Start(VM), Pause(VM), Resume(VM), Destroy(VM)):
        await hypervisor.move([move])
        seen.append(await state(hypervisor))
    await hypervisor.move([Undefine(VM)])
    seen.append(await state(hypervisor))

    assert seen == ["stopped", "running", "paused", "running", "stopped", "absent"]


async def test_every_move_may_be_made_twice(hypervisor: Hypervisor) -> None:
    await make(hypervisor)
    await make(hypervisor)
    for move in (Start(VM), Pause(VM), Resume(VM), Destroy(VM)):
        await hypervisor.move([move])
        await hypervisor.move([move])
    await hypervisor.move([Undefine(VM)])
    await hypervisor.move([Undefine(VM)])
    await hypervisor.move([Destroy(VM)])
    await hypervisor.remove_disks(VM)
    await hypervisor.remove_disks(VM)

    assert await hypervisor.observe(VM) is None


async def test_a_guest_that_is_asked_to_stop_stops_by_itself(
    hypervisor: Hypervisor, notices: Notices
) -> None:
    await make(hypervisor, start=True)
    notices.heard.clear()

    await hypervisor.ask_to_stop(VM)
    await notices.expect(Changed(domain=VM))

    observed = await hypervisor.observe(VM)
    assert observed is not None
    assert (observed.state, observed.cause) == ("stopped", "guest")


async def test_a_destroyed_guest_did_not_stop_by_itself(hypervisor: Hypervisor) -> None:
    await make(hypervisor, start=True)

    await hypervisor.move([Destroy(VM)])

    observed = await hypervisor.observe(VM)
    assert observed is not None
    assert observed.cause == "host"


async def test_a_newer_generation_is_stamped_on_a_running_domain(hypervisor: Hypervisor) -> None:
    await make(hypervisor, start=True)

    await hypervisor.move([Stamp(assignment_of(7))])

    observed = await hypervisor.observe(VM)
    assert observed is not None
    assert (observed.state, observed.generation) == ("running", 7)


async def test_a_running_domain_can_be_defined_anew_and_keeps_running(
    hypervisor: Hypervisor,
) -> None:
    await make(hypervisor, start=True)

    await hypervisor.move([Define(assignment_of(2, spec=spec_of(memory_mib=256)))])

    observed = await hypervisor.observe(VM)
    assert observed is not None
    assert (observed.state, observed.generation, observed.memory_mib) == ("running", 2, 256)


async def test_a_domain_without_its_disks_is_not_defined(hypervisor: Hypervisor) -> None:
    with pytest.raises(HypervisorFailure, match="missing"):
        await hypervisor.move([Define(assignment_of())])

    assert await hypervisor.observe(VM) is None


async def test_an_unknown_image_is_refused_by_name(hypervisor: Hypervisor) -> None:
    with pytest.raises(HypervisorFailure, match="'nowhere' is not on this host"):
        await hypervisor.create_disk(VM, DiskSpec(image="nowhere"))


async def test_a_blank_disk_needs_a_size(hypervisor: Hypervisor) -> None:
    with pytest.raises(HypervisorFailure, match="neither an image nor a size"):
        await hypervisor.create_disk(VM, DiskSpec(name="data"))


async def test_disks_outlive_everything_but_their_removal(hypervisor: Hypervisor) -> None:
    await make(hypervisor)
    with pytest.raises(HypervisorFailure, match="still there"):
        await hypervisor.remove_disks(VM)
    await hypervisor.move([Undefine(VM)])
    await hypervisor.move([Define(assignment_of())])
    await hypervisor.move([Undefine(VM)])
    await hypervisor.remove_disks(VM)

    with pytest.raises(HypervisorFailure, match="missing"):
        await hypervisor.move([Define(assignment_of())])


def seeded(**changes: Any) -> VmAssignment:
    return assignment_of(spec=spec_of(seeded=True), cloud_init=CloudInit(**changes))


async def test_a_domain_with_a_seed_is_not_defined_without_it(hypervisor: Hypervisor) -> None:
    wish = seeded(user_data="#!/bin/sh\n")
    await hypervisor.create_disk(VM, wish.spec.disks[0])
    with pytest.raises(HypervisorFailure, match=r"seed.*missing"):
        await hypervisor.move([Define(wish)])

    for _ in range(2):
        await hypervisor.write_seed(wish)
    await hypervisor.move([Define(wish)])

    assert await state(hypervisor) == "stopped"


async def test_a_seed_goes_with_the_disks(hypervisor: Hypervisor) -> None:
    wish = seeded()
    await hypervisor.create_disk(VM, wish.spec.disks[0])
    await hypervisor.write_seed(wish)
    await hypervisor.remove_disks(VM)

    await hypervisor.create_disk(VM, wish.spec.disks[0])
    with pytest.raises(HypervisorFailure, match=r"seed.*missing"):
        await hypervisor.move([Define(wish)])


async def test_a_seed_of_which_nobody_knows_what_is_in_it_fails(hypervisor: Hypervisor) -> None:
    with pytest.raises(HypervisorFailure, match="not known any more"):
        await hypervisor.write_seed(assignment_of(spec=spec_of(seeded=True)))


async def test_a_running_domain_is_not_undefined(hypervisor: Hypervisor) -> None:
    await make(hypervisor, start=True)

    with pytest.raises(HypervisorFailure, match="running"):
        await hypervisor.move([Undefine(VM)])

    assert await state(hypervisor) == "running"


async def test_moves_in_one_go_are_made_in_order_up_to_the_first_that_is_not_wanted(
    hypervisor: Hypervisor,
) -> None:
    assignment = assignment_of()
    await hypervisor.create_disk(VM, assignment.spec.disks[0])
    asked: list[Move] = []

    @contextmanager
    def twice(move: Move) -> Iterator[bool]:
        asked.append(move)
        yield len(asked) < 3

    moves: list[Move] = [Define(assignment), Start(VM), Pause(VM), Destroy(VM)]
    await hypervisor.move(moves, twice)

    assert asked == moves[:3]
    assert await state(hypervisor) == "running"


async def test_the_first_move_that_fails_is_the_last(hypervisor: Hypervisor) -> None:
    await make(hypervisor, start=True)

    with pytest.raises(HypervisorFailure, match="running"):
        await hypervisor.move([Undefine(VM), Destroy(VM)])

    assert await state(hypervisor) == "running"


async def test_what_the_agent_did_itself_is_not_noticed_and_what_came_after_is(
    hypervisor: Hypervisor, notices: Notices
) -> None:
    await make(hypervisor, start=True)
    await hypervisor.reboot(VM, "forced")
    await notices.expect(Rebooted(domain=VM))
    before = list(notices.heard)

    await hypervisor.ask_to_stop(VM)

    await notices.expect(Changed(domain=VM))
    assert Changed(domain=VM) not in before


async def test_a_survey_tells_our_domains_from_foreign_ones(hypervisor: Hypervisor) -> None:
    await make(hypervisor, start=True)

    survey = await hypervisor.survey()

    assert survey.ours == (Claimed(vm=VM, state="running"),)
    assert VM not in {one.uuid for one in survey.foreign}


async def test_a_sample_has_a_row_for_each_of_our_domains(hypervisor: Hypervisor) -> None:
    await make(hypervisor, start=True)

    sample = await hypervisor.sample()

    assert sample.ids == (VM,)
    assert sample.state == ("running",)


async def test_a_host_describes_itself(hypervisor: Hypervisor) -> None:
    description = await hypervisor.describe()

    assert description.cpus > 0
    assert description.memory_mib > 1024
    assert description.networks == ("default",)


async def test_a_guest_without_an_agent_gives_a_failure(hypervisor: Hypervisor) -> None:
    await make(hypervisor, start=True)

    with pytest.raises((HypervisorFailure, HypervisorUnavailable)):
        await hypervisor.ask_guest(VM, b'{"execute":"guest-ping"}', timeout_s=1)


async def test_a_domain_that_is_not_there_cannot_be_started(hypervisor: Hypervisor) -> None:
    with pytest.raises(HypervisorFailure):
        await hypervisor.move([Start(id_of(9))])


@pytest.mark.parametrize("mode", ["graceful", "forced"])
async def test_a_reboot_is_noticed(
    hypervisor: Hypervisor, notices: Notices, mode: StopMode
) -> None:
    await make(hypervisor, start=True)

    await hypervisor.reboot(VM, mode)

    await notices.expect(Rebooted(domain=VM))
    assert await state(hypervisor) == "running"


async def test_a_spec_with_several_disks_and_cards_is_defined(hypervisor: Hypervisor) -> None:
    spec = spec_of(
        disks=(DiskSpec(image="tiny", size_gib=2), DiskSpec(name="data", size_gib=1)),
        nics=(NicSpec(), NicSpec(mac="52:54:00:00:00:07", model="e1000")),
    )
    for disk in spec.disks:
        await hypervisor.create_disk(VM, disk)

    await hypervisor.move([Define(assignment_of(spec=spec))])

    assert await state(hypervisor) == "stopped"


async def test_the_test_drivers_own_domain_is_foreign_and_safe(tmp_path: Path) -> None:
    async with running(libvirt_test_driver(tmp_path)) as (hypervisor, _):
        survey = await hypervisor.survey()
        (foreign,) = survey.foreign
        assert (foreign.name, foreign.state, foreign.cpus) == ("somebody-elses", "running", 2)

        with pytest.raises(HypervisorFailure, match="not Vireo's"):
            await hypervisor.move([Destroy(foreign.uuid)])

        assert (await hypervisor.survey()).foreign == (foreign,)


@pytest.mark.parametrize("vsock", [False, True])
async def test_a_domain_without_the_device_that_guests_get_is_seen_to_be_out_of_date(
    tmp_path: Path, vsock: bool
) -> None:
    """The test driver's domains never have one."""
    hypervisor = libvirt_test_driver(tmp_path, vsock=vsock)
    async with running(hypervisor):
        await make(hypervisor)

        seen = await hypervisor.observe(VM)

    assert seen is not None
    assert seen.outdated == vsock


async def test_an_unreachable_libvirt_is_unavailable_and_tried_again(tmp_path: Path) -> None:
    hypervisor = LibvirtHypervisor(
        uri=f"test://{tmp_path}/later.xml",
        domain_type="test",
        disks=Disks(tmp_path / "data", tmp_path / "images", empty=True),
        cmdline="",
        threads=1,
        agent_threads=1,
        timeout_s=5,
        keepalive_s=2,
    )
    notices = Notices()
    hypervisor.listen(notices)
    task = asyncio.create_task(hypervisor.run())
    try:
        with pytest.raises(HypervisorUnavailable):
            await hypervisor.observe(VM)
        test_driver_uri(tmp_path)
        (tmp_path / "node.xml").rename(tmp_path / "later.xml")

        await notices.expect(Connected())

        assert await hypervisor.observe(VM) is None
    finally:
        task.cancel()
        await asyncio.wait([task])
