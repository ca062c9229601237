"""The inventory on a real nats-server and a real Postgres: waiting, dead letters, restarts, kills."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chassis.bus import Bus, NoResponders, Outgoing, Unavailable
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.micro import ask
from chassis.nats import NatsSettings, connect
from chassis.postgres import PostgresSettings
from chassis.run import running
from chassis.work import Work
from schemas import subjects
from schemas.envelope import Envelope
from schemas.problems import Problem
from schemas.queries import GetOperation, GetVm, ListEvents
from schemas.resources import Operation, Page, Vm
from schemas.wire import encode
from services.inventory.handlers import build
from services.inventory.settings import InventorySettings
from tests.fixtures.gateway import gateway_on
from tests.fixtures.inventory import (
    CREATE,
    CREATED,
    LIFE,
    SITE,
    VM,
    Told,
    creation,
    envelopes,
    id_of,
)
from tests.fixtures.nats import NatsServer
from tests.fixtures.postgres import PostgresServer

PATIENCE_S = 30.0
RECOVERY_S = 10.0
TICK_S = 0.02
BUSY = NatsSettings(absent_retry_s=0.05, redial_most_s=0.2)


def settings_for(server: NatsServer, postgres: PostgresSettings) -> InventorySettings:
    return InventorySettings(
        nats=msgspec.structs.replace(BUSY, urls=(server.url,)), postgres=postgres, poll_s=0.2
    )


@pytest.fixture
async def bus(own_nats_server: NatsServer) -> AsyncIterator[Bus]:
    nats = msgspec.structs.replace(BUSY, urls=(own_nats_server.url,))
    async with connect(nats, name="test") as bus:
        await ensure_streams(bus, SystemClock())
        yield bus


@pytest.fixture
async def inventory_work(
    bus: Bus, own_nats_server: NatsServer, postgres_database: PostgresSettings
) -> AsyncIterator[Work]:
    settings = settings_for(own_nats_server, postgres_database)
    async with running("inventory", settings, build) as work:
        await ready(work)
        yield work


async def ready(work: Work) -> None:
    async def is_ready() -> bool:
        return work.doctor.health().ready

    await eventually(is_ready)


async def tell(bus: Bus, *told: Told, first: int = 1) -> None:
    for envelope in envelopes(*told, first=first):
        await publish(bus, envelope)


async def publish(bus: Bus, envelope: Envelope[Any]) -> None:
    """As an outbox does: again under the same id until it is acknowledged."""
    subject = subjects.event(type(envelope.data), site=SITE, source="h1", id=VM)
    message = Outgoing(subject=subject, data=encode(envelope), message_id=envelope.id)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await bus.publish(message)
            except Unavailable:
                await asyncio.sleep(TICK_S)
            else:
                return


async def eventually(holds: Callable[[], Awaitable[bool]], *, within_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(TICK_S)


async def get(bus: Bus, endpoint: str, query: msgspec.Struct, *, timeout_s: float = 5) -> Any:
    """The answer's bytes, the problem, or None while nobody answers."""
    try:
        return await ask(bus, "inventory", endpoint, query, timeout_s=timeout_s)
    except (NoResponders, Unavailable):
        return None


async def count(bus: Bus) -> int:
    answer = await get(bus, "event.list", ListEvents(limit=1000))
    return len(msgspec.json.decode(answer, type=Page).items) if isinstance(answer, bytes) else -1


async def test_who_waits_for_an_operation_is_told_when_it_has_ended(
    bus: Bus, inventory_work: Work
) -> None:
    wait = GetOperation(operation=CREATE, wait_s=PATIENCE_S, until="ended")
    waiters = [
        asyncio.create_task(get(bus, "operation.get", wait, timeout_s=PATIENCE_S))
        for _ in range(20)
    ]
    await tell(bus, *CREATED)
    answers = await asyncio.gather(*waiters)
    operations = [msgspec.json.decode(answer, type=Operation) for answer in answers]
    assert {(each.phase, len(each.trail)) for each in operations} == {("succeeded", 7)}


