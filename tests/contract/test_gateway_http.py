"""The gateway over real HTTP: routes, refusals, tokens, waiting, limits, logs."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from chassis import kv
from chassis.memory_bus import MemoryBus
from schemas import commands, queries, resources, samples, subjects
from schemas.ids import time_of, uuid7
from schemas.problems import Problem
from schemas.wire import unwrap
from services.gateway import decide
from services.gateway.settings import LimitSettings
from tests.fixtures.gateway import TOKEN, GatewayUnderTest, gateway_on, put_token

SPEC = {"name": "web", "disks": [{"image": "tiny"}]}


def problem(answer: httpx.Response) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    found = msgspec.json.decode(answer.content, type=Problem)
    assert found.status == answer.status_code
    assert found.request == answer.headers["x-request-id"]
    return found


def fields(answer: httpx.Response) -> list[str]:
    return [error.field for error in problem(answer).errors]


async def commands_of(gateway: GatewayUnderTest) -> list[Any]:
    messages = await gateway.messages(subjects.COMMANDS)
    return [unwrap(msgspec.json.encode(message)).data for message in messages]


# wishes


async def test_a_create_becomes_a_command_an_event_and_an_operation(
    gateway: GatewayUnderTest,
) -> None:
    answer = await gateway.http.post("/v1/vms", json=SPEC)
    assert answer.status_code == 202
    operation = msgspec.json.decode(answer.content, type=resources.Operation)
    assert answer.headers["location"] == f"/v1/operations/{operation.id}"
    assert operation.phase == "accepted"
    spec = msgspec.convert(SPEC, resources.VmSpec)
    assert await commands_of(gateway) == [commands.CreateVm(vm=operation.target, spec=spec)]
    [event] = await gateway.messages(subjects.EVENTS)
    assert (event["type"], event["operation"], event["actor"]) == (
        "vireo.operation.accepted.v1",
        operation.id,
        "token/tester",
    )


async def test_what_is_for_cloud_init_is_in_the_command_alone(gateway: GatewayUnderTest) -> None:
    given = {"user_data": "password: 4711"}
    one = await gateway.http.post("/v1/vms", json={**SPEC, "cloud_init": given})
    several = await gateway.http.post(
        "/v1/vms/batch", json={"spec": {**SPEC, "cloud_init": given}, "count": 2}
    )
    assert (one.status_code, several.status_code) == (202, 202)
    sent = await commands_of(gateway)
    assert [command.cloud_init.user_data for command in sent] == ["password: 4711"] * 2
    assert [command.spec.seeded for command in sent] == [True, True]
    assert "4711" not in repr(sent)
    told = await gateway.messages(subjects.EVENTS)
    assert len(told) == 4
    assert all(event["data"]["request"]["spec"]["seeded"] for event in told)
    assert "4711" not in str(told) + one.text + several.text


async def test_what_is_too_long_for_cloud_init_is_named_and_not_repeated(
    gateway: GatewayUnderTest,
) -> None:
    given = {"user_data": "4711" * 10_000, "meta_data": 4711, "vendor_data": ""}
    answer = await gateway.http.post("/v1/vms", json={**SPEC, "cloud_init": given})
    assert (answer.status_code, sorted(fields(answer))) == (
        400,
        ["/cloud_init/meta_data", "/cloud_init/user_data", "/cloud_init/vendor_data"],
    )
    assert "4711" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "start", None, commands.StartVm(vm=samples.VM)),
        ("POST", "stop", None, commands.StopVm(vm=samples.VM, mode="graceful", grace_s=60)),
        (
            "POST",
            "stop",
            {"mode": "forced", "grace_s": 5},
            commands.StopVm(vm=samples.VM, mode="forced", grace_s=5),
        ),
        ("POST", "reboot", {"mode": "forced"}, commands.RebootVm(vm=samples.VM, mode="forced")),
        ("POST", "pause", {}, commands.PauseVm(vm=samples.VM)),
        ("POST", "resume", None, commands.ResumeVm(vm=samples.VM)),
        ("DELETE", "", None, commands.DeleteVm(vm=samples.VM, mode="forced", grace_s=60)),
        (
            "DELETE",
            "?mode=graceful&grace_s=9.5",
            None,
            commands.DeleteVm(vm=samples.VM, mode="graceful", grace_s=9.5),
        ),
    ],
)
@pytest.mark.parametrize("vm", ["web-1", samples.VM])
async def test_an_action_names_its_vm_by_id_or_name(
    gateway: GatewayUnderTest, method: str, path: str, body: Any, expected: Any, vm: str
) -> None:
    place = f"/v1/vms/{vm}{path}" if path.startswith("?") else f"/v1/vms/{vm}/{path}".rstrip("/")
    answer = await gateway.http.request(method, place, json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["target"] == samples.VM
    assert await commands_of(gateway) == [expected]


async def test_a_host_is_configured_by_patch(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.patch("/v1/hosts/h1", json={"maintenance": True})
    assert (answer.status_code, answer.json()["target"]) == (202, "h1")
    assert await commands_of(gateway) == [commands.ConfigureHost(host="h1", maintenance=True)]


async def test_the_generation_that_a_change_was_made_from_goes_along(
    gateway: GatewayUnderTest,
) -> None:
    body = {"labels": {"rack": "b"}, "generation": 4}
    assert (await gateway.http.patch("/v1/hosts/h1", json=body)).status_code == 202
    alone = await gateway.http.patch("/v1/hosts/h1", json={"generation": 4})
    assert alone.status_code == 400
    wanted = commands.ConfigureHost(host="h1", labels={"rack": "b"}, generation=4)
    assert await commands_of(gateway) == [wanted]


async def test_a_vm_so_young_that_nobody_knows_it_yet_can_be_acted_on_by_id(
    gateway: GatewayUnderTest,
) -> None:
    vm = (await gateway.http.post("/v1/vms", json=SPEC)).json()["target"]
    answer = await gateway.http.post(f"/v1/vms/{vm}/stop")
    assert answer.status_code == 202
    assert (await commands_of(gateway))[1] == commands.StopVm(vm=vm)


# refusals


async def test_every_bad_field_is_named_and_nothing_is_published(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.post(
        "/v1/vms?dry=1",
        json={"name": "Web", "cpus": 0, "disks": [], "color": "red"},
        headers={"Idempotency-Key": "a b"},
    )
    assert fields(answer) == [
        "header/Idempotency-Key",
        "query/dry",
        "/name",
        "/cpus",
        "/disks",
        "/color",
    ]
    assert problem(answer).type == "urn:vireo:problem:invalid-request"
    assert await gateway.messages(subjects.COMMANDS) == []
    assert await gateway.messages(subjects.EVENTS) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/vms", {"name": "web", "disks": [{}]}, ["/disks/0/size_gib"]),
        ("POST", "/v1/vms", None, ["/name", "/disks"]),
        ("POST", "/v1/vms/web-1/stop", {"mode": "soft", "grace_s": -1}, ["/mode", "/grace_s"]),
        ("POST", "/v1/vms/web-1/start", {"mode": "forced"}, ["/mode"]),
        ("DELETE", "/v1/vms/web-1?mode=soft&grace_s=nan", None, ["query/mode", "query/grace_s"]),
        ("PATCH", "/v1/hosts/h1", {}, [""]),
        ("PATCH", "/v1/hosts/h1", {"labels": {"A": "b"}}, ["/labels/A"]),
        (
            "PATCH",
            "/v1/hosts/h1",
            {
                "taints": [{"key": "A", "effect": "no"}, {"value": "x"}],
                "tuning": {"weight": 0, "cpu_overcommit": 65, "reserve_cpu": 1},
            },
            [
                *("/taints/0/key", "/taints/0/effect", "/taints/1/key"),
                *("/tuning/cpu_overcommit", "/tuning/weight", "/tuning/reserve_cpu"),
            ],
        ),
        ("GET", "/v1/vms?limit=1001", None, ["query/limit"]),
        (
            "GET",
            "/v1/vms?limit=0&stat=running&label=x",
            None,
            ["query/stat", "query/label", "query/limit"],
        ),
        ("GET", f"/v1/operations/{samples.OPERATION}?wait=30", None, ["query/wait"]),
        ("GET", "/v1/operations?phase=over", None, ["query/phase"]),
        ("GET", "/v1/events?type=Started&after=x", None, ["query/type"]),
        ("GET", "/v1/events?after=x&limit=5", None, ["query/limit", "query/after"]),
    ],
)
async def test_what_is_wrong_is_said_by_field(
    gateway: GatewayUnderTest, method: str, path: str, body: Any, expected: list[str]
) -> None:
    answer = await gateway.http.request(method, path, json=body)
    assert answer.status_code == 400, answer.text
    assert fields(answer) == expected
    assert await gateway.messages(subjects.COMMANDS) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/vms/nope", 404),
        ("GET", "/v1/vms/No..Name", 404),
        ("GET", "/v1/vms/%2e%2e", 404),
        ("GET", "/v1/vms/nope/telemetry", 404),
        ("POST", "/v1/vms/nope/start", 404),
        ("DELETE", "/v1/vms/nope", 404),
        ("PATCH", "/v1/hosts/h9", 404),
        ("GET", "/v1/operations/nope", 404),
        ("GET", f"/v1/operations/{samples.OPERATION}", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("PUT", "/v1/vms", 405),
        ("GET", "/v1/vms/web-1/start", 405),
    ],
)
async def test_what_is_not_there_is_a_problem(
    gateway: GatewayUnderTest, method: str, path: str, status: int
) -> None:
    body = {"maintenance": True} if method == "PATCH" else None
    answer = await gateway.http.request(method, path, json=body)
    assert problem(answer).status == status
    assert await gateway.messages(subjects.COMMANDS) == []


async def test_a_body_that_is_too_large_is_refused(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.post("/v1/vms", content=b" " * (LimitSettings().body_bytes + 1))
    assert problem(answer).status == 413


async def test_a_body_of_another_kind_is_refused_by_its_kind(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.post("/v1/vms", data={"name": "web"})
    assert problem(answer).status == 415


# tokens


@pytest.mark.parametrize("path", ["/v1/vms", "/v1/events", "/openapi.json", "/v1/no-such-route"])
@pytest.mark.parametrize("header", [None, "Bearer vireo_" + "A" * 43, f"Basic {TOKEN}"])
async def test_everything_but_health_needs_a_token(
    gateway: GatewayUnderTest, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        answer = await http.get(path, headers=headers)
        assert problem(answer).type == "urn:vireo:problem:unauthenticated"
        assert answer.headers["www-authenticate"] == 'Bearer realm="vireo"'
        assert (await http.get("/health/live")).json() == {"status": "live"}
        assert (await http.get("/health/ready")).json() == {"status": "ready"}


async def test_a_token_works_from_its_making_to_its_end(gateway: GatewayUnderTest) -> None:
    token = decide.token_from(b"x" * 32)
    headers = {"Authorization": f"Bearer {token}"}

    async def status_becomes(expected: int) -> None:
        async with asyncio.timeout(5):
            while (await gateway.http.get("/v1/vms", headers=headers)).status_code != expected:
                await asyncio.sleep(0.01)

    await status_becomes(401)
    await put_token(gateway.bus, "second", token)
    await status_becomes(200)
    await gateway.bus.publish(kv.purge(subjects.KV_CONFIG, "token.second"))
    await status_becomes(401)


async def test_the_first_start_writes_the_admin_token_for_its_owner_alone(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    file = tmp_path / "state" / "admin.token"
    async with gateway_on(gateway_bus, tmp_path, admin_token_file=file) as gateway:
        token = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        headers = {"Authorization": f"Bearer {token}"}
        assert (await gateway.http.get("/v1/vms", headers=headers)).status_code == 200
        stored = await gateway.bus.last("KV_CONFIG", "$KV.CONFIG.token.admin")
        assert stored is not None
        assert token.encode() not in stored.data
    file.unlink()
    async with gateway_on(gateway_bus, tmp_path, admin_token_file=file):
        assert not file.exists()


async def test_a_first_start_cut_short_after_writing_the_file_is_completed_by_the_next(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    token = decide.token_from(b"a" * 32)
    file = tmp_path / "admin.token"
    file.write_text(token + "\n")
    async with gateway_on(gateway_bus, tmp_path, admin_token_file=file) as gateway:
        headers = {"Authorization": f"Bearer {token}"}
        assert (await gateway.http.get("/v1/vms", headers=headers)).status_code == 200


async def test_without_a_file_the_admin_token_is_printed_once(
    gateway_bus: MemoryBus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway_on(gateway_bus, tmp_path, admin_token_file=None):
        assert capsys.readouterr().out.count("vireo_") == 1
    async with gateway_on(gateway_bus, tmp_path, admin_token_file=None):
        assert "vireo_" not in capsys.readouterr().out


async def test_no_log_line_holds_a_token_or_its_hash(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with gateway_on(gateway_bus, tmp_path) as gateway:
            admin = (tmp_path / "admin.token").read_text().strip()
            await gateway.http.post("/v1/vms", json=SPEC, headers={"Idempotency-Key": "k1"})
            for token in (admin, admin[:-1] + "_", "nonsense"):
                await gateway.http.get("/v1/vms", headers={"Authorization": f"Bearer {token}"})
            await gateway.bus.publish(kv.put("CONFIG", "token.broken", admin.encode()))
            await gateway.http.get("/v1/vms")
    text = repr(lines)
    assert "request_answered" in text
    for token in (TOKEN, admin):
        assert token[6:20] not in text
        assert decide.token_hash(token)[:20] not in text


async def test_a_refusal_is_a_line_in_the_log_and_a_read_that_went_well_is_for_debugging(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with gateway_on(gateway_bus, tmp_path) as gateway:
            await gateway.http.get("/v1/hosts")
            await gateway.http.get("/v1/hosts", headers={"Authorization": "Bearer nonsense"})
    answered = [line for line in lines if line.get("path") == "/v1/hosts"]
    assert [(line["status"], line["log_level"]) for line in answered] == [
        (200, "debug"),
        (401, "info"),
    ]


# reads


async def test_answers_pass_through_as_they_came(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.get("/v1/vms?host=h1&label=tier=web&limit=7")
    assert answer.content == b'{"items":[],   "next":"passed through as it came"}'
    assert gateway.inventory.asked == [queries.ListVms(limit=7, host="h1", labels={"tier": "web"})]


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("/v1/vms/web-1", resources.Vm, samples.VM_SAMPLE),
        (f"/v1/vms/{samples.VM}", resources.Vm, samples.VM_SAMPLE),
        ("/v1/hosts/h1", resources.Host, samples.HOST_RESOURCE),
        ("/v1/vms/web-1/telemetry", type(samples.VM_READING), samples.VM_READING),
        ("/v1/hosts/h1/telemetry", type(samples.HOST_READING), samples.HOST_READING),
    ],
)
async def test_resources_are_shown(
    gateway: GatewayUnderTest, path: str, kind: Any, expected: Any
) -> None:
    answer = await gateway.http.get(path)
    assert msgspec.json.decode(answer.content, type=kind) == expected


async def test_events_are_listed_for_those_who_accept_json(gateway: GatewayUnderTest) -> None:
    headers = {"Accept": "application/json"}
    answer = await gateway.http.get("/v1/events?vm=web-1&limit=3", headers=headers)
    assert answer.status_code == 200
    assert gateway.inventory.asked[-1] == queries.ListEvents(limit=3, vm=samples.VM)
    refused = await gateway.http.get("/v1/events?site=main", headers=headers)
    assert fields(refused) == ["query/site"]
    sought = "?actor=token/anna&type=vm.*&until=2026-03-01T12:00:00Z&newest=true"
    await gateway.http.get(f"/v1/events{sought}", headers=headers)
    assert gateway.inventory.asked[-1] == queries.ListEvents(
        actor="token/anna",
        types=("vm.*",),
        until=datetime(2026, 3, 1, 12, tzinfo=UTC),
        newest=True,
    )


async def test_waiting_for_an_operation_ends_when_it_ends(gateway: GatewayUnderTest) -> None:
    ended = msgspec.structs.replace(samples.OPERATION_SAMPLE, phase="succeeded")
    await gateway.inventory.put(samples.OPERATION_SAMPLE)
    waiting = asyncio.create_task(gateway.http.get(f"/v1/operations/{ended.id}?wait=30s"))
    async with asyncio.timeout(5):
        while not gateway.inventory.asked:
            await asyncio.sleep(0.01)
    await gateway.inventory.put(ended)
    assert msgspec.json.decode((await waiting).content, type=resources.Operation) == ended
    assert gateway.inventory.asked == [
        queries.GetOperation(operation=ended.id, wait_s=3, until="ended")
    ]


async def test_a_long_wait_is_asked_for_in_slices(gateway_bus: MemoryBus, tmp_path: Path) -> None:
    """So that an inventory that is killed does not take the whole wait with it."""
    async with gateway_on(gateway_bus, tmp_path, wait_slice_s=0.05) as gateway:
        place = f"/v1/operations/{samples.OPERATION}?wait=20s"
        waiting = asyncio.create_task(gateway.http.get(place))
        async with asyncio.timeout(5):
            while len(gateway.inventory.asked) < 2:
                await asyncio.sleep(0.01)
            await gateway.inventory.put(samples.OPERATION_SAMPLE)
            while len(gateway.inventory.asked) < 5:
                await asyncio.sleep(0.01)
        ended = msgspec.structs.replace(samples.OPERATION_SAMPLE, phase="succeeded")
        await gateway.inventory.put(ended)
        assert (await waiting).json()["phase"] == "succeeded"


async def test_waiting_answers_with_what_is_known_when_the_time_is_over(
    gateway: GatewayUnderTest,
) -> None:
    await gateway.inventory.put(samples.OPERATION_SAMPLE)
    answer = await gateway.http.get(f"/v1/operations/{samples.OPERATION}?wait=50ms")
    assert answer.json()["phase"] == "running"


async def test_a_client_reads_the_operation_that_it_was_just_given(
    gateway: GatewayUnderTest,
) -> None:
    now = datetime.now(UTC)
    operation = uuid7(int(now.timestamp() * 1000), b"0123456789")
    reading = asyncio.create_task(gateway.http.get(f"/v1/operations/{operation}"))
    async with asyncio.timeout(5):
        while not gateway.inventory.asked:
            await asyncio.sleep(0.01)
    assert not reading.done()
    await gateway.inventory.put(
        msgspec.structs.replace(
            samples.OPERATION_SAMPLE, id=operation, created_at=time_of(operation)
        )
    )
    assert (await reading).json()["id"] == operation


async def test_too_many_waits_are_told_to_come_again(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    limits = LimitSettings(waits=1)
    async with gateway_on(gateway_bus, tmp_path, limits=limits) as gateway:
        await gateway.inventory.put(samples.OPERATION_SAMPLE)
        place = f"/v1/operations/{samples.OPERATION}?wait=20s"
        first = asyncio.create_task(gateway.http.get(place))
        async with asyncio.timeout(5):
            while not gateway.inventory.asked:
                await asyncio.sleep(0.01)
        second = await gateway.http.get(place)
        assert problem(second).type == "urn:vireo:problem:too-many-requests"
        assert int(second.headers["retry-after"]) > 0
        ended = msgspec.structs.replace(samples.OPERATION_SAMPLE, phase="failed")
        await gateway.inventory.put(ended)
        assert (await first).status_code == 200


async def test_a_stop_answers_those_who_wait_with_what_is_known(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    async with httpx.AsyncClient(timeout=10) as http:
        async with gateway_on(gateway_bus, tmp_path) as gateway:
            await gateway.inventory.put(samples.OPERATION_SAMPLE)
            waiting = asyncio.create_task(
                http.get(
                    f"{gateway.url}/v1/operations/{samples.OPERATION}?wait=60s",
                    headers={"Authorization": f"Bearer {TOKEN}"},
                )
            )
            async with asyncio.timeout(5):
                while not gateway.inventory.asked:
                    await asyncio.sleep(0.01)
        assert (await waiting).json()["phase"] == "running"


async def end_the_next_wish(gateway: GatewayUnderTest) -> None:
    """What the rest of the system does with a command: its operation ends."""
    async with asyncio.timeout(5):
        while not (found := await gateway.messages(subjects.COMMANDS)):
            await asyncio.sleep(0.01)
    ended = msgspec.structs.replace(samples.OPERATION_SAMPLE, id=found[-1]["id"], phase="succeeded")
    await gateway.inventory.put(ended)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/vms?wait=5s", SPEC),
        ("POST", "/v1/vms/web-1/stop?wait=5s", {"mode": "forced"}),
        ("DELETE", "/v1/vms/web-1?mode=graceful&wait=5s", None),
        ("PATCH", "/v1/hosts/h1?wait=5s", {"maintenance": True}),
    ],
)
async def test_a_wish_that_is_waited_for_is_answered_with_its_end(
    gateway: GatewayUnderTest, method: str, path: str, body: Any
) -> None:
    wish = asyncio.create_task(gateway.http.request(method, path, json=body))
    await end_the_next_wish(gateway)
    answer = await wish
    assert (answer.status_code, answer.json()["phase"]) == (200, "succeeded"), answer.text
    assert answer.headers["location"] == f"/v1/operations/{answer.json()['id']}"


async def test_a_wish_that_does_not_end_in_time_is_answered_as_accepted(
    gateway: GatewayUnderTest,
) -> None:
    answer = await gateway.http.post("/v1/vms?wait=20ms", json=SPEC)
    assert (answer.status_code, answer.json()["phase"]) == (202, "accepted")
    assert len(await commands_of(gateway)) == 1


async def test_how_long_one_waits_does_not_make_it_another_wish(gateway: GatewayUnderTest) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await gateway.http.post("/v1/vms", json=SPEC, headers=headers)
    again = asyncio.create_task(
        gateway.http.post("/v1/vms?wait=5s", json=SPEC, headers=headers),
    )
    await end_the_next_wish(gateway)
    answer = await again
    assert (answer.status_code, answer.json()["id"]) == (200, first.json()["id"])
    assert answer.headers["idempotency-replayed"] == "true"
    assert len(await commands_of(gateway)) == 1


async def test_an_inventory_that_is_away_does_not_make_a_safe_wish_fail(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    async with gateway_on(gateway_bus, tmp_path, serve_inventory=False) as gateway:
        answer = await gateway.http.post("/v1/vms?wait=5s", json=SPEC)
    assert (answer.status_code, answer.json()["phase"]) == (202, "accepted")


async def test_a_wish_that_nobody_can_wait_for_is_not_given(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    limits = LimitSettings(waits=1)
    async with gateway_on(gateway_bus, tmp_path, limits=limits) as gateway:
        first = asyncio.create_task(gateway.http.post("/v1/vms?wait=5s", json=SPEC))
        async with asyncio.timeout(5):
            while not gateway.inventory.asked:
                await asyncio.sleep(0.01)
        second = await gateway.http.post("/v1/vms?wait=5s", json=SPEC)
        assert problem(second).type == "urn:vireo:problem:too-many-requests"
        await end_the_next_wish(gateway)
        assert (await first).status_code == 200
        assert len(await commands_of(gateway)) == 1


async def test_a_wait_that_is_no_duration_is_refused_before_anything_is_done(
    gateway: GatewayUnderTest,
) -> None:
    answer = await gateway.http.post("/v1/vms?wait=long", json=SPEC)
    assert fields(answer) == ["query/wait"]
    assert await commands_of(gateway) == []


# when parts are away


async def test_a_bus_that_is_away_is_503_with_nothing_done(
    gateway: GatewayUnderTest, gateway_bus: MemoryBus
) -> None:
    gateway_bus.connected = False
    for method, path in (("POST", "/v1/vms"), ("GET", "/v1/vms"), ("GET", "/health/ready")):
        body = SPEC if method == "POST" else None
        answer = await gateway.http.request(method, path, json=body)
        assert problem(answer).type == "urn:vireo:problem:unavailable"
        if path != "/health/ready":
            assert int(answer.headers["retry-after"]) > 0
    assert (await gateway.http.get("/health/live")).status_code == 200
    gateway_bus.connected = True
    assert (await gateway.http.get("/health/ready")).status_code == 200
    assert await gateway.messages(subjects.COMMANDS) == []


async def test_an_inventory_that_is_away_is_503_for_reads_and_no_matter_for_creates(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    async with gateway_on(gateway_bus, tmp_path, serve_inventory=False) as gateway:
        assert problem(await gateway.http.get("/v1/vms")).status == 503
        assert problem(await gateway.http.get("/health/ready")).status == 503
        assert (await gateway.http.post("/v1/vms", json=SPEC)).status_code == 202


async def test_a_request_that_dawdles_is_ended(gateway_bus: MemoryBus, tmp_path: Path) -> None:
    limits = LimitSettings(request_s=0.2)
    async with gateway_on(gateway_bus, tmp_path, limits=limits) as gateway:
        port = gateway.settings.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/vms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        async with asyncio.timeout(5):
            assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        writer.close()


async def said(gateway: GatewayUnderTest, *pieces: bytes) -> bytes:
    """What is answered to raw bytes, sent piece by piece; until the gateway ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.port)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    answered = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(5):
            while data := await reader.read(65536):
                answered += data
    writer.close()
    return answered


