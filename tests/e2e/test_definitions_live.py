"""Policies, templates and projects by the command line, on a real gateway, inventory, bus and Postgres."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
import nats
import pytest
from msgspec import Struct

from chassis import kv
from chassis.bus import Bus
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.nats import NatsSettings, connect
from chassis.postgres import PostgresSettings
from chassis.run import running
from schemas import subjects
from schemas.alerts import AlertRule
from schemas.policies import Policy
from services.gateway.build import build as build_gateway
from services.gateway.settings import GatewaySettings
from services.inventory.handlers import build as build_inventory
from services.inventory.settings import InventorySettings
from tests.fixtures.gateway import free_port
from tests.fixtures.nats import NatsServer
from vireo import Client

D = TypeVar("D", Policy, AlertRule)

PATIENCE_S = 30.0
TICK_S = 0.02

QUIET = "name: quiet\nweights:\n  free_cpu: 2\n"
SHOP = "name: shop\npolicy: quiet\nquota: {vms: 2}\n"
WEB = "name: web\ncpus: 2\ndisks:\n  - {image: tiny}\nproject: shop\n"


class Ended(Struct, frozen=True):
    code: int
    out: str
    err: str


class Site(Struct, frozen=True, kw_only=True):
    """What runs, and how to speak to it."""

    bus: Bus
    nats: NatsServer
    url: str
    token: str
    home: Path

    async def vireo(self, *arguments: str, stdin: str = "") -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vireo.cli", *arguments),
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "VIREO_URL": self.url,
                "VIREO_TOKEN": self.token,
                "COLUMNS": "120",
            },
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def in_config(self, key: str, kind: type[D]) -> D | None:
        found = await self.bus.last(
            kv.stream_of(subjects.KV_CONFIG), kv.subject_of(subjects.KV_CONFIG, key)
        )
        value = kv.entry(found).value if found is not None else None
        return msgspec.json.decode(value, type=kind) if value is not None else None


@pytest.fixture
async def site(
    own_nats_server: NatsServer, postgres_database: PostgresSettings, tmp_path: Path
) -> AsyncIterator[Site]:
    nats_settings = NatsSettings(
        urls=(own_nats_server.url,), absent_retry_s=0.05, redial_most_s=0.2
    )
    token_file = tmp_path / "admin.token"
    port = free_port()
    inventory = InventorySettings(
        nats=nats_settings, postgres=postgres_database, poll_s=0.2, config_check_s=0.2
    )
    gateway = GatewaySettings(nats=nats_settings, port=port, admin_token_file=token_file)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(nats_settings, name="test"))
        await ensure_streams(bus, SystemClock())
        works = [
            await stack.enter_async_context(running("inventory", inventory, build_inventory)),
            await stack.enter_async_context(running("gateway", gateway, build_gateway)),
        ]

        async def ready() -> bool:
            return all(work.doctor.health().ready for work in works)

        await eventually(ready)
        yield Site(
            bus=bus,
            nats=own_nats_server,
            url=f"http://127.0.0.1:{port}",
            token=token_file.read_text().strip(),
            home=tmp_path,
        )


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(TICK_S)


async def test_a_policys_life_on_the_command_line(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "quiet.yaml"
    file.write_text(QUIET)
    applied = await site.vireo("policy", "apply", str(file), "-q")
    assert (applied.code, applied.out.rsplit(": ", 1)[-1]) == (0, "version 1\n"), applied.err
    kept = await site.in_config("policy.quiet", Policy)
    assert kept == Policy(name="quiet", version=1, weights={"free_cpu": 2.0})

    same, listed = await asyncio.gather(
        site.vireo("policy", "apply", str(file), "-q"), site.vireo("policy", "list")
    )
    assert same.out.endswith("unchanged: version 1 says the same\n")
    assert "quiet            1" in listed.out
    assert "shipped" in listed.out

    file.write_text(QUIET + "  packed: 1\n")
    difference, foretold = await asyncio.gather(
        site.vireo("policy", "diff", str(file)),
        site.vireo("policy", "apply", str(file), "--dry-run", "-o", "json"),
    )
    assert difference.out.splitlines() == [
        "--- policy quiet version 1",
        f"+++ {file}",
        "@@ -2,2 +2,3 @@",
        " weights:",
        "   free_cpu: 2.0",
        "+  packed: 1.0",
    ]
    assert json.loads(foretold.out)["detail"] == "version 2"
    assert (await site.vireo("policy", "apply", str(file), "-q")).code == 0

    old = tmp_path / "old.yaml"
    old.write_text("version: 1\n" + QUIET)
    stale, versions, between, shown = await asyncio.gather(
        site.vireo("policy", "apply", str(old), "-q"),
        site.vireo("policy", "versions", "quiet"),
        site.vireo("policy", "diff", "quiet", "1", "2"),
        site.vireo("policy", "show", "quiet", "--version", "1", "-o", "json"),
    )
    assert stale.code == 5
    assert "Version 1 is not newer than 2" in stale.err
    assert [line.split()[0] for line in versions.out.splitlines()[1:]] == ["2", "1"]
    assert between.out.splitlines()[-1] == "+  packed: 1.0"
    assert json.loads(shown.out)["definition"]["weights"] == {"free_cpu": 2.0}

    assert (await site.vireo("policy", "remove", "quiet", "-q")).code == 0
    assert await site.in_config("policy.quiet", Policy) is None
    assert (await site.vireo("policy", "show", "quiet")).code == 4


async def test_an_alert_rules_life_on_the_command_line(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "host-silent.yaml"
    file.write_text(
        "name: host-silent\nmetric: vireo_host_online\nbelow: 1\nfor_s: 300\nsummary: '{host}'\n"
    )
    applied = await site.vireo("alert", "apply", str(file), "-q")
    assert (applied.code, applied.out.rsplit(": ", 1)[-1]) == (0, "version 2\n"), applied.err
    kept = await site.in_config("rule.host-silent", AlertRule)
    assert kept is not None
    assert (kept.version, kept.for_s) == (2, 300)

    difference, removed = await asyncio.gather(
        site.vireo("alert", "diff", "host-silent", "1", "2"),
        site.vireo("alert", "remove", "host-silent", "-q", "--dry-run", "-o", "json"),
    )
    assert {"-for_s: 60.0", "+for_s: 300.0"} <= {*difference.out.splitlines()}
    assert json.loads(removed.out)["target"] == "host-silent"
    assert (await site.vireo("alert", "remove", "host-silent", "-q")).code == 0
    assert await site.in_config("rule.host-silent", AlertRule) is None
    shown = json.loads((await site.vireo("alert", "show", "host-silent", "-o", "json")).out)
    assert (shown["version"], shown["shipped"]) == (1, True)

    wrong = "name: hot\nmetric: vireo_heat\nabove: 1\nbelow: 2\nsummary: hot\n"
    ended = await site.vireo("alert", "apply", "-", stdin=wrong)
    assert ended.code == 2
    assert "  -:2:9: there is no metric vireo_heat\n  -:3:8: expected either" in ended.err


async def test_a_files_mistakes_are_told_by_line_and_column(site: Site) -> None:
    text = "name: web\ncpus: many\ndisk: []\n"
    ended = await site.vireo("template", "apply", "-", stdin=text)
    assert ended.code == 2
    assert "  -:2:7: expected int, got str\n" in ended.err
    assert "  -:3:1: unknown field 'disk'; there are " in ended.err


async def test_what_is_named_is_kept_together_and_vms_are_made_of_it(site: Site) -> None:
    early = await site.vireo("project", "apply", "-", "-q", stdin=SHOP)
    assert early.code == 1
    assert "there is no policy 'quiet'" in early.err
    for kind, text in (("policy", QUIET), ("project", SHOP), ("template", WEB)):
        ended = await site.vireo(kind, "apply", "-", "-q", stdin=text)
        assert ended.code == 0, ended.err
    kept, shipped, made, unknown = await asyncio.gather(
        site.vireo("project", "remove", "shop", "-q"),
        site.vireo("policy", "remove", "pack", "-q"),
        site.vireo("vm", "create", "w1", "--template", "web", "--no-wait", "-o", "json"),
        site.vireo("vm", "create", "w2", "--template", "web", "--policy", "loud"),
    )
    assert (kept.code, shipped.code) == (5, 5)
    assert "is in use by template web" in kept.err
    assert "comes with Vireo" in shipped.err
    assert made.code == 0, made.err
    assert (unknown.code, "there is no policy 'loud'" in unknown.err) == (2, True)
    command = await site.bus.last(subjects.COMMANDS, "vireo.cmd.*.vm.create")
    assert command is not None
    spec = json.loads(command.data)["data"]["spec"]
    assert (spec["cpus"], spec["project"], spec["policy"]) == (2, "shop", "quiet")
    assert spec["template"] == {"name": "web", "version": 1}


async def test_a_bucket_that_is_lost_while_it_runs_is_filled_again(site: Site) -> None:
    async with Client(site.url, site.token) as client:
        await client.policies.apply({"name": "quiet", "weights": {"packed": 1}}, wait=True)
    connection = await nats.connect(site.nats.url)
    await connection.jetstream().delete_stream(kv.stream_of(subjects.KV_CONFIG))
    await connection.close()
    await ensure_streams(site.bus, SystemClock())

    async def there() -> bool:
        found = await site.in_config("policy.quiet", Policy)
        return found is not None and found.version == 1

    await eventually(there)
