"""Reading requests names every bad field, in words, and lets nothing past msgspec."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import samples
from schemas.problems import FieldError
from schemas.queries import ListVms
from schemas.resources import VmSpec
from services.gateway.durations import seconds
from services.gateway.validation import MAX_ERRORS, Invalid, read_body, read_query


def body_errors(value: Any) -> dict[str, str]:
    found = read_body(json.dumps(value).encode(), VmSpec)
    assert isinstance(found, Invalid)
    return {error.field: error.detail for error in found.errors}


def test_a_good_body_is_read_as_it_is() -> None:
    assert read_body(msgspec.json.encode(samples.SPEC), VmSpec) == samples.SPEC


def test_every_bad_field_of_a_body_is_named() -> None:
    assert body_errors(
        {
            "name": "Web",
            "cpu": 2,
            "cpus": 0,
            "memory_mib": "lots",
            "disks": [{}, {"size_gib": -1, "imge": "tiny"}, 5],
            "nics": 7,
            "labels": {"a/b~": "x" * 64},
            "metadata": {"note": "a\0b"},
            "on": {"labels": {"rack": None}},
            "power": "off",
        }
    ) == {
        "/name": "expected str matching regex '^[a-z0-9][a-z0-9-]{0,62}$' "
        "(lower-case letters, digits, hyphens)",
        "/cpu": "unknown field; did you mean cpus?",
        "/cpus": "expected int >= 1",
        "/memory_mib": "expected int, got str",
        "/disks/1/size_gib": "expected int >= 0",
        "/disks/1/imge": "unknown field; did you mean image?",
        "/disks/2": "expected object, got int",
        "/nics": "expected array, got int",
        "/labels/a~1b~0": "expected str of length <= 63",
        "/metadata/note": "must not contain the character U+0000",
        "/on/labels/rack": "expected str, got null",
        "/power": "expected one of: running, stopped, paused",
    }


def test_rules_that_contradict_themselves_are_named_where_they_stand() -> None:
    spec = {"name": "web", "disks": [{"image": "tiny"}]}
    expressions = [
        {"key": "rack", "operator": "exists", "values": ["a"]},
        {"key": "rack", "operator": "in"},
        {"key": "rack", "operator": "like"},
        {"key": "slot", "operator": "less", "values": ["7"]},
    ]

    assert body_errors({**spec, "on": {"expressions": expressions}}) == {
        "/on/expressions/0": "exists takes no values",
        "/on/expressions/1": "in needs at least one value",
        "/on/expressions/2/operator": "expected one of: in, not_in, exists, not_exists, greater,"
        " less",
    }


def test_what_is_missing_is_named() -> None:
    assert body_errors({}) == {"/name": "required", "/disks": "required"}


def test_an_empty_list_that_needs_an_item_is_named() -> None:
    assert body_errors({"name": "web", "disks": []}) == {"/disks": "expected array of length >= 1"}


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"{", "malformed JSON: Input data was truncated"),
        (b"[" * 100_000, "malformed JSON: nested too deeply"),
        (b'"\xff"', "malformed JSON: 'utf-8' codec can't decode byte"),
        (b"[]", "expected object, got array"),
        (b"null", "expected object, got null"),
    ],
)
def test_what_is_no_object_is_said_to_be_none(raw: bytes, detail: str) -> None:
    found = read_body(raw, VmSpec)
    assert isinstance(found, Invalid)
    assert found.errors[0].field == ""
    assert found.errors[0].detail.startswith(detail)


def test_a_hostile_body_costs_a_bounded_number_of_errors() -> None:
    assert len(body_errors({f"field{number}": 1 for number in range(10_000)})) == MAX_ERRORS


def test_a_query_is_read_by_the_types_of_its_fields() -> None:
    pairs = [("limit", "10"), ("label", "tier=web"), ("label", "sum=a=b"), ("state", "running")]
    assert read_query(pairs, ListVms) == ListVms(
        limit=10, labels={"tier": "web", "sum": "a=b"}, state="running"
    )


def test_every_bad_parameter_is_named() -> None:
    pairs = [
        *(("limit", "many"), ("label", "tier"), ("host", "h1"), ("host", "h2")),
        *(("state", "off"), ("labels", "a=b")),
    ]
    found = read_query(pairs, ListVms)
    assert isinstance(found, Invalid)
    assert {(error.field, error.detail) for error in found.errors} == {
        ("query/limit", "expected int, got str"),
        ("query/label", "expected key=value, got tier"),
        ("query/host", "given more than once"),
        (
            "query/state",
            "expected one of: scheduled, creating, running, paused, stopped, crashed, failed, "
            "deleting, deleted",
        ),
        ("query/labels", "unknown parameter; did you mean label?"),
    }


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "disks", "cpus", "on", "labels", "x"]), inner)
    ),
    max_leaves=8,
)


@given(values)
def test_whatever_comes_is_a_spec_or_a_list_of_reasons(value: Any) -> None:
    found = read_body(json.dumps(value).encode(), VmSpec)
    if isinstance(found, Invalid):
        assert found.errors
    else:
        assert read_body(msgspec.json.encode(found), VmSpec) == found


@given(st.dictionaries(st.sampled_from(["name", "cpus", "disks", "power"]), values))
def test_the_walk_and_msgspec_agree_on_what_is_good(value: dict[str, Any]) -> None:
    raw = json.dumps(value).encode()
    ours = read_body(raw, VmSpec)
    try:
        theirs: VmSpec | None = msgspec.json.decode(raw, type=VmSpec)
    except (msgspec.MsgspecError, RecursionError):
        theirs = None
    if theirs is None:
        assert isinstance(ours, Invalid)
        assert ours.errors[0] != FieldError(field="", detail="")
    elif not isinstance(ours, Invalid):
        assert ours == theirs


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), ("0s", 0), ("1d", 86_400)],
)
def test_durations_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 s", "1e3s", "٣s", "1w"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert seconds(text) is None
