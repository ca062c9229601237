"""Definitions as YAML: what is read, and every mistake with its place."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.definition_files import BadFile, FileError, read_definition, read_policy
from schemas.definitions import Project, Quota, Template
from schemas.policies import Policy, PolicyParameters, Term
from schemas.resources import DiskSpec
from schemas.rules import Affinity, DeviceRequest, Hardware, HostRules, LabelExpression, Toleration
from schemas.shipped import shipped
from services.scheduler.compiled import compile_policy


def errors_in(text: str) -> tuple[FileError, ...]:
    with pytest.raises(BadFile) as caught:
        read_policy(text)
    return caught.value.errors


def test_a_policy_is_read_with_all_its_parts() -> None:
    text = """\
name: mine
version: 3
description: for tests
weights: {free_cpu: 1, packed: 0.5}
rules: {labels: off, spread: preferred}
parameters: {watts_scale: 900}
"""
    assert read_policy(text) == Policy(
        name="mine",
        version=3,
        description="for tests",
        weights={"free_cpu": 1.0, "packed": 0.5},
        rules={"labels": "off", "spread": "preferred"},
        parameters=PolicyParameters(watts_scale=900.0),
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", FileError(1, 1, "the document is empty")),
        ("- name", FileError(1, 1, "expected a mapping")),
        ("version: 1", FileError(1, 1, "field 'name' is missing", "/name")),
        ("name: a\nname: b\nversion: 1", FileError(2, 1, "'name' stands in line 1 already")),
        ("name: a\nversion: 1\nweights: 3", FileError(3, 10, "expected a mapping", "/weights")),
        ("name: a\nversion: !!int x", FileError(2, 10, "expected int, got str", "/version")),
        (
            "name: a\nversion: 1\nparameters: {watts: 3}",
            FileError(
                3,
                14,
                "unknown field 'watts'; there are preference_weight, watts_scale",
                "/parameters",
            ),
        ),
        (
            "name: a\nweights: {cpu: 3}",
            FileError(
                2,
                11,
                f"unknown name 'cpu'; there are {', '.join(sorted(get_args(Term)))}",
                "/weights/cpu",
            ),
        ),
        ("name: A b", FileError(1, 7, "expected lower-case letters, digits, hyphens", "/name")),
        ("name: &a b\ndescription: *a", FileError(2, 14, "aliases are not taken here")),
        (
            "name: a\nrules: {labels: maybe}",
            FileError(2, 17, "expected one of: required, preferred, off", "/rules/labels"),
        ),
        (
            "name: a\nweights: {packed: many}",
            FileError(2, 19, "expected float, got str", "/weights/packed"),
        ),
    ],
)
def test_a_mistake_says_where_it_is(text: str, error: FileError) -> None:
    assert errors_in(text) == (error,)


def test_a_template_is_read_with_all_that_a_vm_may_ask_for() -> None:
    text = """\
name: web
cpus: 2
disks:
  - image: debian-12
    size_gib: 10
labels: {tier: web, rack: 7, off: on}
on:
  tolerations: [{key: old}]
  anti_affinity:
    - labels: {tier: web}
      required: false
  expressions:
    - {key: cores, operator: greater, values: ["8"]}
hardware: {huge_page_kib: 2048, devices: [{name: gpu}]}
project: null
"""
    assert read_definition(text, Template) == Template(
        name="web",
        cpus=2,
        disks=(DiskSpec(image="debian-12", size_gib=10),),
        labels={"tier": "web", "rack": "7", "off": "on"},
        on=HostRules(
            tolerations=(Toleration(key="old"),),
            anti_affinity=(Affinity(labels={"tier": "web"}, required=False),),
            expressions=(LabelExpression(key="cores", operator="greater", values=("8",)),),
        ),
        hardware=Hardware(huge_page_kib=2048, devices=(DeviceRequest(name="gpu"),)),
    )


def test_every_mistake_of_a_template_is_told_at_once() -> None:
    text = """\
name: web
cpus: 0
disks: []
nics: {network: a}
labels:
  Tier: web
on:
  expressions:
    - {key: rack, operator: exists, values: [a]}
hardware: {huge_page_kib: 7}
"""
    with pytest.raises(BadFile) as caught:
        read_definition(text, Template)
    assert [(each.line, each.column, each.field) for each in caught.value.errors] == [
        (2, 7, "/cpus"),
        (3, 8, "/disks"),
        (4, 7, "/nics"),
        (6, 3, "/labels/Tier"),
        (9, 7, "/on/expressions/0"),
        (10, 27, "/hardware/huge_page_kib"),
    ]


def test_a_projects_quota_is_read() -> None:
    text = "name: shop\npolicy: quiet\nquota: {vms: 20, cpus: 64}\n"
    assert read_definition(text, Project) == Project(
        name="shop", policy="quiet", quota=Quota(vms=20, cpus=64)
    )


def test_what_is_not_yaml_says_where_it_stops_to_be() -> None:
    (error,) = errors_in("name: a\nversion: [1\n")
    assert error.line == 3


@settings(deadline=None)
@given(st.text())
@example("[" * 60_000)
@example("name: &a [*a]")
@example("? {a: b}\n: c")
@example("!!python/object:os.system {}")
@example("version: 1e999")
@example("\x00")
def test_no_text_does_anything_but_be_read_or_refused(text: str) -> None:
    told: list[tuple[FileError, ...]] = []
    for kind in (Policy, Template, Project):
        try:
            read_definition(text, kind)
        except BadFile as error:
            told.append(error.errors)
    assert all(told)


def test_the_shipped_policies_can_be_read_and_compiled() -> None:
    policies = shipped()
    assert sorted(policies) == ["balanced", "energy", "pack", "spread", "weighted-random"]
    for name, policy in policies.items():
        assert compile_policy(policy).key == (name, 1)
