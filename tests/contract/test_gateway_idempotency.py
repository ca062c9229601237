"""One key, one command: replayed, refused, taken over, raced for, and cut off after every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest

from chassis import kv
from chassis.bus import Ack, Bus, Outgoing, Unavailable
from chassis.memory_bus import MemoryBus
from schemas import samples, subjects
from schemas.requests import VmRequest
from services.gateway import decide
from services.gateway.model import IdempotencyRecord, Nothing
from services.gateway.settings import IdempotencySettings
from tests.fixtures.gateway import GatewayUnderTest, gateway_on

SPEC = {"name": "web", "disks": [{"image": "tiny"}]}
KEY = {"Idempotency-Key": "make-web"}


class CutBus:
    """A bus that fails the publishes that `cut` picks, after storing them or before."""

    def __init__(self, inner: Bus, cut: Callable[[Outgoing], bool], *, stored: bool) -> None:
        self._inner = inner
        self._cut = cut
        self._stored = stored

    async def publish(self, message: Outgoing) -> Ack:
        cut = self._cut(message)
        if cut and not self._stored:
            raise Unavailable("cut off before")
        ack = await self._inner.publish(message)
        if cut:
            raise Unavailable("cut off after")
        return ack

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def cut_bus(inner: Bus, cut: Callable[[Outgoing], bool], *, stored: bool) -> Bus:
    return cast(Bus, CutBus(inner, cut, stored=stored))


async def ids_in(gateway: GatewayUnderTest, stream: str) -> list[str]:
    return [message["id"] for message in await gateway.messages(stream)]


async def test_the_same_request_is_answered_the_same_and_published_once(
    gateway: GatewayUnderTest,
) -> None:
    first = await gateway.http.post("/v1/vms", json=SPEC, headers=KEY)
    spelled = b'{"disks": [{"image": "tiny", "size_gib": 0}],\n "name": "web"}'
    again = await gateway.http.post("/v1/vms", content=spelled, headers=KEY)
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(await ids_in(gateway, subjects.COMMANDS)) == 1
    assert len(await ids_in(gateway, subjects.EVENTS)) == 1


async def test_without_a_key_each_request_is_new(gateway: GatewayUnderTest) -> None:
    for _ in range(2):
        await gateway.http.post("/v1/vms", json=SPEC)
    assert len(set(await ids_in(gateway, subjects.COMMANDS))) == 2


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/vms", {**SPEC, "cpus": 2}), ("/v1/vms/web-1/start", {})]
)
async def test_the_key_of_another_request_is_refused(
    gateway: GatewayUnderTest, path: str, body: Any
) -> None:
    await gateway.http.post("/v1/vms", json=SPEC, headers=KEY)
    answer = await gateway.http.post(path, json=body, headers=KEY)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:vireo:problem:idempotency-key-reused"
    assert len(await ids_in(gateway, subjects.COMMANDS)) == 1


async def test_a_request_that_was_refused_leaves_its_key_free(gateway: GatewayUnderTest) -> None:
    assert (await gateway.http.post("/v1/vms", json={}, headers=KEY)).status_code == 400
    assert (await gateway.http.post("/v1/vms/nope/start", headers=KEY)).status_code == 404
    assert (await gateway.http.post("/v1/vms", json=SPEC, headers=KEY)).status_code == 202


async def test_a_replay_of_a_delete_outlives_the_vm(gateway: GatewayUnderTest) -> None:
    first = await gateway.http.delete("/v1/vms/web-1", headers=KEY)
    gateway.inventory.vms.clear()
    again = await gateway.http.delete("/v1/vms/web-1", headers=KEY)
    assert (again.status_code, again.content) == (202, first.content)


async def test_of_many_at_once_one_publishes(gateway: GatewayUnderTest) -> None:
    answers = await asyncio.gather(
        *(gateway.http.post("/v1/vms", json=SPEC, headers=KEY) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} <= {202, 409}
    taken = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(taken) == 1
    assert await ids_in(gateway, subjects.COMMANDS) == list(taken)
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["type"] == "urn:vireo:problem:request-in-flight"
            assert answer.headers["retry-after"] == "1"


async def put_record(gateway: GatewayUnderTest, request: httpx.Request, *, age_s: float) -> None:
    """What a gateway leaves that died right after claiming the key."""
    spec = msgspec.json.decode(request.content, type=VmRequest)
    record = IdempotencyRecord(
        fingerprint=decide.fingerprint("POST", "/v1/vms", query=Nothing(), body=spec),
        command=samples.OPERATION,
        target=decide.vm_of(samples.OPERATION),
        state="in_flight",
        since=datetime.now(UTC) - timedelta(seconds=age_s),
    )
    key = decide.record_key("tester", KEY["Idempotency-Key"])
    await gateway.bus.publish(kv.put("IDEMPOTENCY", key, msgspec.json.encode(record)))


async def test_a_claim_left_by_a_dead_gateway_is_refused_first_and_taken_over_when_it_is_old(
    gateway: GatewayUnderTest,
) -> None:
    request = gateway.http.build_request("POST", "/v1/vms", json=SPEC, headers=KEY)
    await put_record(gateway, request, age_s=5)
    assert (await gateway.http.send(request)).status_code == 409
    await put_record(gateway, request, age_s=31)
    taken = await gateway.http.post("/v1/vms", json=SPEC, headers=KEY)
    assert taken.status_code == 202
    assert taken.json()["id"] == samples.OPERATION
    assert taken.json()["target"] == decide.vm_of(samples.OPERATION)
    assert await ids_in(gateway, subjects.COMMANDS) == [samples.OPERATION]


PREFIXES = {
    "claim": "$KV.IDEMPOTENCY.",
    "command": "vireo.cmd.",
    "event": "vireo.evt.",
}


@pytest.mark.parametrize("stored", [False, True], ids=["before storing", "after storing"])
@pytest.mark.parametrize("step", sorted(PREFIXES))
async def test_cut_off_at_any_step_a_repetition_completes_it_with_one_command(
    gateway_bus: MemoryBus, tmp_path: Path, step: str, *, stored: bool
) -> None:
    cuts = {"left": 3}

    def cut(message: Outgoing) -> bool:
        if message.subject.startswith(PREFIXES[step]) and cuts["left"]:
            cuts["left"] -= 1
            return True
        return False

    bus = cut_bus(gateway_bus, cut, stored=stored)
    idempotency = IdempotencySettings(takeover_s=1e-6)
    async with gateway_on(bus, tmp_path, stored=gateway_bus, idempotency=idempotency) as gateway:
        first = await gateway.http.post("/v1/vms", json=SPEC, headers=KEY)
        assert (first.status_code, first.headers["retry-after"]) == (503, "2")
        cuts["left"] = 0
        answer = await gateway.http.post("/v1/vms", json=SPEC, headers=KEY)
        assert answer.status_code == 202, answer.text
        operation = answer.json()["id"]
        assert await ids_in(gateway, subjects.COMMANDS) == [operation]
        assert len(await ids_in(gateway, subjects.EVENTS)) == 1


async def test_an_event_that_is_not_confirmed_at_once_is_tried_again(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    left = [True, True]

    def cut(message: Outgoing) -> bool:
        return message.subject.startswith("vireo.evt.") and bool(left) and left.pop()

    bus = cut_bus(gateway_bus, cut, stored=True)
    async with gateway_on(bus, tmp_path, stored=gateway_bus) as gateway:
        assert (await gateway.http.post("/v1/vms", json=SPEC)).status_code == 202
        assert len(await ids_in(gateway, subjects.EVENTS)) == 1


async def test_an_unconfirmed_command_without_a_key_says_where_to_look(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    bus = cut_bus(
        gateway_bus, lambda message: message.subject.startswith("vireo.cmd."), stored=True
    )
    async with gateway_on(bus, tmp_path, stored=gateway_bus) as gateway:
        answer = await gateway.http.post("/v1/vms", json=SPEC)
        assert answer.status_code == 503
        [command] = await ids_in(gateway, subjects.COMMANDS)
        assert answer.json()["instance"] == f"/v1/operations/{command}"
