"""The scheduler on a bus: what it writes and says, run twice, killed after each publish, raced."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from chassis.bus import Bus, CaughtUp, Incoming, Outgoing, Start, Unavailable
from chassis.kv import entry, put, stream_of, subject_of
from chassis.service import Consumer
from schemas import subjects
from schemas.commands import ConfigureHost, DeleteVm, PauseVm, RebootVm, StartVm, StopVm
from schemas.envelope import Envelope
from schemas.events import OperationFailed, VmDeleted, VmScheduled
from schemas.ids import derived_id
from schemas.resources import HostConfig
from schemas.telemetry import HostSample
from schemas.wire import encode, unwrap
from tests.fixtures.cut_bus import CutBus
from tests.fixtures.scheduler import command, create, facts, id_of, on
from tests.fixtures.scheduler_world import World, message_of, until

VM = id_of(1001)
FLEET = stream_of(subjects.KV_FLEET)


async def with_host(world: World, *hosts: str, **changes: Any) -> None:
    await world.start_warm()
    for host in hosts:
        await world.host(host, **changes)
        await registered(world, host)


async def registered(world: World, host: str) -> None:
    key = subject_of(subjects.KV_FLEET, subjects.host_facts_key(host))
    for _ in range(5_000):
        consumer = (FLEET, subjects.fleet_consumer(host)) in world.bus._consumers
        if await world.bus.last(FLEET, key) is not None and consumer:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{host} was not registered")


async def test_a_create_becomes_an_assignment_and_an_event_with_the_reason(world: World) -> None:
    await with_host(world, "h1")
    await world.send(create(1))
    await world.settle()
    (assignment,) = (await world.assignments()).values()
    (event,) = await world.events()
    assert (assignment.vm, assignment.host, assignment.operation) == (VM, "h1", id_of(1))
    assert event.id == derived_id(id_of(1), "vm.scheduled")
    assert (event.operation, event.cause, event.actor) == (id_of(1), id_of(1), "ann")
    assert event.data == VmScheduled(
        vm=VM,
        host="h1",
        generation=1,
        spec=assignment.spec,
        placement=assignment.placement,
    )


async def test_the_trace_goes_on_in_the_assignment_and_its_event(world: World) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    await with_host(world, "h1")
    traced = msgspec.structs.replace(create(1), traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    await world.send(traced)
    await world.settle()
    (event,) = await world.events()
    assert (world.assignment(VM).traceparent or "").split("-")[1] == trace
    assert event.traceparent == world.assignment(VM).traceparent


async def test_what_fits_nowhere_fails_at_once_with_the_reason_per_host(world: World) -> None:
    await with_host(world, "h1")
    await world.send(create(1, memory_mib=99999))
    await world.settle()
    (event,) = await world.events()
    assert isinstance(event.data, OperationFailed)
    assert event.data.problem.reasons == {
        "h1": "memory: needs 99999 MiB, 4096 of 4096 MiB are left"
    }
    assert await world.assignments() == {}


async def test_where_no_host_ever_registered_a_create_is_refused_at_once(world: World) -> None:
    await world.start_warm()
    await world.send(create(1))
    await world.send(create(2, on=on("h9")))
    await world.settle()
    assert await world.said() == [
        f"operation.failed operation/{id_of(1)}",
        f"operation.failed operation/{id_of(2)}",
    ]


async def test_a_create_that_comes_before_the_first_host_was_taken_in_waits_for_it(
    world: World,
) -> None:
    """The scheduler was away while both were said; which it hears first is chance."""
    await world.host("h1")
    await world.send(create(1, on=on("h1")))
    await world.start_warm()
    await until_scheduled(world)
    assert world.assignment(VM).host == "h1"


async def until_scheduled(world: World) -> None:
    for _ in range(30):
        await world.advance(1)
        if not await world.unhandled():
            return
    raise AssertionError("the create was not decided")


async def test_two_creates_race_for_the_last_place_and_one_is_refused(world: World) -> None:
    await with_host(world, "h1", memory_mib=512 + 512)
    await world.kill()
    await world.start_warm(CutBus(world.bus, publishes=999))
    await asyncio.gather(world.send(create(1, "a")), world.send(create(2, "b")))
    await world.settle()
    assert sorted(await world.said()) == [
        f"operation.failed operation/{id_of(2)}",
        f"vm.scheduled vm/{id_of(1001)}",
    ]
    assert len(await world.assignments()) == 1


async def test_the_loser_of_a_race_for_one_key_decides_again_on_what_the_other_wrote(
    world: World,
) -> None:
    await with_host(world, "h1")
    await world.send(create(1))
    await world.settle()
    before = world.assignment(VM)
    newer = msgspec.structs.replace(before, generation=2, power="paused", operation=id_of(2))
    key = subjects.vm_key(vm=VM, host="h1")
    # Written and decided in one breath: the scheduler has not heard of it yet.
    await world.bus.publish(put(subjects.KV_FLEET, key, encode(newer)))
    await world.send(command(StopVm(vm=VM), 3))
    await world.settle()
    after = world.assignment(VM)
    assert (after.generation, after.power, after.supersedes) == (3, "stopped", id_of(2))


async def test_of_those_decided_together_only_the_one_that_clashed_is_decided_again(
    world: World,
) -> None:
    await with_host(world, "h1", "h2")
    await world.send(create(1))
    await world.settle()
    before = await world.bus.last_sequence(FLEET)
    theirs = msgspec.structs.replace(world.assignment(VM), vm=id_of(1004), operation=id_of(99))
    # Written and decided in one breath: the scheduler has not heard of it yet.
    await world.bus.publish(
        put(subjects.KV_FLEET, subjects.vm_key(vm=theirs.vm, host=theirs.host), encode(theirs))
    )
    for number in range(2, 7):
        await world.send(create(number, f"vm{number}"))
    await world.settle()
    assert await world.bus.last_sequence(FLEET) == before + 5
    refused = [event for event in await world.events() if isinstance(event.data, OperationFailed)]
    assert [event.operation for event in refused] == [id_of(4)]


@pytest.mark.parametrize("single_active", [True, False])
async def test_two_schedulers_give_no_vm_to_two_hosts_and_no_host_too_much(
    world: World, single_active: bool
) -> None:
    world.single_active = single_active
    await with_host(world, "h1", "h2")  # with room for 8 each
    await world.start_warm()
    for number in range(1, 21):
        await world.send(create(number, f"vm{number}"))
    await world.advance(5)  # they take the turn from each other, and try again
    await world.settle()
    keys = [key.split(".") for key in await world.assignments()]
    assert len({vm for _, vm, _ in keys}) == 16
    assert Counter(host for _, _, host in keys) == {"h1": 8, "h2": 8}
    refused = [event for event in await world.events() if isinstance(event.data, OperationFailed)]
    assert len(refused) == 4


async def test_two_schedulers_tell_that_a_host_is_silent_or_back_once(world: World) -> None:
    await with_host(world, "h1", "h2")
    await world.start_warm()
    world.renewing.remove("h2")
    await world.advance(40)
    world.renewing.add("h2")
    await world.advance(20)
    assert await world.said() == ["host.silent host/h2", "host.returned host/h2"]


async def test_what_a_killed_scheduler_left_untold_is_told_first_by_the_one_that_takes_over(
    world: World,
) -> None:
    await with_host(world, "h1")
    await world.kill()
    bus = CutBus(world.bus, publishes=2)  # the term, the assignment
    async with listening(world) as next_one, listening(world, bus) as killed:
        dying = asyncio.ensure_future(killed(create(1)))
        await bus.cut.wait()
        dying.cancel()
        await next_one(command(StopVm(vm=VM), 2))
    assert await world.said() == [
        f"vm.scheduled vm/{VM}",
        f"vm.reassigned vm/{VM}",
        f"operation.failed operation/{id_of(1)}",
    ]


async def test_a_scheduler_whose_term_is_over_places_nothing_on_what_it_knew(
    world: World,
) -> None:
    await with_host(world, "h1", memory_mib=512 + 512)
    async with listening(world) as one, listening(world) as other:
        await asyncio.gather(*(one(create(1, "a")), other(create(2, "b"))))
    assert len(await world.assignments()) == 1
    assert sorted(said.split()[0] for said in await world.said()) == [
        "operation.failed",
        "vm.scheduled",
    ]


Handle = Callable[..., Awaitable[None]]


async def test_two_schedulers_that_decide_on_one_command_write_once(world: World) -> None:
    await with_host(world, "h1")
    await world.kill()
    slow = [CutBus(world.bus, publishes=99) for _ in range(2)]
    async with listening(world, slow[0]) as one, listening(world, slow[1]) as other:
        await asyncio.gather(one(create(1)), other(create(1)))
        key = subject_of(subjects.KV_FLEET, subjects.vm_key(vm=VM, host="*"))
        async with world.bus.follow(FLEET, [key], start=Start(at="all")) as written:
            assert isinstance(await anext(written), Incoming)
            assert isinstance(await anext(written), CaughtUp)
    assert await world.said() == [f"vm.scheduled vm/{VM}"]


async def test_every_handler_run_twice_says_and_writes_the_same(world: World) -> None:
    await with_host(world, "h1")
    wishes: list[Envelope[Any]] = [
        create(1),
        command(StopVm(vm=VM), 2),
        command(StartVm(vm=VM), 3),
        command(RebootVm(vm=VM), 4),
        command(ConfigureHost(host="h1", maintenance=True), 5),
        command(DeleteVm(vm=VM), 6),
        create(7, memory_mib=99999),
    ]
    async with listening(world) as handle:
        for wish in wishes:
            await handle(wish)
            once = await everything(world)
            await handle(wish)
            await handle(wish, delivered=2)
            assert await everything(world) == once


async def test_a_command_that_comes_again_after_later_ones_does_not_undo_them(
    world: World,
) -> None:
    await with_host(world, "h1")
    async with listening(world) as handle:
        await handle(create(1))
        await handle(command(StopVm(vm=VM), 2))
        await world.confirm(VM)
        await handle(command(StartVm(vm=VM), 3))
        once = await everything(world)
        await handle(command(StopVm(vm=VM), 2), delivered=2)
        await handle(create(1), delivered=2)
        assert await everything(world) == once


async def test_a_command_that_is_overtaken_ends_without_effect(world: World) -> None:
    await with_host(world, "h1")
    async with listening(world) as handle:
        await handle(create(1))
        await handle(command(StartVm(vm=VM), 3))
        await handle(command(StopVm(vm=VM), 2), delivered=2)
    assert world.assignment(VM).operation == id_of(3)
    assert (await world.said())[-1] == f"operation.failed operation/{id_of(2)}"


async def test_a_create_that_comes_again_does_not_revive_a_deleted_vm(world: World) -> None:
    await with_host(world, "h1")
    await world.send(create(1))
    await world.send(command(DeleteVm(vm=VM), 2))
    await world.settle()
    await world.confirm(VM)
    await gone(world)
    await world.kill()
    async with listening(world) as handle:
        once = await everything(world)
        await handle(create(1), delivered=2)
        assert await everything(world) == once


async def test_what_could_not_be_told_is_told_before_what_comes_later(world: World) -> None:
    await with_host(world, "h1")
    bus = CutBus(world.bus, publishes=2, refuses=True)  # the term, the assignment
    async with listening(world, bus) as handle:
        with pytest.raises(Unavailable):
            await handle(create(1))
        bus.mend(publishes=99)
        await handle(command(StopVm(vm=VM), 2))
    assert await world.said() == [
        f"vm.scheduled vm/{VM}",
        f"vm.reassigned vm/{VM}",
        f"operation.failed operation/{id_of(1)}",
    ]


async def test_a_place_is_given_back_when_its_write_fails(world: World) -> None:
    await with_host(world, "h1", memory_mib=512 + 512)
    bus = CutBus(world.bus, publishes=9, refuses=True)
    async with listening(world, bus) as handle:
        bus.mend(publishes=1)  # the term
        with pytest.raises(Unavailable):
            await handle(create(1, "a"))
        bus.mend(publishes=9)
        await handle(create(2, "b"))
    assert list(await world.assignments()) == [f"vm.{id_of(1002)}.h1"]


@asynccontextmanager
async def listening(world: World, bus: Bus | None = None) -> AsyncIterator[Handle]:
    """A warm scheduler that is handed its commands by the test."""
    service = await world.build(bus)
    loops = [asyncio.ensure_future(loop()) for loop in service.background]
    await until(service.ready)
    consumer = service.consumers[0]
    assert isinstance(consumer, Consumer)
    sequences = itertools.count(1)

    async def handle(wish: Envelope[Any], delivered: int = 1) -> None:
        await consumer.handler(received(message_of(wish), next(sequences), delivered=delivered))

    try:
        yield handle
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def everything(world: World) -> list[tuple[str, int, bytes]]:
    streams = (FLEET, subjects.EVENTS, subjects.ACTIONS)
    return [
        (message.subject, message.sequence, message.data)
        for stream in streams
        for message in await world.stored(stream)
    ]


def received(message: Outgoing, sequence: int, *, delivered: int = 1) -> Incoming:
    return Incoming(
        subject=message.subject,
        data=message.data,
        stream=subjects.COMMANDS,
        sequence=sequence,
        delivered=delivered,
    )


STORY: list[Envelope[Any]] = [
    create(1),
    command(StopVm(vm=VM), 2),
    command(StartVm(vm=VM), 3),
    command(ConfigureHost(host="h1", labels={"zone": "a"}), 4),
    create(5, "other", memory_mib=99999),
    command(PauseVm(vm=VM), 6),
    command(DeleteVm(vm=VM), 7),
]


async def tell_story(world: World) -> None:
    for wish in STORY:
        await world.send(wish)


EXPECTED = sorted(
    [
        f"vm.scheduled vm/{VM}",
        *[f"vm.reassigned vm/{VM}"] * 4,
        *(f"operation.failed operation/{id_of(number)}" for number in (1, 2, 3, 5, 6)),
        "host.configured host/h1",
        f"operation.succeeded operation/{id_of(4)}",
    ]
)


async def test_a_story_without_mishap(world: World) -> None:
    await with_host(world, "h1")
    await tell_story(world)
    await world.settle()
    assert sorted(await world.said()) == EXPECTED


@pytest.mark.parametrize("publishes", range(1, 20))
async def test_killed_after_any_publish_it_ends_the_same(world: World, publishes: int) -> None:
    await with_host(world, "h1")
    await world.kill()
    bus = CutBus(world.bus, publishes=publishes)
    await world.start(bus)
    await tell_story(world)
    await bus.cut.wait()
    await world.kill()
    await world.start_warm()
    await world.advance(40)
    await world.settle()
    assert sorted(await world.said()) == EXPECTED
    (assignment,) = (await world.assignments()).values()
    assert (assignment.generation, assignment.power, assignment.ended) == (5, "stopped", True)
    assert assignment.operation == id_of(7)


async def test_an_event_left_untold_is_told_at_the_start_though_its_command_does_not_return(
    world: World,
) -> None:
    await with_host(world, "h1")
    await world.kill()
    bus = CutBus(world.bus, publishes=2)  # the term, the assignment
    await world.start(bus)
    await world.send(create(1))
    await bus.cut.wait()
    written_at = world.clock.now()
    await world.kill()
    await world.bus.purge(subjects.COMMANDS, ">")
    await world.clock.advance(7)
    await world.start_warm()
    assert await world.said() == [f"vm.scheduled vm/{VM}"]
    (event,) = await world.events()
    assert event.time == written_at


async def test_a_command_that_comes_again_tells_what_was_written_as_of_then(world: World) -> None:
    await with_host(world, "h1")
    bus = CutBus(world.bus, publishes=2)  # the term, the assignment
    written_at = world.clock.now()
    async with listening(world, bus) as killed:
        dying = asyncio.ensure_future(killed(create(1)))
        await bus.cut.wait()
        dying.cancel()
    await world.clock.advance(7)
    await world.send(create(1))
    await world.settle()
    (event,) = await world.events()
    assert (event.data.vm, event.time) == (VM, written_at)


async def test_an_operation_that_its_host_confirmed_is_not_ended_again(world: World) -> None:
    await with_host(world, "h1")
    await world.send(create(1))
    await world.settle()
    await world.confirm(VM)
    await world.send(command(StopVm(vm=VM), 2))
    await world.settle()
    assert await world.said() == [f"vm.scheduled vm/{VM}", f"vm.reassigned vm/{VM}"]


async def test_a_vm_is_forgotten_when_its_host_has_deleted_it_and_not_before(world: World) -> None:
    await with_host(world, "h1")
    await world.send(create(1))
    await world.settle()
    await world.send(command(DeleteVm(vm=VM), 2))
    await world.settle()
    assert len(await world.assignments()) == 1
    await world.confirm(VM)
    await gone(world)
    await world.send(create(3))
    await world.settle()
    assert (await world.said())[-1] == f"vm.scheduled vm/{id_of(1003)}"


async def test_a_late_word_of_an_earlier_end_forgets_nothing(world: World) -> None:
    await with_host(world, "h1")
    await world.send(create(1))
    await world.send(command(StopVm(vm=VM), 2))
    await world.send(command(DeleteVm(vm=VM), 3))
    await world.settle()
    for generation in (1, 2):
        late = VmDeleted(vm=VM, host="h1", generation=generation)
        await world.say(late, source="h1", about=f"vm/{VM}")
    await world.host("h2")
    await registered(world, "h2")
    assert list(await world.assignments()) == [f"vm.{VM}.h1"]


async def gone(world: World) -> None:
    for _ in range(5_000):
        if not await world.assignments():
            return
        await asyncio.sleep(0)
    raise AssertionError("the assignment is still there")


async def test_a_registration_opens_the_hosts_consumers_and_keeps_its_facts(world: World) -> None:
    await with_host(world, "h1")
    stored = await world.bus.last(FLEET, subject_of(subjects.KV_FLEET, "host.facts.h1"))
    assert stored is not None
    assert stored.data == encode(facts("h1"))
    async with world.bus.pull(FLEET, "FLEET_h1", batch=10) as deliveries:
        first = await anext(aiter(deliveries))
    assert entry(first.message).key == "host.facts.h1"
    async with world.bus.pull(subjects.ACTIONS, "ACTIONS_h1", batch=10) as deliveries:
        await world.send(create(1))
        await world.settle()
        await world.send(command(RebootVm(vm=VM, mode="forced"), 2))
        action = unwrap((await anext(aiter(deliveries))).message.data)
    assert (action.operation, action.data.vm, action.data.mode) == (id_of(2), VM, "forced")


async def test_a_host_that_registers_again_gets_its_whole_set_again(world: World) -> None:
    await with_host(world, "h1")
    await world.send(create(1))
    await world.settle()
    old = world.bus._consumers[FLEET, "FLEET_h1"]
    await world.register(facts("h1", cpus=8))
    await until(lambda: world.bus._consumers.get((FLEET, "FLEET_h1"), old) is not old)
    async with world.bus.pull(FLEET, "FLEET_h1", batch=10) as deliveries:
        keys = {entry((await anext(aiter(deliveries))).message).key for _ in range(2)}
    assert keys == {f"vm.{VM}.h1", "host.facts.h1"}


async def test_a_host_speaks_for_itself_only(world: World) -> None:
    await with_host(world, "h1")
    envelope = (await world.events(source="h1"))[0]
    subject = "vireo.evt.lab.h1.host.h2.registered"
    forged = msgspec.structs.replace(
        envelope, id=id_of(77), data=msgspec.structs.replace(envelope.data, facts=facts("h2"))
    )
    await world.bus.publish(Outgoing(subject=subject, data=encode(forged)))
    await dead_letters(world, 1)
    assert await world.bus.last(FLEET, subject_of(subjects.KV_FLEET, "host.facts.h2")) is None


async def test_undecodable_commands_are_dead_letters_and_stop_nothing(world: World) -> None:
    await with_host(world, "h1")
    await world.bus.publish(Outgoing(subject="vireo.cmd.lab.vm.create", data=b"\xff{"))
    await world.bus.publish(Outgoing(subject="vireo.cmd.lab.vm.create", data=b'{"data":{}}'))
    await world.send(create(1))
    await world.settle()
    await dead_letters(world, 2)
    assert await world.said() == [f"vm.scheduled vm/{VM}"]


async def test_nonsense_in_fleet_and_telemetry_is_passed_over(world: World) -> None:
    await with_host(world, "h1")
    for key in ("vm.x.h1", "host.facts.h1", "host.config.h1", "else"):
        await world.bus.publish(put(subjects.KV_FLEET, key, b"\xff"))
    await world.bus.send("vireo.tel.lab.h1", b"\xff")
    await world.bus.send("vireo.tel.lab.h1", b'{"host":"h2","sample":{}}')
    await world.send(create(1))
    await world.settle()
    assert await world.said() == [f"vm.scheduled vm/{VM}"]


async def dead_letters(world: World, count: int) -> None:
    for _ in range(5_000):
        if len(await world.stored(subjects.DEADLETTERS)) == count:
            return
        await asyncio.sleep(0)
    raise AssertionError("no dead letter")


async def test_telemetry_moves_the_choice(world: World) -> None:
    await with_host(world, "h1", "h2")
    await world.sample("h1", HostSample(cpu_busy=1.0))
    await world.sample("h2", HostSample(cpu_busy=0.0))
    await asyncio.sleep(0)
    await world.send(create(1))
    await world.settle()
    assert world.assignment(VM).host == "h2"


async def test_a_configuration_is_kept_in_fleet(world: World) -> None:
    await with_host(world, "h1")
    await world.send(command(ConfigureHost(host="h1", maintenance=True), 1))
    await world.settle()
    stored = await world.bus.last(FLEET, subject_of(subjects.KV_FLEET, "host.config.h1"))
    assert stored is not None
    assert msgspec.json.decode(stored.data, type=HostConfig) == HostConfig(
        host="h1", generation=1, maintenance=True
    )


async def test_while_the_bus_is_away_nothing_is_lost(world: World) -> None:
    await with_host(world, "h1")
    world.bus.connected = False
    await world.advance(60)
    world.bus.connected = True
    await world.send(create(1))
    await world.advance(20)
    await world.settle()
    assert await world.said() == [f"vm.scheduled vm/{VM}"]
