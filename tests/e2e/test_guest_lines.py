"""Guests' own agents over real sockets: the file that guests run, and guests that mean no good."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from schemas import subjects
from schemas.guest_frames import HostWish
from schemas.telemetry import GuestSample, HostFrame
from services.hostagent import guest_sockets
from services.hostagent.memory_hypervisor import MemoryHypervisor
from services.hostagent.settings import GuestAgentSettings, GuestPushSettings, Settings
from tests.fixtures.guest_site import OTHER, WAIT_S, site_of, until
from tests.fixtures.hostagent import (
    HOST,
    VM,
    World,
    assignment_of,
    world_of,
    write_image,
)

AGENT = Path(__file__).parents[2] / "guest" / "vireo_guest_agent.py"


@asynccontextmanager
async def agent_at(path: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The very file that guests run, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", str(AGENT), "--connect", f"unix:{path}", *options),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Stranger:
    """A guest's end in a test's hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, body: bytes) -> None:
        self.write(len(body).to_bytes(4, "big") + body)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def is_hung_up_on(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    if not await self._reader.read(4096):
                        return
                except ConnectionResetError:
                    return

    async def wish(self) -> HostWish:
        async with asyncio.timeout(WAIT_S):
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            return msgspec.json.decode(await self._reader.readexactly(length), type=HostWish)


@asynccontextmanager
async def stranger_at(path: Path) -> AsyncIterator[Stranger]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Stranger(reader, writer)
    finally:
        writer.close()


GOOD = b'{"v":1,"hostname":"good"}'


async def test_the_agent_tells_how_its_machine_is(short_path: Path) -> None:
    async with site_of(short_path) as site, agent_at(site.path()):
        await until(lambda: bool(site.of()))
    frame = site.of()[0]
    total = int(Path("/proc/meminfo").read_text().split()[1])
    assert (frame.hostname, frame.kernel) == (os.uname().nodename, os.uname().release)
    assert frame.cpus == os.cpu_count()
    assert frame.memory is not None
    assert frame.memory.total_kib == total
    assert frame.cpu is not None
    assert frame.load is not None
    loopback = next(nic for nic in frame.interfaces if nic.name == "lo")
    assert "127.0.0.1" in loopback.addresses
    assert not site.of(OTHER)


async def test_the_interval_changes_while_the_agent_runs(short_path: Path) -> None:
    async with site_of(short_path) as site, agent_at(site.path(), "--interval", "3600"):
        # Told to speak twice a second, it does not wait for the hour it was started with.
        await until(lambda: len(site.of()) >= 3)


async def test_a_guest_is_told_an_interval_once_and_when_it_is_another(short_path: Path) -> None:
    async with site_of(short_path) as site, stranger_at(site.path()) as guest:
        told = []
        for wished_s in (0.5, 0.5, 2.0):
            site.intervals = itertools.repeat(wished_s)
            guest.say(GOOD)
            await site.takes(len(site.of()) + 1)
        for _ in range(2):
            told.append((await guest.wish()).interval_s)
        assert told == [0.5, 2.0]


async def test_the_agent_comes_back_after_its_host_was_away(short_path: Path) -> None:
    async with site_of(short_path) as site, agent_at(site.path()) as process:
        await until(lambda: bool(site.of()))
        site.guests = frozenset({OTHER})
        await until(lambda: not site.path().exists() and site.lines.connected == 0)
        before = len(site.of())
        site.guests = frozenset({VM, OTHER})
        await until(lambda: len(site.of()) > before)
        process.send_signal(signal.SIGTERM)
        await process.wait()
        await until(lambda: site.lines.connected == 0)


async def test_only_the_agent_and_a_named_group_may_connect(short_path: Path) -> None:
    async with site_of(short_path) as site:
        assert stat.S_IMODE(site.path().stat().st_mode) == 0o600
        assert stat.S_ISSOCK(site.path().stat().st_mode)
    assert not site.path().exists()


async def test_a_guest_that_floods_is_cut_short_and_others_notice_nothing(short_path: Path) -> None:
    rates = {"frames_per_s": 20.0, "floods": 5, "hold_off_first_s": 60}
    async with site_of(short_path, **rates) as site, agent_at(site.path(OTHER)):
        async with stranger_at(site.path()) as flooding:
            for _ in range(5000):
                flooding.say(GOOD)
            await flooding.is_hung_up_on()
        before = len(site.of(OTHER))
        await until(lambda: len(site.of(OTHER)) >= before + 2)
        assert len(site.of()) <= 200 + 20
        assert site.lines.counts["flood"] == 5
        async with stranger_at(site.path()) as again:
            await again.is_hung_up_on()
        assert site.lines.counts["held_off"] == 1


async def test_a_guest_that_stalls_in_a_frame_is_hung_up_on(short_path: Path) -> None:
    async with site_of(short_path, stall_s=0.3) as site, stranger_at(site.path()) as stalling:
        stalling.say(GOOD)
        assert (await stalling.wish()).interval_s == 0.5
        stalling.write((100).to_bytes(4, "big") + b'{"v":1')
        await stalling.is_hung_up_on()
        assert (site.lines.counts["stalled"], site.lines.counts["taken"]) == (1, 1)


async def test_a_guest_that_lets_a_frame_drip_has_no_longer_for_it(short_path: Path) -> None:
    async with site_of(short_path, stall_s=0.5) as site, stranger_at(site.path()) as dripping:
        dripping.write((60 * 1024).to_bytes(4, "big"))
        hung_up = asyncio.create_task(dripping.is_hung_up_on())
        while not hung_up.done():
            dripping.write(b" ")
            await asyncio.wait([hung_up], timeout=0.1)
        await hung_up
        assert dict(site.lines.counts) == {"stalled": 1}


async def test_a_guest_that_takes_nothing_in_is_hung_up_on(short_path: Path) -> None:
    rates = {"frames_per_s": 1000.0, "bytes_per_s": 1 << 24}
    frame = len(GOOD).to_bytes(4, "big") + GOOD
    async with site_of(short_path, stall_s=0.3, **rates) as site:
        # Each frame is answered with another interval, which nobody reads.
        site.intervals = itertools.cycle((0.5, 1.0))
        with closing(socket.socket(socket.AF_UNIX)) as deaf:
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, str(site.path()))
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                async with asyncio.timeout(WAIT_S):
                    while True:
                        await loop.sock_sendall(deaf, frame)
        assert (site.lines.counts["stalled"], site.lines.counts["flood"]) == (1, 0)


