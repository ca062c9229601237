"""Specs in files: values, and the line of each."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from schemas.problems import FieldError, Problem
from vireo.cli.spec_file import parse_spec, read_spec
from vireo.cli.vm_create import located
from vireo.errors import Invalid

WEB = """\
# a web server
name: web
cpus: 0
labels:
  app: web
on:
  not_on: [h1, h2]
  anti_affinity:
    - labels: {app: web}
      topolgy: rack
    - labels:
        app: 7
disks:
  - image: tiny
"""


def test_a_spec_file_is_yaml_or_json(tmp_path: Path) -> None:
    for name, text in (("a.yaml", "name: web\ncpus: 2\n"), ("b.json", '{"name":"web","cpus":2}')):
        (tmp_path / name).write_text(text)
        assert read_spec(str(tmp_path / name)).values == {"name": "web", "cpus": 2}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- a\n", "no mapping"),
        ("", "no mapping"),
        ("1: 2", "no mapping"),
        ("a: [", "line 1"),
        ("!!python/object:os.system {}", "constructor"),
        ("\x00", "special characters"),
        ("name: web\nname: db\n", "line 2: 'name' stands in line 1 already"),
        ("a: " + "[" * 40 + "]" * 40, "nested too deeply"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_a_file_that_holds_no_spec_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"web\.yaml.*") as caught:
        parse_spec(text, "web.yaml")
    assert why in str(caught.value)


def test_words_stay_words_and_references_are_followed() -> None:
    text = "on: &here {labels: {a: no, b: 2026-01-02, c: on}}\nsame: [*here]\nreal: true\nn: 2\n"

    found = parse_spec(text, "web.yaml").values

    here = {"labels": {"a": "no", "b": "2026-01-02", "c": "on"}}
    assert found == {"on": here, "same": [here], "real": True, "n": 2}


def test_references_cannot_make_a_file_larger_than_it_may_be() -> None:
    names = [chr(ord("a") + number) for number in range(12)]
    lines = ["a: &a [x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]" for before, name in pairwise(names)
    ]
    with pytest.raises(ValueError, match="more than 20000 fields"):
        parse_spec("\n".join(lines), "web.yaml")


def test_what_refers_to_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_spec("a: &a [*a]\n", "web.yaml")


@pytest.mark.parametrize(
    ("pointer", "line"),
    [
        ("/cpus", 3),
        ("/labels/app", 5),
        ("/on/not_on/1", 7),
        ("/on/anti_affinity/0/topolgy", 10),
        ("/on/anti_affinity/1", 11),
        ("/on/anti_affinity/1/labels/app", 12),
        ("/disks/0/name", 14),
    ],
)
def test_every_field_has_its_line(pointer: str, line: int) -> None:
    spec = parse_spec(WEB, "web.yaml")

    assert spec.where(pointer, spec.values) == f"web.yaml, line {line}"


def test_the_server_s_errors_are_told_with_the_lines_of_the_file_they_come_from() -> None:
    source = parse_spec(WEB, "web.yaml")
    sent = {**source.values, "memory_mib": 1, "cpus": 9999}
    fields = ("/cpus", "/memory_mib", "/on/anti_affinity/0/topolgy", "")
    problem = Problem(
        type="urn:vireo:problem:invalid-request",
        title="The request is not valid",
        status=400,
        errors=tuple(FieldError(field=field, detail="no") for field in fields),
    )

    found = located(Invalid(problem), source, sent)

    assert [(one.field, one.detail) for one in found.errors] == [
        ("/cpus", "no"),
        ("/memory_mib", "no"),
        ("/on/anti_affinity/0/topolgy", "no (web.yaml, line 10)"),
        ("", "no"),
    ]
