"""The supervisor on real processes: order, readiness, restarts, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from vireo.standalone.child import Child, Notified, SocketAnswers, tiers
from vireo.standalone.logfile import LogFile
from vireo.standalone.supervisor import ChildFailed, Limits, Supervisor, status_of

QUICK = Limits(backoff_first_s=0.02, backoff_most_s=0.1)

# Says that it is ready, tells the story of its life in a file, and ends when it is told to.
OBEDIENT = """
import os, signal, socket, sys
name, story = sys.argv[1:]
def tell(what):
    with open(story, "a") as file:
        file.write(f"{name} {what}\\n")
def stop(*_):
    tell("stops")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
tell("starts")
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"STATUS=fine\\nREADY=1", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
"""

STUBBORN = OBEDIENT.replace("sys.exit(0)", "pass")


def child(name: str, story: Path, *, after: tuple[str, ...] = (), code: str = OBEDIENT) -> Child:
    return Child(
        name=name,
        argv=(sys.executable, "-c", textwrap.dedent(code), name, str(story)),
        ready=Notified(),
        after=after,
        start_timeout_s=20,
        stop_timeout_s=5,
    )


def supervisor(tmp_path: Path, *children: Child, limits: Limits = QUICK) -> Supervisor:
    return Supervisor(
        children,
        run_dir=tmp_path / "run",
        log_dir=tmp_path / "logs",
        environment={"PATH": os.environ["PATH"]},
        limits=limits,
    )


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_children_start_after_what_they_rest_on_and_stop_before_it(tmp_path: Path) -> None:
    story = tmp_path / "story"
    family = supervisor(
        tmp_path,
        child("gateway", story, after=("nats",)),
        child("nats", story),
    )
    pids: dict[str, int] = {}

    async def on_ready() -> None:
        pids.update(family.pids)
        family.stop()

    async with asyncio.timeout(30):
        await family.run(on_ready)
    assert story.read_text().splitlines() == [
        "nats starts",
        "gateway starts",
        "gateway stops",
        "nats stops",
    ]
    assert sorted(pids) == ["gateway", "nats"]
    assert not any(lives(pid) for pid in pids.values())
    assert list((tmp_path / "run").iterdir()) == []


async def test_a_child_that_dies_is_started_again_and_the_others_go_on(tmp_path: Path) -> None:
    story = tmp_path / "story"
    family = supervisor(tmp_path, child("nats", story), child("gateway", story, after=("nats",)))
    ready = asyncio.Event()

    async def on_ready() -> None:
        ready.set()

    running = asyncio.create_task(family.run(on_ready))
    await asyncio.wait_for(ready.wait(), 20)
    before = family.pids
    os.kill(before["nats"], signal.SIGKILL)
    await until(lambda: family.pids.get("nats", before["nats"]) != before["nats"])
    await until(lambda: story.read_text().count("nats starts") == 2)
    assert family.pids["gateway"] == before["gateway"]
    family.stop()
    await asyncio.wait_for(running, 20)


async def test_a_child_that_never_comes_up_ends_it_all_with_its_last_words(tmp_path: Path) -> None:
    story = tmp_path / "story"
    broken = Child(
        name="inventory",
        argv=("/bin/sh", "-c", "echo the table is missing; exit 3"),
        ready=Notified(),
    )
    family = supervisor(tmp_path, child("nats", story), broken)
    with pytest.raises(ChildFailed, match=r"inventory does not start(.|\n)*the table is missing"):
        await asyncio.wait_for(family.run(), 30)
    assert family.pids == {}
    assert "the table is missing" in (tmp_path / "logs" / "inventory.log").read_text()


async def test_a_program_that_does_not_exist_ends_it_all(tmp_path: Path) -> None:
    family = supervisor(tmp_path, Child(name="nats", argv=("/no/such",), ready=Notified()))
    with pytest.raises(FileNotFoundError):
        await asyncio.wait_for(family.run(), 30)


async def test_a_child_that_does_not_stop_is_killed_when_stop_is_said_twice(tmp_path: Path) -> None:
    story = tmp_path / "story"
    family = supervisor(tmp_path, child("nats", story, code=STUBBORN))
    running = asyncio.create_task(family.run())
    await until(lambda: bool(family.pids) and story.exists())
    family.stop()
    await until(lambda: "stops" in story.read_text())
    family.stop()
    await asyncio.wait_for(running, 4)
    assert family.pids == {}


async def test_children_of_a_child_do_not_outlive_it(tmp_path: Path) -> None:
    file = tmp_path / "grandchild"
    parent = Child(
        name="parent",
        argv=("/bin/sh", "-c", f"sleep 600 & echo $! > {file}.new; mv {file}.new {file}; wait"),
        ready=SocketAnswers(tmp_path / "never"),
        stop_timeout_s=5,
    )
    family = supervisor(tmp_path, parent)
    running = asyncio.create_task(family.run())
    await until(file.exists)
    grandchild = int(file.read_text())
    family.stop()
    await asyncio.wait_for(running, 20)
    await until(lambda: not lives(grandchild))


@pytest.mark.parametrize(("code", "words"), [(0, "exit 0"), (2, "exit 2"), (-9, "SIGKILL")])
def test_the_end_of_a_process_is_told_in_words(code: int, words: str) -> None:
    assert status_of(code) == words


async def test_who_hears_of_a_death_hears_how_and_where_to_read_on(tmp_path: Path) -> None:
    story = tmp_path / "story"
    family = supervisor(tmp_path, child("nats", story))

    async def on_ready() -> None:
        os.kill(family.pids["nats"], signal.SIGKILL)

    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(family.run(on_ready))
        await until(lambda: any(entry["event"] == "child_died" for entry in logs))
        family.stop()
        await running
    died = next(entry for entry in logs if entry["event"] == "child_died")
    assert (died["child"], died["status"]) == ("nats", "SIGKILL")
    assert Path(died["log"]) == tmp_path / "logs" / "nats.log"


async def test_who_waits_for_a_slow_child_hears_which_it_is(tmp_path: Path) -> None:
    mute = Child(name="inventory", argv=("/bin/sleep", "100"), ready=Notified())
    family = supervisor(tmp_path, mute, limits=Limits(slow_s=0.05))
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(family.run())
        await until(lambda: any(entry["event"] == "child_slow_to_start" for entry in logs))
        family.stop()
        await running
    told = next(entry for entry in logs if entry["event"] == "child_slow_to_start")
    assert (told["child"], Path(told["log"])) == ("inventory", tmp_path / "logs" / "inventory.log")


def test_children_that_wait_for_one_another_cannot_be_started(tmp_path: Path) -> None:
    story = tmp_path / "story"
    with pytest.raises(ValueError, match="cannot be started: a, b"):
        tiers([child("a", story, after=("b",)), child("b", story, after=("a",))])


def test_a_log_that_grows_too_long_begins_anew_and_keeps_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "nats.log"
    with LogFile(path, 100) as log:
        for number in range(10):
            log.write(f"line {number} {'x' * 20}\n".encode())
        assert log.tail().splitlines()[-1].startswith("  line 9")
    assert path.stat().st_size <= 100
    assert path.with_name("nats.log.1").stat().st_size <= 100
    assert path.stat().st_mode & 0o777 == 0o600
