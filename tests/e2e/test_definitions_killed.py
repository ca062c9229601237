"""The inventory killed while it carries out commands about definitions: each is done once, in order."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

import msgspec

from chassis import kv
from chassis.bus import Bus, CaughtUp, NoResponders, Outgoing, Start, Unavailable
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.micro import ask
from chassis.nats import NatsSettings, connect
from chassis.postgres import PostgresSettings
from schemas import subjects
from schemas.commands import ApplyPolicy
from schemas.definitions import Definition
from schemas.policies import Policy
from schemas.queries import ListVersions
from schemas.resources import Page
from schemas.wire import encode
from tests.fixtures.inventory import SITE, id_of
from tests.fixtures.kept_definitions import ordered
from tests.fixtures.nats import NatsServer

COMMANDS = 60
PATIENCE_S = 60.0
TICK_S = 0.02


class Killable:
    """`python -m services.inventory` for the site of the tests."""

    def __init__(self, server: NatsServer, postgres: PostgresSettings, log: Path) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "VIREO_SITE": SITE,
            "VIREO_NATS_URLS": server.url,
            "VIREO_INVENTORY_ACK_WAIT_S": "1",
            "VIREO_INVENTORY_POSTGRES_HOST": postgres.host,
            "VIREO_INVENTORY_POSTGRES_PORT": str(postgres.port),
            "VIREO_INVENTORY_POSTGRES_DATABASE": postgres.database,
            "VIREO_INVENTORY_POSTGRES_USER": postgres.user,
            "VIREO_INVENTORY_POSTGRES_PASSWORD_FILE": str(postgres.password_file),
        }
        self._log = log

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.inventory"), env=self._environment, stderr=log
            )

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()


async def test_killed_again_and_again_it_makes_each_version_once(
    own_nats_server: NatsServer, postgres_database: PostgresSettings, tmp_path: Path
) -> None:
    """Each time when some more of the operations have ended, wherever it then is."""
    nats = NatsSettings(urls=(own_nats_server.url,), absent_retry_s=0.05, redial_most_s=0.2)
    inventory = Killable(own_nats_server, postgres_database, tmp_path / "inventory.log")
    async with connect(nats, name="test") as bus:
        await ensure_streams(bus, SystemClock())
        await inventory.start()
        try:
            for part in range(3):
                await _order(bus, range(part * 20 + 1, part * 20 + 21))
                await _until_ended(bus, part * 20 + 3 + part)
                await inventory.kill()
                await inventory.start()
            ended = await _until_ended(bus, COMMANDS)
            assert set(ended.values()) == {1}
            assert await _versions(bus) == [(n, str(n)) for n in range(COMMANDS, 0, -1)]
            assert (await _in_config(bus)).description == str(COMMANDS)
        finally:
            await inventory.kill()


async def _order(bus: Bus, numbers: range) -> None:
    for number in numbers:
        command = ordered(
            number, ApplyPolicy(definition=Policy(name="quiet", description=str(number)))
        )
        subject = subjects.command(ApplyPolicy, site=SITE)
        await bus.publish(Outgoing(subject=subject, data=encode(command), message_id=id_of(number)))


async def _until_ended(bus: Bus, least: int) -> Counter[str]:
    """How often each operation was told to have succeeded, as soon as that many were."""
    ended: Counter[str] = Counter()
    async with (
        asyncio.timeout(PATIENCE_S),
        bus.follow(
            subjects.EVENTS,
            [subjects.event_pattern(site=SITE, kind="operation", event="succeeded")],
            start=Start(at="all"),
        ) as messages,
    ):
        async for message in messages:
            if isinstance(message, CaughtUp):
                continue
            ended[json.loads(message.data)["operation"]] += 1
            if len(ended) >= least:
                return ended
    raise AssertionError("the stream ended")


async def _versions(bus: Bus) -> list[tuple[int, str]]:
    """Each version and which command it comes from, newest first."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                answer = await ask(
                    bus,
                    "inventory",
                    "definition.versions",
                    ListVersions(kind="policy", name="quiet", limit=1000),
                    timeout_s=5,
                )
            except (NoResponders, Unavailable):
                await asyncio.sleep(TICK_S)
                continue
            assert isinstance(answer, bytes)
            items = msgspec.json.decode(answer, type=Page).items
            found = msgspec.convert(items, list[Definition[Policy]])
            return [
                (each.version, each.definition.description)
                for each in found
                if each.definition is not None
            ]


async def _in_config(bus: Bus) -> Policy:
    subject = kv.subject_of(subjects.KV_CONFIG, "policy.quiet")
    found = await bus.last(kv.stream_of(subjects.KV_CONFIG), subject)
    assert found is not None
    return msgspec.json.decode(found.data, type=Policy)