async def test_who_waits_for_an_operation_to_exist_has_it_while_it_runs(
    bus: Bus, inventory_work: Work
) -> None:
    wait = GetOperation(operation=CREATE, wait_s=PATIENCE_S)
    waiter = asyncio.create_task(get(bus, "operation.get", wait, timeout_s=PATIENCE_S))
    await tell(bus, *CREATED[:1])
    assert msgspec.json.decode(await waiter, type=Operation).phase == "accepted"


async def test_a_wait_that_is_over_answers_what_there_is(bus: Bus, inventory_work: Work) -> None:
    await tell(bus, *CREATED[:2])
    wait = GetOperation(operation=CREATE, wait_s=PATIENCE_S)
    assert isinstance(await get(bus, "operation.get", wait, timeout_s=PATIENCE_S), bytes)
    short = GetOperation(operation=CREATE, wait_s=0.1, until="ended")
    answer = await get(bus, "operation.get", short)
    assert msgspec.json.decode(answer, type=Operation).phase == "scheduled"
    missing = await get(bus, "operation.get", GetOperation(operation=id_of(99), wait_s=0.1))
    assert isinstance(missing, Problem)
    assert missing.status == 404


async def test_what_another_replica_committed_wakes_who_waits(
    bus: Bus,
    inventory_work: Work,
    own_nats_server: NatsServer,
    postgres_database: PostgresSettings,
) -> None:
    """Both replicas share the durable consumer, so about half of this is the other one's."""
    settings = settings_for(own_nats_server, postgres_database)
    async with running("inventory", settings, build):
        numbers = range(10, 50, 2)
        waiters = [
            asyncio.create_task(
                get(
                    bus,
                    "operation.get",
                    GetOperation(operation=id_of(number), wait_s=PATIENCE_S),
                    timeout_s=PATIENCE_S,
                )
            )
            for number in numbers
        ]
        for number in numbers:
            await tell(bus, *creation(number), first=number * 10)
        answers = await asyncio.gather(*waiters)
    assert all(isinstance(answer, bytes) for answer in answers)


async def test_undecodable_bytes_end_as_dead_letters_and_stop_nothing(
    bus: Bus, inventory_work: Work
) -> None:
    poison = (b"\xff\xfe", b"{}", b'{"specversion":"1.0"', encode({"type": "nonsense"}))
    subject = f"vireo.evt.{SITE}.h1.vm.{VM}.started"
    said = envelopes(*LIFE)
    for number, envelope in enumerate(said):
        await publish(bus, envelope)
        if number < len(poison):
            await bus.publish(Outgoing(subject=subject, data=poison[number]))

    async def all_there() -> bool:
        return await count(bus) == len(LIFE)

    await eventually(all_there)

    async def buried() -> bool:
        return await bus.last_sequence(subjects.DEADLETTERS) == len(poison)

    await eventually(buried)
    letter = await bus.last(subjects.DEADLETTERS, "vireo.dlq.>")
    assert letter is not None
    assert letter.subject == subjects.dead_letter(stream="EVENTS", consumer="inventory")


async def test_a_request_with_a_bad_field_is_answered_with_a_problem(
    bus: Bus, inventory_work: Work
) -> None:
    answer = await ask(bus, "inventory", "vm.list", b'{"limit":0}', timeout_s=5)
    assert isinstance(answer, Problem)
    assert answer.status == 400
    assert answer.errors[0].field == "/limit"


async def is_known(bus: Bus, vm: str) -> bool:
    return isinstance(await get(bus, "vm.get", GetVm(vm=vm)), bytes)


async def test_a_list_holds_what_was_shown_before_whoever_wrote_and_whoever_is_asked(
    bus: Bus,
    inventory_work: Work,
    own_nats_server: NatsServer,
    postgres_database: PostgresSettings,
    tmp_path: Path,
) -> None:
    """Two inventories and two gateways, which keep the lists that they gave."""
    settings = settings_for(own_nats_server, postgres_database)
    async with (
        running("inventory", settings, build) as second,
        gateway_on(bus, tmp_path / "one", serve_inventory=False) as one,
        gateway_on(bus, tmp_path / "two", serve_inventory=False) as two,
    ):
        await ready(second)
        for number in range(10, 40, 2):
            await tell(bus, *creation(number), first=number)
            await eventually(partial(is_known, bus, id_of(number + 1)))
            newest = [
                msgspec.json.decode((await gateway.http.get("/v1/vms")).content)["items"][0]["id"]
                for gateway in (one, two, one)
            ]
            assert newest == [id_of(number + 1)] * 3


