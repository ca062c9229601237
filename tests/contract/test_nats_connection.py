"""How a service gets onto the bus and stays: logins, secrets in files, and other clients beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import nats
import pytest

from chassis import kv
from chassis.bus import Outgoing, StreamConfig, Unavailable
from chassis.nats import NatsBus, NatsSettings, connect
from tests.fixtures.nats import NatsServer

PATIENCE_S = 5.0


def users(**passwords: str) -> str:
    listed = ", ".join(
        f'{{ user: "{user}", password: "{password}" }}' for user, password in passwords.items()
    )
    return f"authorization {{ users: [ {listed} ] }}\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def login(server: NatsServer, password_file: Path) -> NatsSettings:
    return NatsSettings(
        urls=(server.url,),
        user="scheduler",
        password_file=str(password_file),
        first_connection_s=1.0,
    )


async def test_a_password_comes_from_its_file(own_nats_server: NatsServer, tmp_path: Path) -> None:
    own_nats_server.more_config = users(scheduler="open sesame")
    own_nats_server.restart()
    secret = tmp_path / "password"
    secret.write_text("open sesame\n")

    async with connect(login(own_nats_server, secret), name="test") as bus:
        assert bus.connected


async def test_a_wrong_password_is_tried_again_until_the_time_is_over(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    own_nats_server.more_config = users(scheduler="open sesame")
    own_nats_server.restart()
    secret = tmp_path / "password"
    secret.write_text("wrong")

    with pytest.raises(Unavailable):
        async with connect(login(own_nats_server, secret), name="test"):
            pass


async def test_a_missing_secret_is_waited_for(own_nats_server: NatsServer, tmp_path: Path) -> None:
    own_nats_server.more_config = users(scheduler="open sesame")
    own_nats_server.restart()
    secret = tmp_path / "password"

    async def connected() -> bool:
        settings = login(own_nats_server, secret)
        async with connect(settings, name="test") as bus:
            return bus.connected

    waiting = asyncio.ensure_future(connected())
    await asyncio.wait([waiting], timeout=0.1)
    secret.write_text("open sesame")

    assert await waiting


async def test_a_changed_password_is_taken_up_by_the_next_connection(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    own_nats_server.more_config = users(scheduler="old")
    own_nats_server.restart()
    secret = tmp_path / "password"
    secret.write_text("old")

    async with connect(login(own_nats_server, secret), name="test") as bus:
        own_nats_server.more_config = users(scheduler="new")
        own_nats_server.restart()
        await until(lambda: not bus.connected)
        secret.write_text("new")

        await until(lambda: bus.connected)


async def test_a_forbidden_subject_ends_nothing(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    own_nats_server.more_config = (
        'authorization { users: [ { user: "scheduler", password: "p", permissions: '
        '{ publish: ["$JS.API.>", "mine.>"], subscribe: ["_INBOX.>"] } } ] }\n'
    )
    own_nats_server.restart()
    secret = tmp_path / "password"
    secret.write_text("p")

    async with connect(login(own_nats_server, secret), name="test") as bus:
        await bus.ensure_stream(
            StreamConfig(name="MINE", description="of a test", subjects=("mine.>", "yours.>"))
        )
        with pytest.raises(Unavailable):
            await bus.request("yours.a", b"", timeout_s=0.2)

        assert (await bus.publish(Outgoing(subject="mine.a"))).sequence == 1


async def test_the_second_of_two_servers_is_found(own_nats_server: NatsServer) -> None:
    urls = ("nats://127.0.0.1:1", own_nats_server.url)

    async with connect(NatsSettings(urls=urls), name="test") as bus:
        assert bus.connected


async def test_a_bucket_is_one_for_every_other_client(
    own_nats_server: NatsServer,
) -> None:
    async with connect(NatsSettings(urls=(own_nats_server.url,)), name="test") as bus:
        await bus.ensure_stream(
            StreamConfig(
                name="KV_FLEET",
                description="of a test",
                subjects=(),
                allow_atomic=True,
                max_msgs_per_subject=5,
            )
        )
        await bus.publish(kv.put("FLEET", "vm.1.h1", b"ours"))

        stranger = await nats.connect(own_nats_server.url)
        bucket = await stranger.jetstream().key_value("FLEET")
        ours = await bucket.get("vm.1.h1")
        await bucket.put("vm.1.h1", b"theirs")
        await bucket.delete("vm.1.h1")
        await stranger.close()

        assert ours.value == b"ours"
        assert await _value(bus, "vm.1.h1") is None


async def _value(bus: NatsBus, key: str) -> bytes | None:
    kept = await bus.last(kv.stream_of("FLEET"), kv.subject_of("FLEET", key))
    assert kept is not None
    return kv.entry(kept).value