async def test_a_guest_that_says_nothing_is_hung_up_on(short_path: Path) -> None:
    quick = {"silence_s": 0.2, "interval_s": 0.5}
    async with site_of(short_path, **quick) as site, stranger_at(site.path()) as mute:
        await mute.is_hung_up_on()
        assert site.lines.counts["stalled"] == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff\xff\xff", "too_long"),
        (b"GET / HTTP/1.1\r\nHost: host\r\n\r\n", "too_long"),
        (b"\x00\x00\x00\x00", "garbled"),
        (b"\x00\x00\x00\x02{]", "garbled"),
        (b'\x00\x00\x00\x07{"v":2}', "version"),
    ],
    ids=["four gigabytes", "another protocol", "nothing", "no JSON", "another version"],
)
async def test_what_is_no_frame_ends_its_connection(
    data: bytes, reason: str, short_path: Path
) -> None:
    async with site_of(short_path) as site, stranger_at(site.path()) as guest:
        guest.write(data)
        await guest.is_hung_up_on()
        assert dict(site.lines.counts) == {reason: 1}


async def test_ten_thousand_garbled_frames_are_counted_and_nothing_else(short_path: Path) -> None:
    never = {"hold_off_first_s": 1e-6, "hold_off_longest_s": 1e-6, "connections_per_s": 100.0}
    async with site_of(short_path, **never) as site, agent_at(site.path(OTHER)):
        await until(lambda: bool(site.of(OTHER)))
        garbled = b"\x00\x00\x00\x04\xff\xfe{]" * 1000
        for _ in range(10):
            async with stranger_at(site.path()) as guest:
                guest.write(garbled)
                await guest.is_hung_up_on()
        before = len(site.of(OTHER))
        await until(lambda: len(site.of(OTHER)) > before)
        # The first of each thousand ends its connection: the rest is not even read.
        assert site.lines.counts["garbled"] == 10
        assert not site.of()


async def test_a_guest_has_one_connection_the_newest(short_path: Path) -> None:
    async with site_of(short_path) as site, stranger_at(site.path()) as older:
        older.say(GOOD)
        await older.wish()
        async with stranger_at(site.path()) as newer:
            newer.say(GOOD)
            await newer.wish()
            await older.is_hung_up_on()
            assert site.lines.connected == 1


