"""Rules of placement as typed on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas.resources import VmSpec
from vireo.cli import quantities, rules
from vireo.cli.rules import RuleOptions
from vireo.cli.spec import SpecOptions, spec_of


def test_every_option_becomes_a_rule_of_the_spec() -> None:
    options = RuleOptions(
        on="h1",
        on_labels=("disk=nvme",),
        not_on=("h2", "h3"),
        prefer=("rack=a",),
        affinity=("app=db",),
        anti_affinity=("app=web,tier=1@rack",),
        spread=("rack", "app=web@zone"),
        tolerate=("gpu", "old=yes", "*"),
        devices=("gpu=2", "nic-100g"),
        huge_pages="1GiB",
        numa="any",
    )

    spec = spec_of(SpecOptions(name="web", image="tiny", rules=options), {})

    assert spec["on"] == {
        "host": "h1",
        "labels": {"disk": "nvme"},
        "not_on": ["h2", "h3"],
        "tolerations": [{"key": "gpu"}, {"key": "old", "value": "yes"}, {}],
        "prefer": [{"labels": {"rack": "a"}}],
        "affinity": [{"labels": {"app": "db"}}],
        "anti_affinity": [{"labels": {"app": "web", "tier": "1"}, "topology": "rack"}],
        "spread": [{"topology": "rack"}, {"labels": {"app": "web"}, "topology": "zone"}],
    }
    assert spec["hardware"] == {
        "numa": "any",
        "huge_page_kib": 1048576,
        "devices": [{"name": "gpu", "count": 2}, {"name": "nic-100g"}],
    }
    assert msgspec.convert(spec, VmSpec).on.spread[1].topology == "zone"


@pytest.mark.parametrize(
    ("text", "operator", "values"),
    [
        ("gen=1,2", "in", ["1", "2"]),
        ("gen!=1", "not_in", ["1"]),
        ("gen!=1,2", "not_in", ["1", "2"]),
        ("gen>2", "greater", ["2"]),
        ("gen<-2", "less", ["-2"]),
        ("gen", "exists", None),
        ("!gen", "not_exists", None),
    ],
)
def test_a_condition_on_hosts_is_an_expression(
    text: str, operator: str, values: list[str] | None
) -> None:
    options = RuleOptions(on_labels=("disk=nvme", "bare=", text))
    spec = spec_of(SpecOptions(name="web", image="tiny", rules=options), {})
    wanted = {"key": "gen", "operator": operator, **({"values": values} if values else {})}
    assert spec["on"] == {"labels": {"disk": "nvme", "bare": ""}, "expressions": [wanted]}
    assert msgspec.convert(spec, VmSpec).on.expressions[0].key == "gen"


@pytest.mark.parametrize("text", ["", "!", "=", "=1", "gen>", "!gen=1", "gen==1", "a,b"])
def test_what_is_no_condition_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="is none of KEY=VALUE, KEY=A,B"):
        rules.host_rules(RuleOptions(on_labels=(text,)))


def test_what_is_not_given_is_not_sent() -> None:
    assert spec_of(SpecOptions(name="web"), {}) == {"name": "web"}


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((rules.near, text) for text in ("", "app", "app=web@", "app=a,app=b", "@rack")),
        *((rules.spread, text) for text in ("", "app=web@", "@rack")),
        *((rules.toleration, text) for text in ("", "=x")),
        *((rules.device, text) for text in ("", "=2", "gpu=", "gpu=two", "gpu=-1", "gpu=99999")),
        *((rules.page_kib, text) for text in ("large", "2parsecs")),
    ],
)
def test_what_is_no_rule_is_refused(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read(text)


def test_a_disk_may_name_its_pool() -> None:
    assert quantities.disks("tiny", ["10GiB@nvme", "data=1TiB@hdd", "log=1GiB"]) == [
        {"name": "root", "image": "tiny", "size_gib": 10, "pool": "nvme"},
        {"name": "data", "size_gib": 1024, "pool": "hdd"},
        {"name": "log", "size_gib": 1},
    ]
    with pytest.raises(ValueError, match="pool"):
        quantities.disks(None, ["10GiB@"])
