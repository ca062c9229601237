"""Metrics over time by the real gateway and the SDK, from the metrics service's own answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import pytest_asyncio
from msgspec import structs

from chassis.clock import SystemClock
from chassis.ids import SystemIds
from chassis.service import Rig
from schemas import samples
from schemas.ids import uuid7
from schemas.metrics import Metrics
from schemas.problems import Problem
from schemas.telemetry import HostFrame, HostSample, VmColumns
from services.metrics.columns import measured
from services.metrics.model import Garbled
from services.metrics.past import Past
from services.metrics.settings import MetricsSettings
from tests.fixtures.gateway import TOKEN, GatewayUnderTest, running, serve, until_answers
from vireo import Client, ClientSettings, Invalid, NotFound

VM, HOST = samples.VM, samples.HOST
OTHER_VM = uuid7(1_700_000_000_000, b"0123456789")
LIVE = {"Accept": "text/event-stream"}
QUICK = ClientSettings(attempts=2, backoff_first_s=0.01, patience_s=2)


@pytest_asyncio.fixture
async def past(gateway: GatewayUnderTest) -> AsyncIterator[Past]:
    rig = Rig(
        service="metrics",
        instance="test",
        site="main",
        bus=gateway.bus,
        clock=SystemClock(),
        ids=SystemIds(),
    )
    made = Past(MetricsSettings(), rig)
    async with running(serve(gateway.bus, "metrics", made.endpoints())):
        await until_answers(gateway, f"/v1/hosts/{HOST}/metrics")
        yield made


@pytest_asyncio.fixture
async def client(gateway: GatewayUnderTest) -> AsyncIterator[Client]:
    async with Client(gateway.url, TOKEN, settings=QUICK) as client:
        yield client


def tell(past: Past, tick: int, *, ago_s: float = 0.0, vms: tuple[str, ...] = (VM,)) -> None:
    frame = HostFrame(
        host=HOST,
        site="main",
        at=datetime.now(UTC) - timedelta(seconds=ago_s),
        sequence=tick,
        interval_s=5.0,
        sample=HostSample(load1=float(tick)),
        vms=VmColumns(ids=vms, cpus=(tick,) * len(vms)),
    )
    arrays = measured(frame)
    assert not isinstance(arrays, Garbled)
    past.take(frame, arrays)


async def test_a_graph_is_answered_by_name_with_average_least_and_most(
    gateway: GatewayUnderTest, past: Past
) -> None:
    for tick, ago_s in ((1, 20.0), (4, 15.0), (1, 10.0)):
        tell(past, tick, ago_s=ago_s)
    answer = await gateway.http.get("/v1/vms/web-1/metrics?from=1h&step=2h&series=cpus")
    found = msgspec.json.decode(answer.content, type=Metrics)
    known = [value for value in found.series["cpus"].avg if value is not None]
    assert (answer.status_code, found.vm, found.step_s, known) == (200, VM, 7200, [2.0])
    assert max(v for v in found.series["cpus"].max if v is not None) == 4.0
    assert min(v for v in found.series["cpus"].min if v is not None) == 1.0


async def test_the_sdk_asks_for_the_last_hour_unless_it_is_told_otherwise(
    client: Client, past: Past
) -> None:
    tell(past, 3)
    now = datetime.now(UTC)
    found = await client.hosts.metrics(HOST)
    assert found.host == HOST
    assert abs((now - timedelta(hours=1) - found.start).total_seconds()) < 60
    assert [value for value in found.series["load1"].max if value is not None] == [3.0]
    older = await client.vms.metrics(
        VM, since=now - timedelta(days=2), until=now - timedelta(days=1), step_s=3600
    )
    assert (older.step_s, older.points, older.series) == (3600, 25, {})


async def test_every_bad_field_is_named(gateway: GatewayUnderTest, past: Past) -> None:
    async def fields(query: str, **headers: str) -> list[str]:
        answer = await gateway.http.get(f"/v1/vms/{VM}/metrics?{query}", headers=headers)
        found = msgspec.json.decode(answer.content, type=Problem)
        assert answer.status_code == 400
        return [error.field for error in found.errors]

    assert await fields("from=yesterday&to=x&step=1") == ["query/from", "query/to", "query/step"]
    assert await fields("from=1h&to=2h") == ["query/to"]
    assert await fields("step=0.5s") == ["query/step"]
    assert await fields("series=cpu&colour=red") == ["query/colour"]
    assert await fields("series=cpu") == ["query/series"]
    assert await fields("from=7d&step=1s") == ["query/step"]
    live = {"Accept": "text/event-stream"}
    assert await fields("from=1h&step=5s", **live) == ["query/from", "query/step"]
    assert await fields("", **live, **{"Last-Event-ID": "x"}) == ["header/Last-Event-ID"]
    assert await fields("series=cpu", **live) == ["query/series"]


async def test_samples_come_as_they_are_told_and_a_reader_goes_on_where_it_was(
    gateway: GatewayUnderTest, client: Client, past: Past
) -> None:
    tell(past, 1)
    watching = client.vms.watch(VM, series=["cpus"])
    async with asyncio.timeout(10):
        first = await anext(watching)
        told = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0)
        tell(past, 2)
        second = await told
        assert [first.values, second.values] == [{"cpus": 1.0}, {"cpus": 2.0}]
        after = {
            "Accept": "text/event-stream",
            "Last-Event-ID": str(round(first.at.timestamp() * 1e6)),
        }
        path = f"/v1/vms/{VM}/metrics"
        async with gateway.http.stream("GET", path, headers=after) as answer:
            lines = answer.aiter_lines()
            while not (line := await anext(lines)).startswith("id: "):
                pass
        assert line == f"id: {round(second.at.timestamp() * 1e6)}"


async def test_a_reader_of_a_vm_that_is_deleted_is_told_so_and_comes_to_an_end(
    gateway: GatewayUnderTest, client: Client, past: Past
) -> None:
    tell(past, 1)
    watching = client.vms.watch(VM, series=["cpus"])
    raw = gateway.http.stream("GET", f"/v1/vms/{VM}/metrics", headers=LIVE)
    async with asyncio.timeout(10), raw as answer:
        seen = [(await anext(watching)).values]
        vm = gateway.inventory.vms[VM]
        gateway.inventory.vms[VM] = structs.replace(vm, state="deleted")
        tell(past, 2, vms=())
        seen += [sample.values async for sample in watching]
        lines = [line async for line in answer.aiter_lines()]
    assert seen == [{"cpus": 1.0}]
    assert lines[-3:] == ["event: gone", "data: {}", ""]
    with pytest.raises(NotFound):
        await anext(client.vms.watch(VM))


async def test_a_vm_that_stands_still_is_watched_on(client: Client, past: Past) -> None:
    tell(past, 1)
    watching = client.vms.watch(VM, series=["cpus"])
    async with asyncio.timeout(10):
        seen = [(await anext(watching)).values]
        for tick, vms in ((2, ()), (3, (VM,))):
            tell(past, tick, vms=vms)
            seen.append((await anext(watching)).values)
    assert seen == [{"cpus": 1.0}, {}, {"cpus": 3.0}]


@pytest.mark.parametrize("path", [f"/v1/vms/{OTHER_VM}/metrics", "/v1/hosts/h999/metrics"])
async def test_of_what_there_is_not_nothing_is_streamed(
    gateway: GatewayUnderTest, past: Past, path: str
) -> None:
    answer = await gateway.http.get(path, headers=LIVE)
    assert answer.status_code == 404


async def test_the_sdk_says_what_is_wrong_with_a_question(client: Client, past: Past) -> None:
    with pytest.raises(Invalid, match="no series 'cpu' of a host"):
        await client.hosts.metrics(HOST, series=["cpu"])
