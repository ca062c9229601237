"""Taints and tuning as people type them."""

from __future__ import annotations

import pytest
from msgspec import structs

from schemas.resources import HostConfig, HostTuning
from schemas.rules import Taint
from tests.fixtures.gateway_standin import NOW, host
from vireo.cli.host_change import HostChanges, Selected, changed_tuning, removals, taints
from vireo.cli.host_view import host_page, host_table
from vireo.cli.layout import plain_page

GPU, OLD = Taint(key="gpu", value="a100"), Taint(key="old", effect="avoid")
CONFIG = HostConfig(
    host="h1",
    labels={"rack": "a"},
    taints=(GPU, OLD),
    tuning=HostTuning(cpu_overcommit=2.0, reserve_memory_mib=1024, weight=5.0),
)


def changes(**given: object) -> HostChanges:
    nothing = HostChanges(labels={}, unlabelled=(), taints=(), untainted=(), tuning={}, unset=())
    return structs.replace(nothing, **given)


@pytest.mark.parametrize(
    ("text", "taint"),
    [
        ("gpu", Taint(key="gpu")),
        ("gpu=a100", GPU),
        ("gpu=a100:refuse", GPU),
        ("old:avoid", OLD),
    ],
)
def test_a_taint_refuses_unless_it_says_otherwise(text: str, taint: Taint) -> None:
    assert taints([text]) == (taint,)


@pytest.mark.parametrize("text", ["", "=a100", "gpu:never", "gpu=a100:", "GPU"])
def test_what_is_no_taint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"KEY|effect|no taint"):
        taints([text])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("gpu", (OLD,)),
        ("gpu=a100", (OLD,)),
        ("gpu=t4", (GPU, OLD)),
        ("old:refuse", (GPU, OLD)),
        ("old:avoid", (GPU,)),
    ],
)
def test_what_is_left_out_of_a_removal_is_any(text: str, left: tuple[Taint, ...]) -> None:
    assert changes(untainted=removals([text])).taints_over(CONFIG) == left


def test_a_taint_that_is_there_already_is_there_once() -> None:
    new = Taint(key="new")

    assert changes(taints=(GPU, new)).taints_over(CONFIG) == (GPU, OLD, new)


def test_what_is_not_named_is_left_to_the_server() -> None:
    change = changes(untainted=(Selected("gpu"),))

    assert change.needs_old
    assert (change.labels_over(CONFIG), change.tuning_over(CONFIG)) == (None, None)
    assert not changes(tuning={"weight": None}).needs_old


def test_tuning_is_changed_and_unset_by_name() -> None:
    change = changes(tuning={"weight": 2.0, "full_watts": None}, unset=("cpu-overcommit",))

    assert change.tuning_over(CONFIG) == HostTuning(reserve_memory_mib=1024, weight=2.0)
    assert changed_tuning(CONFIG.tuning, {}, unset=("weight",)).weight == 1.0


def test_a_name_that_is_none_cannot_be_unset() -> None:
    with pytest.raises(ValueError, match="no 'colour' to unset; there are cpu-overcommit, "):
        changed_tuning(HostTuning(), {}, unset=("colour",))


def test_labels_are_added_before_others_are_taken_away() -> None:
    assert changes(labels={"disk": "nvme"}, unlabelled=("rack",)).labels_over(CONFIG) == {
        "disk": "nvme"
    }


def test_what_operators_say_of_a_host_is_on_its_page_and_in_the_wide_list() -> None:
    one = structs.replace(host("h1"), config=CONFIG)

    page = plain_page(host_page(one, reading=None, now=NOW))
    (row,) = host_table([one], wide=True, now=NOW).rows

    assert "  taints       gpu=a100:refuse, old:avoid\n" in page
    assert (
        "Tuning\n  cpu-overcommit      2\n  reserve-memory-mib  1024\n  weight              5\n"
        in page
    )
    assert row[-2:] == (
        "gpu=a100:refuse, old:avoid",
        "cpu-overcommit=2, reserve-memory-mib=1024, weight=5",
    )


def test_a_host_of_which_nothing_is_said_is_as_its_site_says() -> None:
    page = plain_page(host_page(host("h1"), reading=None, now=NOW))

    assert "Tuning\n  all  as the site says\n" in page