HEAD = b"POST /v1/vms HTTP/1.1\r\nHost: x\r\n"
KIB = b"x" * 1024


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /", *[KIB] * 80],
        [HEAD, b"X: ", *[KIB] * 80],
        [HEAD, *[b"X: " + KIB + b"\r\n"] * 80],
        [HEAD + b"X: " + KIB * 33 + b"\r\n\r\n"],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *[b"X: " + KIB + b"\r\n"] * 80],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", *[KIB] * 80],
    ],
    ids=["url", "header", "headers", "whole", "trailers", "chunk extension"],
)
async def test_what_is_said_outside_of_bodies_is_bounded(
    gateway: GatewayUnderTest, pieces: list[bytes]
) -> None:
    assert b"HTTP/1.1 400 Bad Request\r\n" in await said(gateway, *pieces)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        HEAD + b"Content-Length : 2\r\n\r\n{}",
        HEAD + b"X: a\r\n folded: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
async def test_what_two_readers_could_read_in_two_ways_is_refused(
    gateway: GatewayUnderTest, head: bytes
) -> None:
    assert (await said(gateway, head)).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_long_body_and_a_second_request_on_one_connection_are_within_the_bounds(
    gateway: GatewayUnderTest,
) -> None:
    name = b'"' + KIB * 100 + b'"'
    head = HEAD + b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
    asked = [
        head % (TOKEN.encode(), len(name)),
        *[name[at : at + 1024] for at in range(0, len(name), 1024)],
    ]
    last = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answered = await said(gateway, *asked, last)
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert b"invalid-request" in answered
    assert b"HTTP/1.1 200 OK\r\n" in answered


