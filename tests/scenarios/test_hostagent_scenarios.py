"""The agent's scenarios: the real agent on bus and hypervisor in memory, on a clock that stands still.

`commands.txt` holds a command a line; `expected.log` shows each, what the agent did to the hypervisor
(`:`), and what it told the bus, at the second when it did.

    create|start|stop|pause|resume|delete NAME [grace=S] [mode=forced]   the next generation
    reboot NAME [mode=forced] [within=S]
    guest NAME dies|panics|stops                    by itself
    guests deaf|obedient                            whether they do what they are asked
    hand NAME stops|starts|pauses|undefines|shrinks somebody with virsh
    libvirt away|back|hangs|answers
    bus away|back
    agent kill|start
    wait SECONDS
    show                                            what the hypervisor holds
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import subjects
from schemas.actions import RebootVmOnce
from schemas.assignments import VmAssignment
from schemas.envelope import Envelope
from schemas.events import (
    HostRegistered,
    OperationFailed,
    OperationProgressed,
    OperationSucceeded,
    VmCrashed,
    VmDrifted,
    VmFailed,
    VmStopped,
)
from tests.fixtures.hostagent import assignment_of, id_of, spec_of
from tests.fixtures.hostagent_life import Life, new_life
from tests.fixtures.scenarios import Scenario

DIRECTORIES = sorted(path.parent for path in Path(__file__).parent.glob("hostagent_*/commands.txt"))
WISHES: dict[str, dict[str, Any]] = {
    "create": {"power": "running"},
    "start": {"power": "running"},
    "resume": {"power": "running"},
    "stop": {"power": "stopped"},
    "pause": {"power": "paused"},
    "delete": {"ended": True},
}


class Teller:
    """Plays a scenario and writes its log."""

    def __init__(self, life: Life) -> None:
        self.log: list[str] = []
        self._life = life
        self._told = 0
        self._done = 0
        self._newest: dict[str, VmAssignment] = {}
        self._operations: dict[str, str] = {}

    async def play(self, line: str) -> None:
        self.log.append(f"> {line}")
        verb, *words = line.split()
        plain = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        if verb in WISHES:
            await self._wish(line, plain[0], WISHES[verb], options)
        else:
            await self._verbs[verb](self, line, plain, options)
        await self._listen()

    async def _wish(
        self, line: str, name: str, wish: dict[str, Any], options: dict[str, str]
    ) -> None:
        before = self._newest.get(name)
        generation = 1 if before is None else before.generation + 1
        vm = id_of(len(self._newest) + 1) if before is None else before.vm
        assignment = assignment_of(
            generation,
            vm=vm,
            spec=spec_of(name),
            grace_s=int(options.get("grace", 30)),
            stop_mode=options.get("mode", "graceful"),
            **wish,
        )
        self._newest[name] = assignment
        self._operations[assignment.operation] = line
        await self._life.assign(assignment)

    async def _reboot(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        vm = self._newest[plain[0]].vm
        within_s = int(options.get("within", 60))
        action = RebootVmOnce(
            vm=vm,
            mode="forced" if options.get("mode") == "forced" else "graceful",
            deadline=self._life.clock.now() + timedelta(seconds=within_s),
        )
        operation = id_of(500_000 + len(self._operations))
        self._operations[operation] = line
        await self._life.reboot(action, operation=operation)

    async def _guest(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        vm = self._newest[plain[0]].vm
        hypervisor = self._life.hypervisor
        match plain[1]:
            case "dies":
                hypervisor.guest_stops(vm, "crashed")
            case "panics":
                hypervisor.guest_stops(vm, "crashed", "the guest's kernel panicked")
            case "stops":
                hypervisor.guest_stops(vm)

    async def _guests(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        self._life.hypervisor.obedient = plain[0] == "obedient"

    async def _hand(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        vm, hypervisor = self._newest[plain[0]].vm, self._life.hypervisor
        if plain[1] == "undefines":
            hypervisor.tamper(None, vm=vm)
            return
        changes: dict[str, dict[str, Any]] = {
            "stops": {"state": "stopped", "cause": "host"},
            "starts": {"state": "running"},
            "pauses": {"state": "paused"},
            "shrinks": {"memory_mib": 16},
        }
        hypervisor.tamper(replace(hypervisor.domains[vm].seen, **changes[plain[1]]), vm=vm)

    async def _libvirt(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        hypervisor = self._life.hypervisor
        {
            "away": hypervisor.disconnect,
            "back": hypervisor.reconnect,
            "hangs": hypervisor.answers.clear,
            "answers": hypervisor.answers.set,
        }[plain[0]]()

    async def _bus(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        self._life.bus.connected = plain[0] == "back"

    async def _agent(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        await (self._life.start() if plain[0] == "start" else self._life.kill())

    async def _wait(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        for _ in range(int(plain[0])):
            await self._listen()
            await self._life.clock.advance(1)

    async def _show(self, line: str, plain: list[str], options: dict[str, str]) -> None:
        hypervisor = self._life.hypervisor
        for vm, domain in sorted(hypervisor.domains.items()):
            started = f"started {domain.starts} times"
            self.log.append(f"       domain {self._name(vm)}: {domain.seen.state}, {started}")
        for vm, disk in sorted(hypervisor.disks):
            self.log.append(f"       disk {disk} of {self._name(vm)}")

    _verbs: dict[str, Callable[..., Awaitable[None]]] = {  # noqa: RUF012
        "reboot": _reboot,
        "guest": _guest,
        "guests": _guests,
        "hand": _hand,
        "libvirt": _libvirt,
        "bus": _bus,
        "agent": _agent,
        "wait": _wait,
        "show": _show,
    }

    async def _listen(self) -> None:
        """Write down what was done and said since, once all is quiet."""
        await self._life.quiet()
        now = f"{self._life.clock.monotonic():5.0f}"
        done = self._life.hypervisor.log
        self.log += [f"{now}  : {one}" for one in done[self._done :]]
        self._done = len(done)
        events = await self._life.events()
        for event in events[self._told :]:
            if not isinstance(event.data, HostRegistered):
                self.log.append(f"{now}  {self._in_words(event)}{self._late(event)}")
        self._told = len(events)

    def _in_words(self, event: Envelope[Any]) -> str:
        name = subjects.BY_TYPE[event.type].name
        kind, _, id = (event.subject or "").partition("/")
        about = self._name(id) if kind == "vm" else f"[{self._operations[id]}]"
        match event.data:
            case OperationFailed(problem=problem):
                detail = problem.detail
            case OperationSucceeded(detail=detail) | OperationProgressed(detail=detail):
                pass
            case VmCrashed(detail=detail) | VmFailed(detail=detail):
                pass
            case VmStopped(reason=reason):
                detail = f"by {reason}"
            case VmDrifted(expected=expected, found=found):
                detail = f"expected {expected}, found {found}"
            case _:
                detail = ""
        words = f"{name} {about}"
        return self._readable(f"{words}: {detail}" if detail else words)

    def _late(self, event: Envelope[Any]) -> str:
        """An event tells when it happened, not when it was sent."""
        at_s = (event.time - self._life.clock.now()).total_seconds()
        return "" if at_s == 0 else f" ({-at_s:.0f} s ago)"

    def _name(self, vm: str) -> str:
        return next(name for name, known in self._newest.items() if known.vm == vm)

    def _readable(self, text: str) -> str:
        for id, line in self._operations.items():
            text = text.replace(id, f"[{line}]")
        return text


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_scenario(directory: Path, rewrite: bool, tmp_path: Path) -> None:
    scenario = Scenario(directory, rewrite=rewrite)
    assert (directory / "story.md").read_text().strip()
    async with new_life(tmp_path) as life:
        teller = Teller(life)
        await life.start()
        for line in scenario.commands:
            await teller.play(line)
    scenario.compare(teller.log)
