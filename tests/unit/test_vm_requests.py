"""What a request becomes with its template and its project."""

from __future__ import annotations

from typing import Any

from schemas.cloud_init import CloudInit
from schemas.definitions import Project, Template
from schemas.problems import FieldError
from schemas.requests import VmRequest, project_of, spec_of
from schemas.resources import DiskSpec, NicSpec, TemplateUse, VmSpec
from schemas.rules import Hardware, HostRules, Toleration

DISKS = (DiskSpec(image="tiny"),)
TEMPLATE = Template(
    name="web",
    version=3,
    cpus=4,
    memory_mib=2048,
    disks=DISKS,
    nics=(NicSpec(network="front"),),
    labels={"tier": "web", "team": "shop"},
    metadata={"owner": "a"},
    on=HostRules(labels={"rack": "a"}, tolerations=(Toleration(key="old"),)),
    hardware=Hardware(numa="any"),
    project="shop",
    policy="pack",
)
PROJECT = Project(name="shop", policy="quiet", labels={"team": "all", "cost": "7"})


def test_a_request_alone_is_a_spec_with_its_defaults() -> None:
    assert spec_of(VmRequest(name="a", disks=DISKS), None, None) == VmSpec(name="a", disks=DISKS)


def test_a_spec_says_that_there_is_something_for_cloud_init_and_not_what() -> None:
    request = VmRequest(name="a", disks=DISKS, cloud_init=CloudInit(user_data="#!/bin/sh"))
    assert spec_of(request, None, None) == VmSpec(name="a", disks=DISKS, seeded=True)


def test_a_template_gives_what_the_request_leaves_out() -> None:
    assert spec_of(VmRequest(name="a", template="web"), TEMPLATE, None) == VmSpec(
        name="a",
        cpus=4,
        memory_mib=2048,
        disks=DISKS,
        nics=(NicSpec(network="front"),),
        labels={"tier": "web", "team": "shop"},
        metadata={"owner": "a"},
        on=HostRules(labels={"rack": "a"}, tolerations=(Toleration(key="old"),)),
        hardware=Hardware(numa="any"),
        project="shop",
        policy="pack",
        template=TemplateUse(name="web", version=3),
    )


def test_the_request_wins_part_by_part() -> None:
    request = VmRequest(
        name="a",
        template="web",
        cpus=1,
        labels={"tier": "db"},
        metadata={"b": "c"},
        on=HostRules(host="h1"),
        policy="spread",
        power="stopped",
    )
    spec = spec_of(request, TEMPLATE, PROJECT)
    assert isinstance(spec, VmSpec)
    assert (spec.cpus, spec.memory_mib, spec.policy, spec.power) == (1, 2048, "spread", "stopped")
    assert spec.labels == {"tier": "db", "team": "shop", "cost": "7"}
    assert spec.metadata == {"owner": "a", "b": "c"}
    assert spec.on == HostRules(
        host="h1", labels={"rack": "a"}, tolerations=(Toleration(key="old"),)
    )


def test_the_policy_is_the_requests_the_templates_or_the_projects() -> None:
    plain = Template(name="plain", disks=DISKS)
    cases: list[tuple[str | None, Template, Project | None, str | None]] = [
        ("spread", TEMPLATE, PROJECT, "spread"),
        (None, TEMPLATE, PROJECT, "pack"),
        (None, plain, PROJECT, "quiet"),
        (None, plain, None, None),
    ]
    for policy, template, project, expected in cases:
        spec = spec_of(VmRequest(name="a", policy=policy), template, project)
        assert isinstance(spec, VmSpec)
        assert spec.policy == expected


def test_the_project_is_the_requests_or_the_templates() -> None:
    assert project_of(VmRequest(name="a"), TEMPLATE) == "shop"
    assert project_of(VmRequest(name="a", project="mine"), TEMPLATE) == "mine"
    assert project_of(VmRequest(name="a"), None) is None


def test_a_vm_without_disks_is_refused() -> None:
    assert spec_of(VmRequest(name="a"), Template(name="bare"), None) == (
        FieldError(field="/disks", detail="required, as its template has none"),
    )
    assert spec_of(VmRequest(name="a"), None, None) == (
        FieldError(field="/disks", detail="required"),
    )


def test_labels_may_not_become_too_many_together() -> None:
    def labels(prefix: str) -> dict[str, str]:
        return {f"{prefix}{number}": "" for number in range(40)}

    given: dict[str, Any] = {"name": "a", "disks": DISKS, "labels": labels("a")}
    template = Template(name="t", labels=labels("b"))
    (error,) = spec_of(VmRequest(**given), template, None)  # type: ignore[misc]
    assert error.field == "/labels"
