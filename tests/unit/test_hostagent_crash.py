"""The agent dies after any step of any operation: after its restart all is done once and told once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chassis.clock import SystemClock
from schemas import events, wire
from schemas.assignments import VmAssignment
from schemas.cloud_init import CloudInit
from services.hostagent.executor import Means
from services.hostagent.journal import Journal
from services.hostagent.keeper import Keeper
from services.hostagent.memory_hypervisor import MemoryHypervisor
from services.hostagent.model import Record
from services.hostagent.outbox import Voice
from services.hostagent.settings import RetrySettings
from tests.fixtures.hostagent import HOST, VM, assignment_of, spec_of

WAIT_S = 10.0
COUNTED = frozenset(
    {
        *("create_disk", "write_seed", "remove_disks", "ask_to_stop", "say"),
    }
)


class Died(BaseException):
    """The process is gone. No handler of the agent's may see this."""


class Fate:
    """Lets so many effects and journal entries happen. `before`: the last one doesn't any more."""

    def __init__(self, steps: int, *, before: bool) -> None:
        self.left = steps
        self.before = before


class Mortal:
    """Something of the agent's, in a process that dies at its `Fate`."""

    def __init__(self, target: Any, fate: Fate) -> None:
        self._target = target
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name == "move":
            return self._move
        return self._mortal(found) if name in COUNTED else found

    async def _move(self, moves: Any, around: Any) -> None:
        for move in moves:
            await self._mortal(self._target.move)([move], around)

    def _mortal(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*arguments: Any, **named: Any) -> Any:
            self._fate.left -= 1
            if self._fate.left <= 0 and self._fate.before:
                raise Died
            answer = await call(*arguments, **named)
            if self._fate.left <= 0:
                raise Died
            return answer

        return counted


class Late(Journal):
    """What is handed in reaches the disk with the next word that is waited for: a death loses it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._late: list[Any] = []

    def hand_in(self, messages: Any) -> None:
        self._late.append(messages)

    async def say(self, *arguments: Any, **named: Any) -> None:
        for messages in self._late:
            super().hand_in(messages)
        self._late.clear()
        await super().say(*arguments, **named)


async def live(
    hypervisor: MemoryHypervisor,
    path: Path,
    fate: Fate,
    assignment: VmAssignment,
    *,
    kind: type[Journal] = Journal,
) -> tuple[bool, Record | None, list[Any]]:
    """One life of the agent: whether it came to its end alive, the record, all events told so far."""
    journal = kind(path)
    await journal.open()
    clock = SystemClock()
    means = Means(
        hypervisor=Mortal(hypervisor, fate),
        journal=Mortal(journal, fate),  # type: ignore[arg-type]
        voice=Voice(site="default", host=HOST, clock=clock),
        clock=clock,
        slots=asyncio.Semaphore(8),
        ask_again_s=1,
    )
    keeper = Keeper(means, RetrySettings())
    await keeper.load()
    running = asyncio.create_task(keeper.run())
    await keeper.accept(assignment)
    alive = await _until_settled(keeper, running)
    running.cancel()
    await asyncio.wait([running])
    failure = None if running.cancelled() else running.exception()
    if failure is not None and not (
        isinstance(failure, BaseExceptionGroup) and failure.split(Died)[1] is None
    ):
        raise failure
    alive = alive and failure is None
    told = [wire.unwrap(one.message.data) for one in await journal.waiting(1000)]
    record = keeper.known().get(assignment.vm)
    await journal.close()
    return alive, record, told


async def _until_settled(keeper: Keeper, running: asyncio.Task[None]) -> bool:
    async with asyncio.timeout(WAIT_S):
        while not running.done():
            if keeper.is_settled():
                return True
            await asyncio.sleep(0)
    return False


LIVES: dict[str, tuple[VmAssignment, ...]] = {
    "create": (assignment_of(1),),
    "create with a seed": (
        assignment_of(1, spec=spec_of(seeded=True), cloud_init=CloudInit(user_data="#!/bin/sh")),
    ),
    "stop": (assignment_of(1), assignment_of(2, power="stopped")),
    "pause": (assignment_of(1), assignment_of(2, power="paused")),
    "delete": (assignment_of(1), assignment_of(2, ended=True)),
}


@pytest.mark.parametrize("kind", [Journal, Late])
@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("name", sorted(LIVES))
async def test_a_death_at_any_step_is_not_to_be_seen_afterwards(
    name: str, before: bool, kind: type[Journal], tmp_path: Path
) -> None:
    expected = await _told_without_a_death(name, tmp_path)
    *history, last = LIVES[name]
    deaths = 0
    for steps in range(1, 50):
        hypervisor, path = MemoryHypervisor(), tmp_path / f"{before}{steps}.sqlite"
        for assignment in history:
            await live(hypervisor, path, Fate(10_000, before=False), assignment)

        fate = Fate(steps, before=before)
        survived, _, _ = await live(hypervisor, path, fate, last, kind=kind)
        alive, record, told = await live(hypervisor, path, Fate(10_000, before=False), last)

        assert alive
        assert record is not None
        assert record.generation == last.generation
        assert _shape(told) == expected, f"died at step {steps}"
        assert len({one.id for one in told}) == len(told)
        assert VM not in hypervisor.domains or hypervisor.domains[VM].starts == 1
        deaths += not survived
        if survived:
            break

    assert deaths >= 3


async def _told_without_a_death(name: str, tmp_path: Path) -> list[tuple[str, str]]:
    hypervisor, path = MemoryHypervisor(), tmp_path / "undisturbed.sqlite"
    told: list[Any] = []
    for assignment in LIVES[name]:
        _, _, told = await live(hypervisor, path, Fate(10_000, before=False), assignment)
    return _shape(told)


def _shape(told: list[Any]) -> list[tuple[str, str]]:
    """Which events, in which order; which step of how many does not matter to whoever was away."""
    return [
        (one.type, one.data.detail if isinstance(one.data, events.OperationProgressed) else "")
        for one in told
    ]


async def test_a_life_is_told_in_the_order_in_which_it_was_lived(tmp_path: Path) -> None:
    assert await _told_without_a_death("delete", tmp_path) == [
        ("vireo.operation.progressed.v1", "disks created"),
        ("vireo.vm.defined.v1", ""),
        ("vireo.vm.started.v1", ""),
        ("vireo.operation.succeeded.v1", ""),
        ("vireo.vm.stopped.v1", ""),
        ("vireo.vm.deleted.v1", ""),
        ("vireo.operation.succeeded.v1", ""),
    ]


async def test_a_deleted_vm_leaves_no_domain_and_no_disk(tmp_path: Path) -> None:
    hypervisor = MemoryHypervisor()
    for assignment in LIVES["delete"]:
        await live(hypervisor, tmp_path / "journal.sqlite", Fate(10_000, before=False), assignment)

    assert (hypervisor.domains, hypervisor.disks) == ({}, {})
