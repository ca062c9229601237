"""The past in a real Postgres: stored by the minute, summed up, read back, and what is missing is a gap."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from chassis.clock import ManualClock
from chassis.ids import SystemIds
from chassis.memory_bus import memory_bus
from chassis.postgres import Postgres, PostgresSettings, connect
from chassis.service import Retry, Rig
from schemas.ids import uuid7
from schemas.metrics import GetHistory, GetLive, LiveSamples, Metrics
from schemas.problems import Problem
from schemas.telemetry import HostFrame, HostSample, VmColumns
from services.metrics.columns import Measured, measured
from services.metrics.entries import entry_type, summed_up
from services.metrics.levels import DAY_S, FINEST, HOUR_S, LEVELS, MINUTE_S
from services.metrics.model import Garbled
from services.metrics.past import Past
from services.metrics.recorder import Recorder
from services.metrics.series import HOST_SERIES, VM_SERIES
from services.metrics.settings import HistorySettings, MetricsSettings
from services.metrics.store import entity
from tests.fixtures.postgres import PostgresServer
from vireo.deployment.plan import METRICS_ROLE
from vireo.standalone.credentials import password_file
from vireo.standalone.postgres import SUPERUSER

START = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
START_S = int(START.timestamp())
TICK_S = 5
WEB = uuid7(1_700_000_000_000, b"0123456789")
SETTINGS = MetricsSettings(history=HistorySettings(keep=True))
LOAD1 = [each.name for each in HOST_SERIES].index("load1")


class World:
    """A metrics service without a bus, a clock that is moved by hand, and a host that tells of one VM."""

    def __init__(self, clock: ManualClock, postgres: Postgres, rig: Rig) -> None:
        self.clock = clock
        self.postgres = postgres
        self._rig = rig
        self.ticks = 0

    async def begin(self) -> None:
        self.past = Past(SETTINGS, self._rig)
        self.store = await self.past.use(self.postgres)

    async def tell(self, seconds: int, *, load1: float = 1.0, every_s: int = TICK_S) -> None:
        for _ in range(seconds // every_s):
            self.past.take(*self.frame(load1, every_s))
            await self.clock.advance(every_s)

    def frame(self, load1: float, every_s: int = TICK_S) -> tuple[HostFrame, Measured]:
        self.ticks += 1
        frame = HostFrame(
            host="h1",
            site="lab",
            at=self.clock.now(),
            sequence=self.ticks,
            interval_s=float(every_s),
            sample=HostSample(load1=load1),
            vms=VmColumns(ids=(WEB,), cpus=(2,), net_receive_bytes=(100 * self.now_s(),)),
        )
        arrays = measured(frame)
        assert not isinstance(arrays, Garbled)
        return frame, arrays

    def now_s(self) -> int:
        return int(self.clock.now().timestamp())

    async def store_all(self) -> None:
        await self.past.recorder.catch_up(self.store)

    async def store_all_at_last(self) -> None:
        """As the loop does that meets a server which has only just been started."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Retry):
                    return await self.store_all()
                await asyncio.sleep(0.05)

    async def asked(self, since: int, until: int, step_s: float | None = None) -> Metrics:
        """Of the VM; times in seconds after the start."""
        query = GetHistory(vm=WEB, since=START_S + since, until=START_S + until, step_s=step_s)
        answer = await self.past.history(query)
        assert isinstance(answer, Metrics)
        # As it is read from the wire, where NaN is null.
        return msgspec.json.decode(msgspec.json.encode(answer), type=Metrics)


@asynccontextmanager
async def worlds(settings: PostgresSettings) -> AsyncIterator[World]:
    clock = ManualClock(START)
    async with memory_bus(clock) as bus, connect(settings, name="test") as postgres:
        rig = Rig(
            service="metrics",
            instance="one",
            site="lab",
            bus=bus,
            clock=clock,
            ids=SystemIds(),
        )
        world = World(clock, postgres, rig)
        await world.begin()
        yield world


@pytest.fixture
async def world(postgres_database: PostgresSettings) -> AsyncIterator[World]:
    async with worlds(postgres_database) as made:
        yield made


async def test_minutes_are_read_back_after_a_restart_and_the_time_in_between_is_a_gap(
    world: World,
) -> None:
    await world.tell(180)
    await world.past.recorder.finish(world.store)
    await world.clock.advance(120)
    await world.begin()
    await world.tell(120)
    answer = await world.asked(0, 420, 60)
    assert (answer.step_s, answer.points) == (60, 7)
    assert answer.series["cpus"].max == (2.0, 2.0, 2.0, None, None, 2.0, 2.0)
    assert answer.series["net_received"].avg == (100.0, 100.0, 100.0, None, None, 100.0, 100.0)
    assert "cpu_busy" not in answer.series