# traces and ids


async def test_the_clients_trace_goes_on_in_the_command(gateway: GatewayUnderTest) -> None:
    headers = {"traceparent": samples.TRACEPARENT, "X-Request-Id": "build-42"}
    answer = await gateway.http.post("/v1/vms", json=SPEC, headers=headers)
    assert answer.headers["x-request-id"] == "build-42"
    [command] = await gateway.messages(subjects.COMMANDS)
    assert command["traceparent"].split("-")[1] == samples.TRACEPARENT.split("-")[1]


async def test_a_traceparent_that_is_none_does_no_harm(gateway: GatewayUnderTest) -> None:
    headers = {"traceparent": "00-zz-zz-01"}
    assert (await gateway.http.post("/v1/vms", json=SPEC, headers=headers)).status_code == 202


async def test_the_head_of_an_answer_comes_with_its_body(gateway: GatewayUnderTest) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.port)
    for _ in range(20):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.read(65536)).endswith(b'\r\n\r\n{"status":"live"}')
    writer.close()


async def test_an_answer_without_a_body_ends_with_its_head(gateway: GatewayUnderTest) -> None:
    gateway.inventory.tag = "t1"
    head = b"GET /v1/vms HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIf-None-Match: *\r\n"
    answered = await said(gateway, head + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert answered.startswith(b"HTTP/1.1 304 ")
    assert answered.endswith(b"\r\n\r\n")