# in the whole agent


@asynccontextmanager
async def samples_of(world: World) -> AsyncIterator[asyncio.Queue[GuestSample]]:
    """What the host's telemetry says of its guests from inside, as it comes."""
    queue: asyncio.Queue[GuestSample] = asyncio.Queue()

    async def listen() -> None:
        async with world.bus.listen(subjects.telemetry(site="default", host=HOST)) as messages:
            async for message in messages:
                for sample in msgspec.json.decode(message.data, type=HostFrame).guests:
                    queue.put_nowait(sample)

    listening = asyncio.create_task(listen())
    try:
        yield queue
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def next_by(source: str, samples: asyncio.Queue[GuestSample]) -> GuestSample:
    async with asyncio.timeout(WAIT_S):
        while True:
            sample = await samples.get()
            if sample.source == source:
                return sample


def settings_in(folder: Path, agent: GuestAgentSettings) -> Settings:
    write_image(folder / "images")
    (folder / "data" / "vms" / VM).mkdir(parents=True)
    return Settings(
        host=HOST,
        data_dir=folder / "data",
        image_dir=folder / "images",
        tick_s=0.1,
        guest_agent=agent,
    )


def socket_of(settings: Settings) -> Path:
    port = settings.guest_agent.push.port
    return guest_sockets.unix_path(settings.data_dir / "vms" / VM, port)


async def test_a_frame_counts_for_whose_line_it_came_by_and_for_now_whatever_it_claims(
    short_path: Path,
) -> None:
    settings = settings_in(short_path, GuestAgentSettings(eager_interval_s=0.5))
    in_ten_years = datetime.now(UTC) + timedelta(days=3650)
    claims = {
        "v": 1,
        "vm": OTHER,
        "id": OTHER,
        "cid": 2,
        "host": "h9",
        "at": in_ten_years.timestamp(),
    }
    async with world_of(settings, MemoryHypervisor()) as world, samples_of(world) as samples:
        await world.assign(assignment_of())
        await until(socket_of(settings).exists)
        async with stranger_at(socket_of(settings)) as guest:
            guest.say(msgspec.json.encode(claims))
            sample = await next_by("guest-agent", samples)
    assert sample.vm == VM
    assert abs(sample.at - datetime.now(UTC)) < timedelta(seconds=WAIT_S)
    assert sample.clock_offset_s == pytest.approx(3650 * 86_400, abs=WAIT_S)


async def test_a_guest_that_changes_its_name_all_the_time_is_told_of_seldom(
    short_path: Path,
) -> None:
    push = GuestPushSettings(interval_s=0.5, frames_per_s=100, bytes_per_s=1 << 20)
    settings = settings_in(short_path, GuestAgentSettings(eager_interval_s=0.5, push=push))
    async with world_of(settings, MemoryHypervisor()) as world, samples_of(world) as samples:
        await world.assign(assignment_of())
        await until(socket_of(settings).exists)
        async with stranger_at(socket_of(settings)) as guest:
            for number in range(100):
                guest.say(b'{"v":1,"hostname":"guest-%d"}' % number)
            while (await next_by("guest-agent", samples)).hostname != "guest-99":
                pass
        await world.happens("vm.guest_changed")
        told = [name for name in world.names() if name == "vm.guest_changed"]
        assert len(told) <= 5


async def test_qemus_agent_is_asked_only_while_the_guests_own_is_silent(short_path: Path) -> None:
    asked = GuestAgentSettings(
        interval_s=0.1,
        longest_pause_s=0.1,
        eager_interval_s=0.5,
        push=GuestPushSettings(interval_s=0.5),
    )
    settings = settings_in(short_path, asked)
    path = socket_of(settings)
    async with world_of(settings, MemoryHypervisor()) as world, samples_of(world) as samples:
        await world.assign(assignment_of())
        by_qga = await next_by("qga", samples)
        assert by_qga.error == "make-believe guests have no agent"
        await until(path.exists)
        async with agent_at(path):
            first = await next_by("guest-agent", samples)
            while not samples.empty():
                samples.get_nowait()
            following = [await samples.get() for _ in range(4)]
            assert [one.source for one in following] == ["guest-agent"] * 4
            assert following[-1].cpu_busy is not None
            assert first.hostname == os.uname().nodename
        facts = await world.happens("vm.guest_changed")
        assert facts.data.guest.hostname == os.uname().nodename
        assert (await next_by("qga", samples)).error
