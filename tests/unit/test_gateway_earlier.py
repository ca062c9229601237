"""Where the record ends and the stream begins, for whoever resumes an event stream."""

from __future__ import annotations

from chassis.bus import Incoming, Outgoing, StreamConfig
from chassis.clock import SystemClock
from chassis.memory_bus import MemoryBus
from services.gateway.earlier import first_after


class Busy(MemoryBus):
    """Something happens whenever somebody has been told what there is."""

    async def first_from(self, stream: str, sequence: int) -> Incoming | None:
        found = await super().first_from(stream, sequence)
        await happen(self)
        return found


async def happen(bus: MemoryBus) -> None:
    await bus.publish(Outgoing(subject="vireo.evt.lab.h1.vm.one.started", data=b"{}"))


async def a_bus(kind: type[MemoryBus], *, events: int) -> MemoryBus:
    bus = kind(SystemClock())
    await bus.ensure_stream(StreamConfig(name="EVENTS", description="", subjects=("vireo.evt.>",)))
    for _ in range(events):
        await happen(bus)
    return bus


async def test_an_empty_stream_has_everything_from_its_first_event_on() -> None:
    assert await first_after(await a_bus(MemoryBus, events=0), 0) == 1


async def test_what_happens_while_it_is_asked_is_the_streams() -> None:
    assert await first_after(await a_bus(Busy, events=0), 0) == 1
    assert await first_after(await a_bus(Busy, events=3), 3) == 4


async def test_what_the_stream_has_is_not_looked_for_in_the_record() -> None:
    assert await first_after(await a_bus(MemoryBus, events=3), 1) == 2