async def test_what_is_younger_than_the_service_is_shown_by_the_tick(world: World) -> None:
    await world.tell(60)
    answer = await world.asked(-600, 60)
    assert (answer.step_s, answer.points) == (5, 132)
    assert answer.series["cpus"].avg == (*(None,) * 120, *(2.0,) * 12)


async def test_the_minute_in_which_the_service_began_is_no_time_before_it(world: World) -> None:
    await world.clock.advance(25)
    await world.begin()
    await world.tell(180)
    await world.store_all()
    answer = await world.asked(-60, 205)
    assert answer.step_s == TICK_S


async def test_what_happened_while_postgres_was_gone_is_stored_when_it_is_back(
    own_postgres_server: PostgresServer,
) -> None:
    database = await asyncio.to_thread(own_postgres_server.database, "gone")
    async with worlds(database) as world:
        await world.tell(120)
        await world.store_all()
        await asyncio.to_thread(own_postgres_server.kill)
        await world.tell(600)
        with pytest.raises(Retry):
            await world.store_all()
        with pytest.raises(Retry):
            await world.asked(-DAY_S, 720)
        with pytest.raises(Retry):
            await world.asked(-60, 720)
        recent = await world.asked(120, 720)
        assert recent.series["cpus"].avg == (2.0,) * 120
        assert len(world.past.alarms()) == 1
        await asyncio.to_thread(own_postgres_server.start)
        await world.clock.advance(MINUTE_S)
        await world.store_all_at_last()
        await world.begin()
        answer = await world.asked(0, 780, 60)
        assert answer.series["cpus"].avg == (*(2.0,) * 12, None)
        assert world.past.alarms() == []


async def test_longer_than_the_ring_without_postgres_is_a_gap_of_what_was_beyond_it(
    world: World,
) -> None:
    await world.tell(3 * HOUR_S, every_s=60)
    await world.store_all()
    stored = await world.store.read(FINEST, entity("vm", WEB), 0, 1e12)
    assert len(stored) == 60
    assert stored["at"][0] >= START_S + 2 * HOUR_S - MINUTE_S


async def test_of_a_host_that_invents_vms_no_more_than_the_limit_are_stored(world: World) -> None:
    world.past.recorder = Recorder(world.past.rings, world.clock, settle_s=0, vms_per_host=3)
    for tick in range(6):
        invented = tuple(uuid7(START_S * 1000, bytes([tick, n]) + b"01234567") for n in range(5))
        frame = msgspec.structs.replace(
            world.frame(1.0)[0], vms=VmColumns(ids=(WEB, *invented), cpus=(2,) * 6)
        )
        arrays = measured(frame)
        assert not isinstance(arrays, Garbled)
        world.past.take(frame, arrays)
        await world.clock.advance(TICK_S)
    await world.past.recorder.finish(world.store)
    async with world.postgres.connection() as connection:
        stored = await connection.fetchval("select count(*) from chunks where entity like 'vm/%'")
    assert (stored, world.past.recorder.refused) == (3, 28)
    assert len(await world.store.read(FINEST, entity("vm", WEB), 0, 1e12)) == 1


async def test_two_who_record_the_same_store_it_once(world: World) -> None:
    twin = Recorder(world.past.rings, world.clock, settle_s=0)
    await world.tell(240)
    await world.store_all()
    await twin.finish(world.store)
    await world.past.recorder.finish(world.store)
    stored = await world.store.read(FINEST, entity("vm", WEB), 0, 1e12)
    assert stored["at"].tolist() == [START_S + minute * MINUTE_S for minute in range(4)]


def load_entry(at_s: int, load1: float) -> bytes:
    values = np.full((1, 1, len(HOST_SERIES)), np.nan, dtype=np.float32)
    values[0, 0, LOAD1] = load1
    entry: bytes = summed_up(at_s, values).tobytes()
    return entry


