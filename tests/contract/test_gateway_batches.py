"""Several VMs by one request: names, members, refusals, repetition."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas import commands, resources, subjects
from schemas.copies import members_of
from schemas.wire import unwrap
from tests.fixtures.gateway import GatewayUnderTest

SPEC = {"name": "web", "disks": [{"image": "tiny"}]}
BATCH = "/v1/vms/batch"


async def commands_of(gateway: GatewayUnderTest) -> list[Any]:
    messages = await gateway.messages(subjects.COMMANDS)
    return [unwrap(msgspec.json.encode(message)).data for message in messages]


async def test_it_becomes_one_command_and_an_operation_for_each_vm(
    gateway: GatewayUnderTest,
) -> None:
    answer = await gateway.http.post(BATCH, json={"spec": SPEC, "count": 2, "gang": True})
    assert answer.status_code == 202, answer.text
    operation = msgspec.json.decode(answer.content, type=resources.Operation)
    names = ("web-1", "web-2")
    assert (operation.command, operation.target) == ("vm.create_many", "web-1")
    assert operation.members == members_of(operation.id, names)
    spec = msgspec.convert(SPEC, resources.VmSpec)
    assert await commands_of(gateway) == [commands.CreateVms(spec=spec, names=names, gang=True)]
    events = {event["operation"]: event["data"] for event in await gateway.messages("EVENTS")}
    assert set(events) == {operation.id, *(one.operation for one in operation.members)}
    for member in operation.members:
        told = events[member.operation]
        assert (told["command"], told["target"]) == ("vm.create", member.vm)
        assert told["request"]["spec"]["name"] == member.name


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"count": 3}, ("web-1", "web-2", "web-3")),
        ({"count": 2, "pattern": "a{n}b"}, ("a1b", "a2b")),
        ({"names": ["red", "blue"]}, ("red", "blue")),
    ],
)
async def test_names_are_counted_or_given(
    gateway: GatewayUnderTest, body: dict[str, Any], names: tuple[str, ...]
) -> None:
    answer = await gateway.http.post(BATCH, json={"spec": SPEC, **body})
    assert answer.status_code == 202, answer.text
    [command] = await commands_of(gateway)
    assert command.names == names


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"count": 2, "names": ["a", "b"]}, ""),
        ({"count": 0}, "/count"),
        ({"count": 257}, "/count"),
        ({"count": 2, "pattern": "web"}, "/pattern"),
        ({"count": 2, "pattern": "Web{n}"}, "/pattern"),
        ({"names": ["a"], "pattern": "web{n}"}, "/pattern"),
        ({"names": ["a", "b", "a"]}, "/names/2"),
    ],
)
async def test_what_makes_no_names_is_refused(
    gateway: GatewayUnderTest, body: dict[str, Any], field: str
) -> None:
    answer = await gateway.http.post(BATCH, json={"spec": SPEC, **body})
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert await commands_of(gateway) == []


async def test_a_repetition_with_its_key_names_the_same_members(gateway: GatewayUnderTest) -> None:
    for _ in range(2):
        answer = await gateway.http.post(
            BATCH, json={"spec": SPEC, "count": 2}, headers={"Idempotency-Key": "k"}
        )
        assert answer.status_code == 202
    operation = msgspec.json.decode(answer.content, type=resources.Operation)
    assert answer.headers["idempotency-replayed"] == "true"
    assert operation.members == members_of(operation.id, ("web-1", "web-2"))
    assert len(await commands_of(gateway)) == 1
