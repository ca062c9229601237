"""The gateway asked about alerts and about how busy everything is, by HTTP and by the SDK."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas import samples, subjects
from schemas.problems import Problem
from tests.fixtures.gateway import TOKEN, GatewayUnderTest
from vireo import Client


async def test_what_the_metrics_service_says_is_passed_on(gateway: GatewayUnderTest) -> None:
    async with Client(gateway.url, TOKEN) as client:
        assert [each async for each in client.hosts.loads(recent=3)] == [samples.HOST_LOAD]
        assert [each async for each in client.vms.loads(host=samples.HOST)] == [samples.VM_LOAD]
        assert [each async for each in client.alerts.list()] == [samples.ALERT]
        assert await client.alerts.try_rule(samples.ALERT_RULE) == samples.RULE_TRIAL
        assert [each async for each in client.alerts.silences()] == [samples.SILENCE]


async def test_a_silence_is_a_wish_with_an_operation(gateway: GatewayUnderTest) -> None:
    async with Client(gateway.url, TOKEN) as client:
        await client.alerts.silence("host-silent", for_s=60, reason="new disks")
        await client.alerts.unsilence("host-silent")
    commands = await gateway.messages(subjects.COMMANDS)
    assert [(each["type"], each["data"]) for each in commands] == [
        (
            "vireo.alert.silence.v1",
            {"rule": "host-silent", "for_s": 60.0, "reason": "new disks"},
        ),
        ("vireo.alert.unsilence.v1", {"rule": "host-silent"}),
    ]


@pytest.mark.parametrize(
    ("method", "path", "body", "fields"),
    [
        ("POST", "/v1/alerts/silences", {"rule": "A B", "for_s": 0}, ["/rule", "/for_s"]),
        ("POST", "/v1/alerts/silences", {}, ["/rule", "/for_s"]),
        (
            "PUT",
            "/v1/alerts/rules/hot",
            {"name": "hot", "metric": "vireo_heat", "above": 1, "below": 2, "summary": ""},
            ["/metric", "/above"],
        ),
        ("POST", "/v1/alerts/try", {"name": "hot", "event": "vm.crashed"}, ["/summary"]),
        (
            "GET",
            "/v1/telemetry/vms?recent=61&limit=0&host=H!",
            None,
            ["query/host", "query/limit", "query/recent"],
        ),
        ("GET", "/v1/telemetry/hosts?limit=1001", None, ["query/limit"]),
    ],
)
async def test_every_bad_field_is_named(
    gateway: GatewayUnderTest, method: str, path: str, body: Any, fields: list[str]
) -> None:
    answer = await gateway.http.request(method, path, json=body)
    found = msgspec.json.decode(answer.content, type=Problem)
    assert (answer.status_code, sorted(error.field for error in found.errors)) == (
        400,
        sorted(fields),
    )