async def test_levels_follow_from_one_another_and_a_peak_goes_all_the_way_up(world: World) -> None:
    """A week by the half-hour, with one peak; it is summed up to six hours and to the week."""
    half_hour = LEVELS[1]
    begin_s = START_S - START_S % (7 * DAY_S)
    for at_s in range(begin_s, begin_s + 7 * DAY_S, half_hour.step_s):
        peak = at_s == begin_s + 3 * DAY_S
        told = {entity("host", "h1"): load_entry(at_s, 50.0 if peak else 1.0)}
        await world.store.append(half_hour, at_s, told)
    await world.store.advance(half_hour, begin_s + 7 * DAY_S)
    await world.clock.advance(begin_s + 7 * DAY_S + 100 - START_S)
    await world.begin()
    await world.store_all()
    week = await world.store.read(LEVELS[3], entity("host", "h1"), 0, 1e12)
    assert (week["at"].tolist(), week["count"][:, LOAD1].tolist()) == ([begin_s], [336])
    assert week["max"][0, LOAD1] == 50.0
    assert week["avg"][0, LOAD1] == pytest.approx(1 + 49 / 336)
    since, until = begin_s, begin_s + 7 * DAY_S
    answer = await world.past.history(GetHistory(host="h1", since=since, until=until, step_s=DAY_S))
    assert isinstance(answer, Metrics)
    assert answer.series["load1"].max == (1.0, 1.0, 1.0, 50.0, 1.0, 1.0, 1.0)


async def test_what_is_old_goes_and_what_is_young_stays(world: World) -> None:
    told = {entity("host", "h1"): load_entry(START_S, 1.0)}
    for level in LEVELS:
        await world.store.append(level, START_S, told)
    await world.store.forget(now_s=START_S + 2 * DAY_S)
    kept = [len(await world.store.read(each, entity("host", "h1"), 0, 1e12)) for each in LEVELS]
    assert kept == [0, 1, 1, 1]
    await world.store.append(FINEST, START_S + 2 * DAY_S, told)


async def test_bad_questions_are_answered_with_what_is_wrong(world: World) -> None:
    async def problem(**asked: object) -> str:
        answer = await world.past.history(GetHistory(**{"since": 100, "until": 200} | asked))  # type: ignore[arg-type]
        assert isinstance(answer, Problem)
        return answer.detail

    assert "either a VM or a host" in await problem()
    assert "no series 'cpu' of a vm; there are cpu_busy" in await problem(vm=WEB, series=("cpu",))
    assert "a time after `from`" in await problem(vm=WEB, until=100)
    many = await problem(host="h1", since=START_S - DAY_S, until=START_S + DAY_S, step_s=60)
    assert "2880 points" in many


async def test_live_samples_are_waited_for_and_come_once(world: World) -> None:
    await world.tell(10)
    newest = world.now_s()
    question = GetLive(vm=WEB, after=newest - 7, wait_s=30, series=("cpus",))
    first = await world.past.live(question)
    assert isinstance(first, LiveSamples)
    assert [sample.values for sample in first.samples] == [{"cpus": 2.0}]
    after = first.samples[-1].at.timestamp()
    waiting = asyncio.create_task(world.past.live(GetLive(vm=WEB, after=after, wait_s=30)))
    await asyncio.sleep(0)
    await world.tell(5)
    told = await waiting
    assert isinstance(told, LiveSamples)
    assert [sample.at for sample in told.samples] == [START + timedelta(seconds=10)]
    none = await world.past.live(GetLive(host="unheard", after=0))
    assert none == LiveSamples()


def test_the_role_that_init_writes_is_made_once_and_gets_its_password(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    secret = tmp_path / "metrics.password"
    secret.write_text("well kept\n")
    script = METRICS_ROLE.replace("/run/vireo/metrics.password", str(secret))
    password = password_file(postgres_server.credentials, SUPERUSER).read_text().strip()
    for _ in range(2):
        subprocess.run(
            [
                *(postgres_server.place.programs / "bin" / "psql", "--quiet", "--no-psqlrc"),
                *("--host", postgres_server.place.socket_dir, "--username", SUPERUSER),
            ],
            input=script.encode(),
            env={"PGPASSWORD": password},
            check=True,
        )
    made = postgres_server.superuser(SUPERUSER)
    as_metrics = msgspec.structs.replace(
        made, user="metrics", database="vireo_metrics", password_file=secret
    )

    async def who() -> str:
        async with connect(as_metrics, name="test") as pool, pool.connection() as connection:
            return str(await connection.fetchval("select current_user"))

    try:
        assert asyncio.run(who()) == "metrics"
    finally:
        asyncio.run(_forget_metrics(made))


async def _forget_metrics(superuser: PostgresSettings) -> None:
    async with connect(superuser, name="test") as pool, pool.connection() as connection:
        await connection.execute("drop database vireo_metrics with (force)")
        await connection.execute("drop role metrics")


def test_entries_are_as_wide_as_their_series() -> None:
    assert entry_type(len(VM_SERIES)).itemsize == 8 + 16 * len(VM_SERIES)
