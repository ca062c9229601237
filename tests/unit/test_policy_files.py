"""Policies as YAML: what is read, and every mistake with its place."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.policies import Policy, PolicyParameters
from schemas.policy_files import BadPolicy, PolicyError, read_policy
from schemas.shipped import shipped
from services.scheduler.compiled import compile_policy


def errors_in(text: str) -> tuple[PolicyError, ...]:
    with pytest.raises(BadPolicy) as caught:
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
        ("", PolicyError(1, 1, "the document is empty")),
        ("- name", PolicyError(1, 1, "expected a policy")),
        ("version: 1", PolicyError(1, 1, "field 'name' is missing")),
        ("name: a\nname: b\nversion: 1", PolicyError(2, 1, "'name' stands in line 1 already")),
        ("name: a\nversion: 1\nweights: 3", PolicyError(3, 10, "expected a mapping of scores")),
        ("name: a\nversion: !!int x", PolicyError(2, 10, "Expected `int`, got `str`")),
        (
            "name: a\nversion: 1\nparameters: {watts: 3}",
            PolicyError(
                3, 14, "unknown parameter 'watts'; there are preference_weight, watts_scale"
            ),
        ),
    ],
)
def test_a_mistake_says_where_it_is(text: str, error: PolicyError) -> None:
    assert errors_in(text) == (error,)


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
    try:
        read_policy(text)
    except BadPolicy as error:
        told = error.errors
    else:
        return
    assert told


def test_the_shipped_policies_can_be_read_and_compiled() -> None:
    policies = shipped()
    assert sorted(policies) == ["balanced", "energy", "pack", "spread", "weighted-random"]
    for name, policy in policies.items():
        assert compile_policy(policy).key == (name, 1)
