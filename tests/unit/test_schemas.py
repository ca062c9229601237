"""The language: what is generated is what is checked in, and every message survives the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids, samples, subjects, wire
from schemas.documents import documents
from schemas.envelope import Envelope
from schemas.subjects import BY_MESSAGE, CATALOG, STREAMS

GENERATED = Path(__file__).parents[2] / "schemas" / "generated"

ENVELOPED = [samples.enveloped(message) for message in samples.MESSAGES]


def test_the_generated_documents_are_those_checked_in() -> None:
    checked_in = {
        str(path.relative_to(GENERATED)): path.read_text(encoding="utf-8")
        for path in GENERATED.rglob("*")
        if path.is_file()
    }
    assert checked_in == documents(), "run ./dev docs and look at the difference"


def test_every_message_of_the_catalogue_has_a_sample() -> None:
    assert {type(message) for message in samples.MESSAGES} == set(BY_MESSAGE)


@pytest.mark.parametrize("sample", ENVELOPED, ids=lambda sample: sample.type)
def test_a_message_comes_back_from_the_wire_as_it_was(sample: Envelope[Any]) -> None:
    assert wire.unwrap(wire.encode(sample)) == sample


@pytest.mark.parametrize("sample", ENVELOPED, ids=lambda sample: sample.type)
def test_a_sample_is_valid_under_its_json_schema(sample: Envelope[Any]) -> None:
    schema = json.loads((GENERATED / f"json-schema/{sample.type}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(wire.encode(sample)))


@pytest.mark.parametrize("sample", ENVELOPED, ids=lambda sample: sample.type)
def test_fields_from_a_newer_version_are_ignored(sample: Envelope[Any]) -> None:
    message = json.loads(wire.encode(sample))
    message["data"]["invented_later"] = {"deep": [1]}
    message["inventedlater"] = True
    assert wire.unwrap(json.dumps(message).encode()) == sample


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "truncated"),
        (b"\xff\xfe\x00", "not a CloudEvent"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field"),
        (
            wire.encode(ENVELOPED[0]).replace(b"vireo.vm.create.v1", b"vireo.vm.no.v9"),
            "unknown type",
        ),
        (wire.encode(ENVELOPED[0]).replace(b'"cpus":2', b'"cpus":0'), "$.data.spec.cpus"),
    ],
)
def test_undecodable_bytes_say_what_is_wrong_with_them(raw: bytes, complaint: str) -> None:
    with pytest.raises(wire.Undecodable, match=complaint.replace("$", r"\$")):
        wire.unwrap(raw)


def test_every_message_belongs_to_a_stream_of_the_catalogue() -> None:
    streams = {stream.name: stream for stream in STREAMS}
    for channel in CATALOG:
        prefix = streams[channel.stream].subjects[0].removesuffix(">")
        assert channel.subject.startswith(prefix), channel


def test_types_and_subjects_are_each_given_once() -> None:
    assert len({channel.type for channel in CATALOG}) == len(CATALOG)
    assert len({channel.subject for channel in CATALOG}) == len(CATALOG)


@pytest.mark.parametrize("name", ["", "H1", "h.1", "h*", ">", "-h", "h" * 64, "h 1", "h\n", "ü"])
def test_what_is_no_name_never_gets_into_a_subject(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        subjects.telemetry(site="main", host=name)


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=32))
def test_a_uuid7_has_the_right_form_and_keeps_its_time(unix_ms: int, randomness: bytes) -> None:
    identity = ids.uuid7(unix_ms, randomness)
    assert ids.is_uuid7(identity)
    assert int(identity[:8] + identity[9:13], 16) == unix_ms


@given(st.integers(0, 2**48 - 1), st.text(), st.text())
def test_derived_ids_are_the_same_each_time_and_differ_by_name(
    unix_ms: int, one: str, other: str
) -> None:
    parent = ids.uuid7(unix_ms, bytes(10))
    assert ids.is_uuid7(ids.derived_id(parent, one))
    assert (ids.derived_id(parent, one) == ids.derived_id(parent, other)) == (one == other)


def test_later_ids_sort_after_earlier_ones() -> None:
    assert ids.uuid7(1, b"\xff" * 10) < ids.uuid7(2, bytes(10))


def test_attributes_that_are_unset_are_left_out_of_the_json() -> None:
    bare = msgspec.structs.replace(ENVELOPED[0], actor=None, traceparent=None, cause=None)
    assert not {"actor", "traceparent", "cause"} & set(json.loads(wire.encode(bare)))
