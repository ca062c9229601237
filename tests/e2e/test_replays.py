"""Recorded events published again on real processes: as they were, under subjects of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from bench.test_driver import node_file
from deploy.control_plane import ControlPlane
from tests.fixtures.plane import until
from vireo import Client, Invalid

WAIT_S = 30.0


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """In a directory that Postgres' own user may enter."""
    with tempfile.TemporaryDirectory(prefix="vireo-again-") as directory:
        place = Path(directory)
        place.chmod(0o711)
        hosts = {"h1": node_file(place / "node.xml")}
        with ControlPlane(place / "state", hosts) as running:
            yield running


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    async with Client(plane.url, plane.token) as client:
        yield client


@pytest.fixture
async def bus(plane: ControlPlane) -> AsyncIterator[Nats]:
    password = (plane.state_dir / "credentials/operator.password").read_text().strip()
    bus = await nats.connect(
        f"nats://127.0.0.1:{plane.nats_port}", user="operator", password=password
    )
    yield bus
    await bus.close()


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def published(bus: Nats, name: str) -> list[Msg]:
    """What a replay has published so far."""
    reading = await bus.jetstream().subscribe(f"vireo.replay.{name}.>", ordered_consumer=True)
    found = []
    try:
        while True:
            found.append(await reading.next_msg(timeout=0.3))
    except nats.errors.TimeoutError:
        return found
    finally:
        await reading.unsubscribe()


async def test_events_are_published_again_as_they_were_and_nothing_live_takes_notice(
    plane: ControlPlane, client: Client, bus: Nats
) -> None:
    begun = datetime.now(UTC) - timedelta(hours=1)
    for number in range(3):
        await client.hosts.configure("h1", labels={"rack": f"r{number}"}, wait=WAIT_S)
    until_now = datetime.now(UTC)
    originals = {
        message.headers["Nats-Msg-Id"]: message
        for message in await events_of(bus)
        if message.headers is not None
    }
    times = ("--from", f"{begun:%Y-%m-%dT%H:%M:%S}", "--to", f"{until_now:%Y-%m-%dT%H:%M:%S}")
    plain = plane.cli("replay", *times, "--into", "dry", "--dry-run")
    assert "events to vireo.replay.dry.>" in plain.stdout, plain

    pending = await client.replays.start("all", since=begun, until=until_now, speed=0)
    assert "events to vireo.replay.all.>" in (await pending.wait(WAIT_S)).detail
    again = await published(bus, "all")
    assert len(again) >= 9
    for message in again:
        assert message.headers is not None
        original = originals[message.headers["Vireo-Replay-Of"]]
        assert message.data == original.data
        assert message.headers["Nats-Msg-Id"] != message.headers["Vireo-Replay-Of"]
        assert message.subject == original.subject.replace("vireo.evt.", "vireo.replay.all.", 1)
    assert await client.operations.get(pending.id)
    assert len({header.id async for header in client.events.list()}) == len(await events_of(bus))

    filtered = await client.replays.start(
        "some", since=begun, until=until_now, speed=0, types=("host.configured",), wait=WAIT_S
    )
    assert filtered.latest.detail.startswith("3 events")
    assert len(await published(bus, "some")) == 3


async def events_of(bus: Nats) -> list[Msg]:
    reading = await bus.jetstream().subscribe("vireo.evt.>", ordered_consumer=True)
    found = []
    try:
        while True:
            found.append(await reading.next_msg(timeout=0.3))
    except nats.errors.TimeoutError:
        return found
    finally:
        await reading.unsubscribe()


async def test_a_slow_replay_goes_on_after_a_kill_and_can_be_stopped(
    plane: ControlPlane, client: Client, bus: Nats
) -> None:
    for number in range(2):
        await client.hosts.configure("h1", labels={"rack": f"s{number}"}, wait=WAIT_S)
    begun = datetime.now(UTC) - timedelta(hours=1)
    # So slowly that it is still at it for hours.
    pending = await client.replays.start("slow", since=begun, until=in_an_hour(), speed=0.00001)

    async def has_begun() -> bool:
        return len(await published(bus, "slow")) >= 1

    await until(has_begun, "the first event is published again", timeout_s=WAIT_S)
    before = len(await published(bus, "slow"))
    kill(plane, "inventory")
    done = await asyncio.to_thread(plane.cli, "replay", "--into", "slow", "--stop")
    assert "1 told to stop" in done.stdout, done
    ended = await pending.wait(WAIT_S)
    assert ended.detail.endswith("then it was stopped")
    # After the break its pace begins anew: what it goes on with is published at once, and only once.
    messages = await published(bus, "slow")
    assert before <= len(messages) <= before + 1
    assert len({message.headers["Vireo-Replay-Of"] for message in messages if message.headers}) == (
        len(messages)
    )


def kill(plane: ControlPlane, name: str) -> None:
    os.kill(plane.children()[name], signal.SIGKILL)


async def test_a_replay_goes_nowhere_but_under_its_own_name(client: Client) -> None:
    now = datetime.now(UTC)
    for name in ("vireo.evt.main", "a.b", "*", ">", "UPPER"):
        with pytest.raises(Invalid):
            await client.replays.start(name, since=now, until=in_an_hour())
    with pytest.raises(Invalid):
        await client.replays.start("backwards", since=in_an_hour(), until=now)
