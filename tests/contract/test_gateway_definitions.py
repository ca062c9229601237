"""Policies, templates, projects and alert rules over HTTP, and VMs that are made with them."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from schemas import commands, queries, resources, samples, subjects
from schemas.definitions import Definition
from schemas.forecasts import PolicyTrial
from schemas.problems import Problem
from schemas.wire import unwrap
from tests.fixtures.gateway import GatewayUnderTest

TEMPLATE = {"name": "web", "cpus": 2, "disks": [{"image": "debian-12", "size_gib": 10}]}
PROJECT = {"name": "shop", "policy": "quiet", "quota": {"vms": 3}}
RULE = {"name": "host-silent", "metric": "vireo_host_online", "below": 1, "summary": "{host}"}
POLICY = {"name": "quiet", "weights": {"free_cpu": 2}}
BODIES: dict[str, dict[str, Any]] = {
    "policies": POLICY,
    "templates": TEMPLATE,
    "projects": PROJECT,
    "alerts/rules": RULE,
}
KINDS = {
    "policies": "policy",
    "templates": "template",
    "projects": "project",
    "alerts/rules": "rule",
}


def problem(answer: httpx.Response) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    return msgspec.json.decode(answer.content, type=Problem)


async def commands_of(gateway: GatewayUnderTest) -> list[Any]:
    messages = await gateway.messages(subjects.COMMANDS)
    return [unwrap(msgspec.json.encode(message)).data for message in messages]


@pytest.fixture
def defined(gateway: GatewayUnderTest) -> GatewayUnderTest:
    """With the samples in the inventory."""
    kept: list[Definition[Any]] = [
        samples.kept(samples.POLICY),
        samples.kept(samples.TEMPLATE),
        samples.kept(samples.PROJECT),
        samples.kept(samples.ALERT_RULE),
    ]
    gateway.inventory.definitions = {(each.kind, each.name): each for each in kept}
    return gateway


@pytest.mark.parametrize("plural", [*BODIES])
async def test_each_kind_is_applied_shown_listed_and_removed(
    defined: GatewayUnderTest, plural: str
) -> None:
    body, kind = BODIES[plural], KINDS[plural]
    name = body["name"]
    applied = await defined.http.put(f"/v1/{plural}/{name}", json=body)
    assert applied.status_code == 202
    operation = msgspec.json.decode(applied.content, type=resources.Operation)
    assert (operation.command, operation.kind, operation.target) == (f"{kind}.apply", kind, name)
    removed = await defined.http.delete(f"/v1/{plural}/{name}")
    assert removed.json()["command"] == f"{kind}.remove"
    first, second = await commands_of(defined)
    assert msgspec.to_builtins(first.definition)["name"] == name
    assert second.name == name
    shown = await defined.http.get(f"/v1/{plural}/{name}")
    assert (shown.status_code, shown.json()["kind"]) == (200, kind)
    assert (await defined.http.get(f"/v1/{plural}?limit=2")).status_code == 200
    assert (await defined.http.get(f"/v1/{plural}/{name}/versions")).status_code == 200
    assert defined.inventory.asked[-2:] == [
        queries.ListDefinitions(kind=kind, limit=2),  # type: ignore[arg-type]
        queries.ListVersions(kind=kind, name=name),  # type: ignore[arg-type]
    ]


async def test_a_version_is_asked_for_by_its_number(defined: GatewayUnderTest) -> None:
    assert (await defined.http.get("/v1/policies/quiet?version=3")).json()["version"] == 3
    assert (await defined.http.get("/v1/policies/quiet?version=2")).status_code == 404
    assert (await defined.http.get("/v1/policies/quiet?version=0")).status_code == 400


async def test_a_file_is_taken_as_it_is(gateway: GatewayUnderTest) -> None:
    text = "name: quiet\nweights:\n  free_cpu: 2\nrules: {spread: off}\n"
    answer = await gateway.http.put(
        "/v1/policies/quiet", content=text, headers={"Content-Type": "application/yaml"}
    )
    assert answer.status_code == 202
    (command,) = await commands_of(gateway)
    assert isinstance(command, commands.ApplyPolicy)
    assert command.definition.rules == {"spread": "off"}


async def test_a_files_mistakes_are_said_with_field_line_and_column(
    gateway: GatewayUnderTest,
) -> None:
    text = "name: quiet\nweights:\n  free_cpus: 2\nrules: {spread: never}\n"
    answer = await gateway.http.put(
        "/v1/policies/quiet", content=text, headers={"Content-Type": "text/yaml"}
    )
    assert answer.status_code == 400
    errors = problem(answer).errors
    assert [error.field for error in errors] == ["/weights/free_cpus", "/rules/spread"]
    assert errors[1].detail == "line 4, column 17: expected one of: required, preferred, off"


async def test_what_a_file_cannot_mean_is_said_at_the_field_too(gateway: GatewayUnderTest) -> None:
    text = "name: hot\nsummary: '{pool} is hot'\nmetric: vireo_host_load1\nclear: 1\n"
    answer = await gateway.http.put(
        "/v1/alerts/rules/hot", content=text, headers={"Content-Type": "application/yaml"}
    )
    assert answer.status_code == 400
    assert [(error.field, error.detail) for error in problem(answer).errors] == [
        ("/above", "line 1, column 1: expected either `above` or `below`"),
        ("/summary", "line 2, column 10: may name the labels host, site"),
    ]


async def test_yaml_is_refused_where_it_is_not_taken(gateway: GatewayUnderTest) -> None:
    answer = await gateway.http.post(
        "/v1/vms", content="name: a", headers={"Content-Type": "application/yaml"}
    )
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/v1/policies/loud", POLICY, ["/name"]),
        ("/v1/policies/quiet", {**POLICY, "weights": {"x": 1, "packed": -1}}, None),
        ("/v1/templates/web", {**TEMPLATE, "cpus": 0, "x": 1}, ["/cpus", "/x"]),
        ("/v1/templates/web", {**TEMPLATE, "disks": [{}]}, ["/disks/0/size_gib"]),
        ("/v1/projects/shop", {**PROJECT, "quota": {"vms": -1}}, ["/quota/vms"]),
    ],
)
async def test_every_bad_field_is_named(
    gateway: GatewayUnderTest, path: str, body: Any, fields: list[str] | None
) -> None:
    answer = await gateway.http.put(path, json=body)
    assert answer.status_code == 400
    named = [error.field for error in problem(answer).errors]
    assert named == (fields or ["/weights/x", "/weights/packed"])
    assert await commands_of(gateway) == []


@pytest.mark.parametrize("path", ["/v1/policies/absent", "/v1/templates/No%20Name"])
async def test_what_is_not_there_cannot_be_removed(gateway: GatewayUnderTest, path: str) -> None:
    assert (await gateway.http.delete(path)).status_code == 404


# VMs


async def test_a_vm_is_made_of_its_template_and_project(defined: GatewayUnderTest) -> None:
    body = {"name": "web-2", "template": "web", "memory_mib": 2048}
    answer = await defined.http.post("/v1/vms", json=body)
    assert answer.status_code == 202, answer.text
    (command,) = await commands_of(defined)
    assert command.spec == resources.VmSpec(
        name="web-2",
        cpus=2,
        memory_mib=2048,
        disks=samples.TEMPLATE.disks or (),
        labels={"tier": "web"},
        project="shop",
        policy="quiet",
        template=resources.TemplateUse(name="web", version=1),
    )


async def test_a_vm_that_names_nothing_asks_nobody(gateway: GatewayUnderTest) -> None:
    body = {"name": "a", "disks": [{"image": "tiny"}], "policy": "pack"}
    assert (await gateway.http.post("/v1/vms", json=body)).status_code == 202
    assert gateway.inventory.asked == []


async def test_every_name_that_is_not_known_is_named(gateway: GatewayUnderTest) -> None:
    body = {"name": "a", "template": "t", "project": "p", "policy": "x"}
    answer = await gateway.http.post("/v1/vms", json=body)
    assert answer.status_code == 422
    found = problem(answer)
    assert found.type == "urn:vireo:problem:unknown-name"
    assert [(error.field, error.detail) for error in found.errors] == [
        ("/template", "there is no template 't'"),
        ("/project", "there is no project 'p'"),
        ("/policy", "there is no policy 'x'"),
    ]
    assert await commands_of(gateway) == []


async def test_what_template_and_request_make_together_is_checked(
    defined: GatewayUnderTest,
) -> None:
    body = {"name": "a", "template": "web", "hardware": {"huge_page_kib": 1048576}}
    answer = await defined.http.post("/v1/vms", json={**body, "memory_mib": 1025})
    assert [error.field for error in problem(answer).errors] == ["/memory_mib"]


async def test_a_request_that_was_answered_is_answered_so_again_whatever_became_of_its_template(
    defined: GatewayUnderTest,
) -> None:
    key = {"Idempotency-Key": "once"}
    body = {"name": "web-2", "template": "web"}
    first = await defined.http.post("/v1/vms", json=body, headers=key)
    defined.inventory.definitions = {}
    again = await defined.http.post("/v1/vms", json=body, headers=key)
    assert (again.status_code, again.content) == (202, first.content)
    assert (await defined.http.post("/v1/vms", json=body)).status_code == 422


# trials


async def test_a_policy_is_tried_beside_the_one_that_counts(defined: GatewayUnderTest) -> None:
    body = {"spec": {"name": "any", "template": "web"}}
    answer = await defined.http.post("/v1/policies/quiet/try", json=body)
    assert answer.status_code == 200, answer.text
    assert msgspec.json.decode(answer.content, type=PolicyTrial) == samples.TRIAL
    tried = sorted(defined.scheduler.tried, key=lambda one: one.policy is None)
    assert [one.policy for one in tried] == [samples.POLICY, None]
    assert {unwrap(bytes(one.command)).data.spec.project for one in tried} == {"shop"}
    assert await commands_of(defined) == []


async def test_a_draft_is_tried_in_place_of_what_is_kept(defined: GatewayUnderTest) -> None:
    draft = {**POLICY, "weights": {"packed": 1}}
    body = {"spec": {"name": "any", "disks": [{"image": "tiny"}]}, "draft": draft}
    await defined.http.post("/v1/policies/quiet/try", json=body)
    tried = [one.policy for one in defined.scheduler.tried if one.policy is not None]
    assert [policy.weights for policy in tried] == [{"packed": 1.0}]
    other = await defined.http.post("/v1/policies/loud/try", json=body)
    assert [error.field for error in problem(other).errors] == ["/draft/name"]


@pytest.mark.parametrize(
    ("name", "spec", "status", "fields"),
    [
        ("absent", {"name": "a", "disks": [{"image": "tiny"}]}, 404, []),
        ("pack", {"name": "a"}, 400, ["/spec/disks"]),
        ("quiet", {"name": "a", "template": "t"}, 422, ["/spec/template"]),
    ],
)
async def test_a_trial_of_what_is_not_known_is_refused(
    defined: GatewayUnderTest, name: str, spec: Any, status: int, fields: list[str]
) -> None:
    answer = await defined.http.post(f"/v1/policies/{name}/try", json={"spec": spec})
    assert answer.status_code == status
    assert [error.field for error in problem(answer).errors] == fields
