"""The gateway asked what would be: dry runs, why a VM is where it is, capacity; nothing is published."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chassis.kv import stream_of
from schemas import commands, resources, samples, subjects
from schemas.definitions import ProjectUse
from schemas.forecasts import Capacity, Forecast, MoreHosts, PlacementReview
from schemas.problems import Problem
from schemas.queries import CountCapacity
from schemas.wire import unwrap
from tests.fixtures.gateway import GatewayUnderTest

SPEC = {"name": "web", "disks": [{"image": "tiny"}]}
VM = samples.VM
WISHES: list[tuple[str, str, Any, str]] = [
    ("POST", "/v1/vms", SPEC, "vm.create"),
    ("POST", f"/v1/vms/{VM}/start", None, "vm.start"),
    ("POST", f"/v1/vms/{VM}/stop", None, "vm.stop"),
    ("POST", f"/v1/vms/{VM}/reboot", None, "vm.reboot"),
    ("POST", f"/v1/vms/{VM}/pause", None, "vm.pause"),
    ("POST", f"/v1/vms/{VM}/resume", None, "vm.resume"),
    ("DELETE", f"/v1/vms/{VM}", None, "vm.delete"),
    ("PATCH", f"/v1/hosts/{samples.HOST}", {"maintenance": True}, "host.configure"),
]


async def published(gateway: GatewayUnderTest) -> int:
    streams = (subjects.COMMANDS, subjects.EVENTS, stream_of(subjects.KV_IDEMPOTENCY))
    return sum([len(await gateway.messages(stream)) for stream in streams])


@pytest.mark.parametrize(("method", "path", "body", "command"), WISHES)
async def test_every_wish_has_a_dry_run_that_publishes_nothing(
    gateway: GatewayUnderTest, method: str, path: str, body: Any, command: str
) -> None:
    answer = await gateway.http.request(
        method,
        path,
        json=body,
        params={"dry_run": "true", "wait": "30s"},
        headers={"Idempotency-Key": "k"},
    )
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=Forecast) == samples.FORECAST
    (tried,) = gateway.scheduler.tried
    asked = unwrap(bytes(tried.command))
    assert (subjects.BY_TYPE[asked.type].name, asked.actor) == (command, "token/tester")
    assert await published(gateway) == 0


async def test_a_dry_run_is_validated_as_the_wish_is(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.post("/v1/vms?dry_run=true", json={**SPEC, "cpus": 0, "colour": 1})
    found = msgspec.json.decode(answer.content, type=Problem)
    assert (answer.status_code, [error.field for error in found.errors]) == (
        400,
        ["/cpus", "/colour"],
    )
    answer = await gateway.http.post("/v1/vms/nobody/start?dry_run=true")
    assert answer.status_code == 404
    answer = await gateway.http.post(f"/v1/vms/{VM}/start?dry_run=perhaps")
    assert answer.status_code == 400
    assert gateway.scheduler.tried == []


async def test_a_wish_after_its_dry_run_is_a_new_request(gateway: GatewayUnderTest) -> None:
    headers = {"Idempotency-Key": "k"}
    await gateway.http.post("/v1/vms?dry_run=true", json=SPEC, headers=headers)
    answer = await gateway.http.post("/v1/vms", json=SPEC, headers=headers)
    assert (answer.status_code, "idempotency-replayed" in answer.headers) == (202, False)


async def test_a_placement_is_told_as_it_was_recorded(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.get("/v1/vms/web-1/placement")
    review = msgspec.json.decode(answer.content, type=PlacementReview)
    assert review == PlacementReview(
        vm=VM, name="web-1", host=samples.HOST, placement=samples.PLACEMENT
    )
    assert gateway.scheduler.tried == []


async def test_a_placement_is_decided_now_without_counting_the_vm(
    gateway: GatewayUnderTest,
) -> None:
    answer = await gateway.http.get("/v1/vms/web-1/placement?now=true")
    review = msgspec.json.decode(answer.content, type=PlacementReview)
    assert review.now == samples.FORECAST
    (tried,) = gateway.scheduler.tried
    anew = unwrap(bytes(tried.command)).data
    assert isinstance(anew, commands.CreateVm)
    assert (anew.spec, tried.without_vm) == (samples.SPEC, VM)
    assert anew.vm != VM
    assert await published(gateway) == 0


async def test_capacity_is_asked_of_the_scheduler(gateway: GatewayUnderTest) -> None:
    body = {"spec": SPEC, "by": "rack", "without": ["h4"], "add": [{"like": "h2", "count": 3}]}
    answer = await gateway.http.post("/v1/capacity", json=body)
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=Capacity) == samples.CAPACITY
    assert gateway.scheduler.counted == [
        CountCapacity(
            spec=msgspec.convert(SPEC, resources.VmSpec),
            by="rack",
            without=("h4",),
            add=(MoreHosts(like="h2", count=3),),
        )
    ]
    assert await published(gateway) == 0


async def test_what_a_project_takes_is_asked_of_the_scheduler(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.get("/v1/projects/shop/use")
    assert msgspec.json.decode(answer.content, type=ProjectUse) == samples.PROJECT_USE
    assert (await gateway.http.get("/v1/projects/none/use")).status_code == 404


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, [""]),
        ({"without": ["H4"]}, ["/without/0"]),
        ({"by": "rack", "without": ["h1"]}, ["/by"]),
        ({"spec": {**SPEC, "disks": [{}]}}, ["/spec/disks/0/size_gib"]),
        (
            {"spec": SPEC, "add": [{"cpus": 4}, {"like": "h1", "cpus": 4}, {"count": 0}]},
            ["/add/2/count"],
        ),
        ({"spec": SPEC, "add": [{"cpus": 4}, {"like": "h1", "cpus": 4}]}, ["/add/0", "/add/1"]),
    ],
)
async def test_every_bad_field_of_a_question_for_capacity_is_named(
    gateway: GatewayUnderTest, body: dict[str, Any], wrong: list[str]
) -> None:
    answer = await gateway.http.post("/v1/capacity", json=body)
    found = msgspec.json.decode(answer.content, type=Problem)
    assert (answer.status_code, [error.field for error in found.errors]) == (400, wrong)
