"""What people type: sizes, durations, labels, disks, specs."""

from __future__ import annotations

import pytest

from vireo.cli import quantities
from vireo.cli.rules import RuleOptions
from vireo.cli.spec import SpecOptions, missing, spec_of


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128MiB", 128),
        ("512", 512),
        ("2GiB", 2048),
        ("1.5G", 1536),
        ("1 TiB", 1 << 20),
        ("64m", 64),
    ],
)
def test_memory_is_read_as_mib(text: str, size: int) -> None:
    assert quantities.memory_mib(text) == size


@pytest.mark.parametrize(
    ("text", "size"), [("10GiB", 10), ("10", 10), ("1TiB", 1024), ("2048M", 2)]
)
def test_disks_are_read_as_gib(text: str, size: int) -> None:
    assert quantities.disk_gib(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1GiB", "1GB", "1e3", "0.3MiB", "١GiB", "9" * 99])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|unit|whole"):
        quantities.memory_mib(text)


def test_a_disk_of_half_a_gib_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of GiB"):
        quantities.disk_gib("512MiB")


@pytest.mark.parametrize(
    ("text", "length"), [("500ms", 0.5), ("30s", 30), ("2m", 120), ("1h", 3600), ("7", 7)]
)
def test_durations_are_read_as_seconds(text: str, length: float) -> None:
    assert quantities.seconds(text) == length


def test_a_duration_in_fortnights_is_refused() -> None:
    with pytest.raises(ValueError, match="unit"):
        quantities.seconds("2fortnights")


def test_labels_are_split_at_the_first_equals_sign() -> None:
    assert quantities.labels(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("pairs", [["a"], ["=1"], ["a=1", "a=2"]])
def test_bad_labels_are_refused(pairs: list[str]) -> None:
    with pytest.raises(ValueError, match=r"KEY=VALUE|twice"):
        quantities.labels(pairs)


def test_options_make_a_spec() -> None:
    options = SpecOptions(
        name="web1",
        image="tiny",
        cpus=2,
        memory="1GiB",
        disks=("10GiB", "data=20GiB"),
        networks=("default", "lan"),
        labels=("app=shop",),
        stopped=True,
        rules=RuleOptions(on="h1", on_labels=("disk=nvme",)),
    )
    assert spec_of(options, {}) == {
        "name": "web1",
        "cpus": 2,
        "memory_mib": 1024,
        "disks": [
            {"name": "root", "image": "tiny", "size_gib": 10},
            {"name": "data", "size_gib": 20},
        ],
        "nics": [{"network": "default"}, {"network": "lan"}],
        "labels": {"app": "shop"},
        "power": "stopped",
        "on": {"host": "h1", "labels": {"disk": "nvme"}},
    }


def test_options_go_before_the_file_and_labels_are_merged() -> None:
    base = {
        "name": "a",
        "cpus": 1,
        "labels": {"x": "1", "y": "1"},
        "on": {"labels": {"z": "1"}, "not_on": ["h1"]},
    }
    rules = RuleOptions(on_labels=("w=1",), not_on=("h2",), devices=("gpu=2",))
    options = SpecOptions(name="b", labels=("y=2",), rules=rules)
    assert spec_of(options, base) == {
        "name": "b",
        "cpus": 1,
        "labels": {"x": "1", "y": "2"},
        "on": {"labels": {"z": "1", "w": "1"}, "not_on": ["h1", "h2"]},
        "hardware": {"devices": [{"name": "gpu", "count": 2}]},
    }


def test_what_is_wrong_in_a_file_is_left_to_the_server_to_name() -> None:
    base = {"name": "a", "labels": "no mapping", "colour": "red"}
    assert spec_of(SpecOptions(labels=("x=1",)), base) == base


def test_what_a_vm_cannot_do_without_is_said() -> None:
    assert "NAME" in missing({})
    assert "--image" in missing({"name": "a"})
    assert missing({"name": "a", "disks": []}) == ""
