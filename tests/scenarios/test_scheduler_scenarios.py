"""The scheduler's scenarios: the real handlers on the bus in memory, on a clock that stands still.

`commands.txt` holds a command a line; `expected.log` shows each, and what the scheduler said of it.

    host NAME [cpus=N] [memory=MIB] [images=a,b] [zone=LABEL]   a host comes up and registers
    quiet NAME / renew NAME                        its lease is renewed no more / again
    create NAME [cpus=N] [memory=MIB] [host=H] [zone=LABEL] [image=I]
    start|stop|pause|resume|reboot|delete NAME
    configure HOST maintenance=on|off
    confirm NAME                                   its host has done what is assigned
    wait SECONDS                                   time passes; hosts renew
    bus away|back                                  nobody reaches the bus; leases are lost
    scheduler kill|start
    show                                           who holds what
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chassis.kv import stream_of
from schemas import subjects
from schemas.commands import (
    ConfigureHost,
    DeleteVm,
    PauseVm,
    RebootVm,
    ResumeVm,
    StartVm,
    StopVm,
)
from schemas.envelope import Envelope
from schemas.events import (
    HostConfigured,
    HostReturned,
    HostSilent,
    OperationFailed,
    OperationSucceeded,
    VmReassigned,
    VmScheduled,
)
from schemas.resources import DiskSpec, HostImage
from tests.fixtures.scenarios import Scenario
from tests.fixtures.scheduler import command, create, on
from tests.fixtures.scheduler_world import World, new_world

DIRECTORIES = sorted(path.parent for path in Path(__file__).parent.glob("scheduler_*/commands.txt"))
WISHES: dict[str, Any] = {
    "start": StartVm,
    "stop": StopVm,
    "pause": PauseVm,
    "resume": ResumeVm,
    "reboot": RebootVm,
    "delete": DeleteVm,
}
QUIET_ROUNDS = 300


class Teller:
    """Plays a scenario and writes its log."""

    def __init__(self, world: World) -> None:
        self.log: list[str] = []
        self._world = world
        self._told = 0
        self._number = 0
        self._vms: dict[str, str] = {}
        self._operations: dict[str, str] = {}
        self._actions = 0

    async def play(self, line: str) -> None:
        self.log.append(f"> {line}")
        verb, *words = line.split()
        plain = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        if verb in WISHES:
            await self._wish(line, WISHES[verb](vm=self._vms[plain[0]]))
        else:
            await self._verbs[verb](self, line, plain, options)
        await self._listen()

    async def _host(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        changes: dict[str, Any] = {}
        if "cpus" in options:
            changes["cpus"] = int(options["cpus"])
        if "memory" in options:
            changes["memory_mib"] = int(options["memory"])
        if "images" in options:
            names = options["images"].split(",")
            changes["images"] = tuple(HostImage(name=name, size_gib=1) for name in names)
        if "zone" in options:
            changes["labels"] = {"zone": options["zone"]}
        await self._world.host(plain[0], **changes)

    async def _quiet(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        self._world.renewing.discard(plain[0])

    async def _renew(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        self._world.renewing.add(plain[0])
        await self._world.renew()

    async def _create(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        self._number += 1
        labels = {"zone": options["zone"]} if "zone" in options else {}
        wish = create(
            self._number,
            plain[0],
            cpus=int(options.get("cpus", 1)),
            memory_mib=int(options.get("memory", 512)),
            disks=(DiskSpec(image=options.get("image", "tiny"), size_gib=2),),
            on=on(options.get("host"), **labels),
        )
        self._vms.setdefault(plain[0], wish.data.vm)
        self._operations[wish.id] = line
        await self._world.send(wish)

    async def _wish(self, line: str, data: Any) -> None:
        self._number += 1
        wish = command(data, self._number)
        self._operations[wish.id] = line
        await self._world.send(wish)

    async def _configure(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        on_or_off = options["maintenance"] == "on"
        await self._wish(line, ConfigureHost(host=plain[0], maintenance=on_or_off))

    async def _confirm(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        await self._world.confirm(self._vms[plain[0]])

    async def _wait(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        for _ in range(int(plain[0])):
            await self._world.advance(1)
            await self._listen()

    async def _bus(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        """LEASES lives in memory: it comes back empty."""
        self._world.bus.connected = plain[0] == "back"
        await self._world.bus.purge(stream_of(subjects.KV_LEASES), ">")

    async def _scheduler(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        await (self._world.start() if plain[0] == "start" else self._world.kill())

    async def _show(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        for held in (await self._world.assignments()).values():
            ended = ", ended" if held.ended else ""
            self.log.append(
                f"       {held.spec.name} on {held.host}: "
                f"generation {held.generation}, {held.power}{ended}"
            )

    _verbs: dict[str, Callable[..., Awaitable[None]]] = {  # noqa: RUF012
        "host": _host,
        "quiet": _quiet,
        "renew": _renew,
        "create": _create,
        "configure": _configure,
        "confirm": _confirm,
        "wait": _wait,
        "bus": _bus,
        "scheduler": _scheduler,
        "show": _show,
    }

    async def _listen(self) -> None:
        """Write down what was said since, once all is quiet."""
        for _ in range(QUIET_ROUNDS):
            await asyncio.sleep(0)
        events = await self._world.events()
        for event in events[self._told :]:
            self.log.append(f"{self._world.clock.monotonic():5.0f}  {self._in_words(event)}")
        self._told = len(events)
        actions = await self._world.stored(subjects.ACTIONS)
        for message in actions[self._actions :]:
            words = message.subject.split(".")
            self.log.append(
                f"{self._world.clock.monotonic():5.0f}  action {'.'.join(words[4:])} for {words[3]}"
            )
        self._actions = len(actions)

    def _in_words(self, event: Envelope[Any]) -> str:
        name = subjects.BY_TYPE[event.type].name
        return f"{name} {self._detail(event)}"

    def _detail(self, event: Envelope[Any]) -> str:
        match event.data:
            case VmScheduled() as said:
                ranking = ", ".join(f"{one.host} {one.score}" for one in said.placement.ranking)
                excluded = "".join(
                    f"; not {one.host}: {one.detail}" for one in said.placement.excluded
                )
                return f"{said.spec.name} on {said.host} ({ranking}{excluded})"
            case VmReassigned() as said:
                ended = ", ended" if said.ended else ""
                return f"{self._name(said.vm)} generation {said.generation}, {said.power}{ended}"
            case OperationFailed(problem=problem):
                reasons = "".join(f"; {host}: {why}" for host, why in problem.reasons.items())
                return self._readable(
                    f"[{self._operations[event.operation or '']}] {problem.detail}{reasons}"
                )
            case OperationSucceeded():
                return f"[{self._operations[event.operation or '']}]"
            case HostConfigured(config=config):
                return f"{config.host} maintenance={'on' if config.maintenance else 'off'}"
            case HostSilent() as said:
                return f"{said.host} for {said.silent_s:.0f} s"
            case HostReturned() as said:
                return said.host
        raise AssertionError(event.type)

    def _name(self, vm: str) -> str:
        return next(name for name, id in self._vms.items() if id == vm)

    def _readable(self, text: str) -> str:
        for name, id in self._vms.items():
            text = text.replace(id, name)
        for id, line in self._operations.items():
            text = text.replace(id, f"[{line}]")
        return text


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_scenario(directory: Path, rewrite: bool) -> None:
    scenario = Scenario(directory, rewrite=rewrite)
    assert (directory / "story.md").read_text().strip()
    async with new_world() as world:
        teller = Teller(world)
        await world.start()
        for line in scenario.commands:
            await teller.play(line)
    scenario.compare(teller.log)