async def test_postgres_restarted_under_the_running_service(
    bus: Bus, own_nats_server: NatsServer, own_postgres_server: PostgresServer, tmp_path: Path
) -> None:
    database = await asyncio.to_thread(own_postgres_server.database, "inventory")
    async with running("inventory", settings_for(own_nats_server, database), build) as work:
        await tell(bus, *CREATED)

        async def created() -> bool:
            return await count(bus) == len(CREATED)

        await eventually(created)
        await asyncio.to_thread(own_postgres_server.kill)
        await tell(bus, *LIFE[len(CREATED) :], first=len(CREATED) + 1)

        async def not_ready() -> bool:
            return not work.doctor.health().ready

        await eventually(not_ready)
        refusal = await get(bus, "vm.get", GetVm(vm=VM))
        assert isinstance(refusal, Problem)
        assert (refusal.type, refusal.status) == ("urn:vireo:problem:unavailable", 503)
        await asyncio.to_thread(own_postgres_server.start)

        async def all_there() -> bool:
            return await count(bus) == len(LIFE) and work.doctor.health().ready

        await eventually(all_there, within_s=RECOVERY_S)
        vm = await get(bus, "vm.get", GetVm(vm=VM))
        assert msgspec.json.decode(vm, type=Vm).state == "deleted"
        assert await bus.last_sequence(subjects.DEADLETTERS) == 0


async def test_nats_restarted_under_the_running_service(
    bus: Bus, inventory_work: Work, own_nats_server: NatsServer
) -> None:
    await tell(bus, *CREATED)
    await asyncio.to_thread(own_nats_server.restart)
    await tell(bus, *LIFE[len(CREATED) :], first=len(CREATED) + 1)

    async def all_there() -> bool:
        return await count(bus) == len(LIFE)

    await eventually(all_there, within_s=RECOVERY_S)


class InventoryProcess:
    """`python -m services.inventory`, which can be killed."""

    def __init__(self, server: NatsServer, postgres: PostgresSettings, log: Path) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "VIREO_NATS_URLS": server.url,
            "VIREO_INVENTORY_POSTGRES_HOST": postgres.host,
            "VIREO_INVENTORY_POSTGRES_PORT": str(postgres.port),
            "VIREO_INVENTORY_POSTGRES_DATABASE": postgres.database,
            "VIREO_INVENTORY_POSTGRES_USER": postgres.user,
            "VIREO_INVENTORY_POSTGRES_PASSWORD_FILE": str(postgres.password_file),
            "VIREO_INVENTORY_BATCH": "7",
        }
        self._log = log
        self._process: Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.inventory"), env=self._environment, stderr=log
            )

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        code = await self._process.wait()
        self._process = None
        return code


async def test_killed_again_and_again_it_has_every_event_once(
    bus: Bus,
    own_nats_server: NatsServer,
    postgres_database: PostgresSettings,
    tmp_path: Path,
) -> None:
    """Killed at growing distances from its start: while it connects, inserts, commits, acknowledges."""
    process = InventoryProcess(own_nats_server, postgres_database, tmp_path / "inventory.log")
    told = [each for number in range(10, 610, 2) for each in creation(number)]
    await process.start()
    try:
        for part in range(6):
            some = told[part * 100 : (part + 1) * 100]
            await tell(bus, *some, first=part * 100 + 1)
            known = part * 10

            async def begun(known: int = known) -> bool:
                return await count(bus) > known

            await eventually(begun)
            await process.kill()
            await process.start()

        async def all_there() -> bool:
            return await count(bus) >= len(told)

        await eventually(all_there)
        answer = await get(bus, "event.list", ListEvents(limit=1000))
        ids = [item["id"] for item in msgspec.json.decode(answer, type=Page).items]
        # In the order of storing: what the killed one had in hand comes after what is new.
        assert sorted(ids) == sorted(envelope.id for envelope in envelopes(*told))
        assert await process.stop() == 0
    finally:
        await process.kill()
