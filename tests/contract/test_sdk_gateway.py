"""The SDK against the real gateway: what one sends, the other understands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec import structs

from schemas import samples
from schemas.resources import DiskSpec, HostTuning, VmSpec
from schemas.rules import Taint
from schemas.wire import unwrap
from tests.fixtures.gateway import TOKEN, GatewayUnderTest
from vireo import Client, ClientSettings, Conflict, Invalid, NotFound, TimedOut, Unauthenticated
from vireo.cli.definition import use_if_known

QUICK = ClientSettings(attempts=2, backoff_first_s=0.01, poll_first_s=0.01, patience_s=2)
SPEC = VmSpec(name="sdk", disks=(DiskSpec(image="tiny"),))


@pytest_asyncio.fixture
async def client(gateway: GatewayUnderTest) -> AsyncIterator[Client]:
    async with Client(gateway.url, TOKEN, settings=QUICK) as client:
        yield client


async def test_a_create_is_awaited_to_its_end(client: Client, gateway: GatewayUnderTest) -> None:
    pending = await client.vms.create(SPEC)
    await gateway.inventory.put(structs.replace(pending.latest, phase="succeeded"))
    assert (await pending).phase == "succeeded"


async def test_a_create_that_waits_is_one_request(
    client: Client, gateway: GatewayUnderTest
) -> None:
    waiting = asyncio.create_task(client.vms.create(SPEC, wait=True))
    async with asyncio.timeout(5):
        while not gateway.inventory.asked:
            await asyncio.sleep(0.01)
    [asked] = gateway.inventory.asked
    ended = structs.replace(samples.OPERATION_SAMPLE, id=asked.operation, phase="succeeded")
    await gateway.inventory.put(ended)
    assert (await waiting).latest == ended
    assert gateway.inventory.asked == [asked]


async def test_a_wait_that_is_over_first_says_so(client: Client, gateway: GatewayUnderTest) -> None:
    waiting = asyncio.create_task(client.vms.create(SPEC, wait=0.2))
    async with asyncio.timeout(5):
        while not gateway.inventory.asked:
            await asyncio.sleep(0.01)
    operation = gateway.inventory.asked[0].operation
    await gateway.inventory.put(structs.replace(samples.OPERATION_SAMPLE, id=operation))
    with pytest.raises(TimedOut):
        await waiting


async def test_the_same_key_gives_the_same_operation(client: Client) -> None:
    first = await client.vms.create(SPEC, key="once")
    again = await client.vms.create(SPEC, key="once")
    assert again.latest == first.latest
    with pytest.raises(Conflict):
        await client.vms.create(structs.replace(SPEC, cpus=2), key="once")


async def test_every_change_is_understood(client: Client) -> None:
    vm, host = samples.VM_SAMPLE.spec.name, samples.HOST
    begun = [
        await client.vms.start(vm),
        await client.vms.stop(vm, mode="forced", grace_s=1.5),
        await client.vms.reboot(vm, mode="forced"),
        await client.vms.pause(vm),
        await client.vms.resume(vm),
        await client.vms.delete(vm, mode="graceful", grace_s=30),
        await client.hosts.configure(host, maintenance=True, labels={"rack": "a"}),
        await client.hosts.configure(
            host, taints=[Taint(key="gpu")], tuning=HostTuning(cpu_overcommit=2, weight=5)
        ),
    ]
    assert [(pending.latest.command, pending.target) for pending in begun] == [
        *((f"vm.{verb}", samples.VM) for verb in ("start", "stop", "reboot", "pause", "resume")),
        ("vm.delete", samples.VM),
        ("host.configure", host),
        ("host.configure", host),
    ]


async def test_resources_are_read_as_they_are(client: Client) -> None:
    assert await client.vms.get(samples.VM) == samples.VM_SAMPLE
    assert await client.vms.telemetry(samples.VM) == samples.VM_READING
    assert await client.hosts.get(samples.HOST) == samples.HOST_RESOURCE
    assert await client.hosts.telemetry(samples.HOST) == samples.HOST_READING


async def test_refusals_come_as_types_with_every_bad_field(
    client: Client, gateway: GatewayUnderTest
) -> None:
    with pytest.raises(Invalid) as caught:
        await client.vms.create({"name": "A", "cpus": 0, "disks": [], "colour": "red"})
    assert {item.field for item in caught.value.errors} == {"/name", "/cpus", "/disks", "/colour"}
    with pytest.raises(NotFound):
        await client.vms.start("nowhere")
    async with Client(gateway.url, settings=QUICK) as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.vms.get(samples.VM)


async def test_the_event_of_a_request_is_streamed(client: Client) -> None:
    pending = await client.vms.create(SPEC)
    stream = client.events.stream(operation=pending.id, after="0")
    async with contextlib.aclosing(stream) as events:
        event = await anext(events)
    assert (event.name, event.header.operation) == ("operation.accepted", pending.id)
    assert event.envelope().data.target == pending.target


async def test_dry_runs_are_the_same_calls_and_begin_nothing(
    client: Client, gateway: GatewayUnderTest
) -> None:
    dry = client.dry_run
    for asked in (
        dry.vms.create(SPEC),
        dry.vms.stop(samples.VM, mode="forced"),
        dry.vms.delete(samples.VM),
        dry.hosts.configure(samples.HOST, maintenance=True),
    ):
        assert await asked == samples.FORECAST
    assert await gateway.messages("COMMANDS") == []
    names = [unwrap(bytes(tried.command)).type for tried in gateway.scheduler.tried]
    assert names == [
        "vireo.vm.create.v1",
        "vireo.vm.stop.v1",
        "vireo.vm.delete.v1",
        "vireo.host.configure.v1",
    ]


async def test_a_dry_run_of_what_is_not_valid_is_refused(client: Client) -> None:
    with pytest.raises(Invalid):
        await client.dry_run.vms.create({"name": "web"})


async def test_what_a_project_takes_is_a_value(client: Client) -> None:
    assert await client.projects.use("shop") == samples.PROJECT_USE
    with pytest.raises(NotFound):
        await client.projects.use("none")


async def test_what_a_project_takes_is_not_waited_for_long_where_it_is_shown_beside_the_rest(
    client: Client, gateway: GatewayUnderTest
) -> None:
    assert await use_if_known(client, "shop", patience_s=60) == samples.PROJECT_USE
    assert await use_if_known(client, "hangs", patience_s=0.1) is None
    gateway.scheduler.released.set()
    assert await use_if_known(client, "none", patience_s=60) is None


async def test_a_placement_and_capacity_are_values(client: Client) -> None:
    assert (await client.vms.placement("web-1")).now is None
    assert await client.vms.placement("web-1", now=True) == samples.REVIEW
    found = await client.hosts.capacity(SPEC, by="rack", without=["h4"], add=[{"like": "h1"}])
    assert found == samples.CAPACITY
    with pytest.raises(Invalid):
        await client.hosts.capacity()
