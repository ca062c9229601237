"""How forecasts look in plain text, and how hosts that might be are typed."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest

from schemas.forecasts import (
    Capacity,
    Change,
    Displaced,
    Forecast,
    PlacementReview,
    Room,
    RoomByLabel,
    Stuck,
)
from schemas.problems import conflict
from schemas.resources import Excluded, Placement, Scored
from tests.fixtures.gateway_standin import id_of
from vireo.cli.forecast_view import capacity_page, forecast_page, review_page
from vireo.cli.layout import plain_page
from vireo.cli.what_if import more_hosts

PLACEMENT = Placement(
    host="h2",
    policy="spread",
    policy_version=3,
    considered=4,
    ranking=(Scored(host="h2", score=0.75, terms={"free_memory": 0.75}),),
    excluded=(Excluded(host="h1", rule="memory", detail="needs 1024 MiB, 0 of 4096 MiB are left"),),
    excluded_by={"maintenance": 2, "memory": 1},
)
CREATED = Forecast(
    command="vm.create",
    kind="vm",
    target="web",
    host="h2",
    changes=(Change(field="host", after="h2"), Change(field="power", after="running")),
    placement=PLACEMENT,
)


def test_a_dry_run_of_a_create_says_where_why_and_why_not_there() -> None:
    assert plain_page(forecast_page(CREATED, name="web")) == dedent("""\
        vm.create web: would go to h2; nothing was done

        What would change
          FIELD  BEFORE  AFTER
          host   -       h2
          power  -       running

        Why this host
          chosen      h2
          policy      spread 3
          considered  4 hosts
          HOST  SCORE  FREE_MEMORY
          h2    0.750  0.75

        Why not there
          maintenance  2 hosts
          memory       1 host
          HOST  RULE    DETAIL
          h1    memory  needs 1024 MiB, 0 of 4096 MiB are left
    """)


def test_a_dry_run_of_a_change_shows_before_and_after() -> None:
    taints = [{"key": "gpu"}, {"key": "old", "effect": "avoid"}]
    forecast = Forecast(
        command="host.configure",
        kind="host",
        target="h1",
        host="h1",
        changes=(
            Change(field="maintenance", before=False, after=True),
            Change(field="taints", before=[], after=taints),
        ),
    )
    assert plain_page(forecast_page(forecast, name="h1")) == dedent("""\
        host.configure h1: would be done; nothing was done

        What would change
          FIELD        BEFORE  AFTER
          maintenance  no      yes
          taints       -       key=gpu; key=old, effect=avoid
    """)


def test_a_dry_run_that_changes_nothing_says_so() -> None:
    page = plain_page(
        forecast_page(Forecast(command="host.configure", kind="host", target="h1"), name="h1")
    )
    assert page == "host.configure h1: would change nothing; nothing was done\n"


def test_a_dry_run_of_what_would_be_refused_says_why() -> None:
    refused = Forecast(
        command="vm.create",
        kind="vm",
        target="web",
        problem=conflict("The name 'web' is taken."),
        excluded_by={"memory": 1},
    )
    assert plain_page(forecast_page(refused, name="web")) == dedent("""\
        vm.create web: would be refused; nothing was done

        Why not
          title   The request conflicts with the present state
          detail  The name 'web' is taken.

        Why not there
          memory  1 host
    """)


@pytest.mark.parametrize(("host", "words"), [("h2", "it would stay"), ("h1", "it would go to h2")])
def test_a_review_says_whether_it_would_be_decided_alike_now(host: str, words: str) -> None:
    review = PlacementReview(vm=id_of(1), name="web", host=host, placement=PLACEMENT, now=CREATED)
    page = plain_page(review_page(review))
    assert page.startswith(f"web: on {host}\n")
    assert f"\nDecided anew\n  now  {words}\n" in page
    assert (page.count("Why this host"), page.count("Why there, now")) == (1, 1)
    assert "What would change" not in page


def test_capacity_is_shown_by_label_by_host_and_with_what_stops_the_next() -> None:
    found = Capacity(
        site="home",
        policy="spread",
        policy_version=3,
        count=5,
        hosts=(Room(host="h2", count=4), Room(host="h1", count=1)),
        hosts_with_room=2,
        by="rack",
        values=(
            RoomByLabel(value="b", hosts=1, count=4),
            RoomByLabel(value=None, hosts=2, count=1),
        ),
        excluded=(Excluded(host="h1", rule="cpu", detail="needs 1 CPUs, 0 of 16 CPUs are left"),),
        excluded_by={"maintenance": 1, "cpu": 2},
    )
    assert plain_page(capacity_page(found)) == dedent("""\
        5 more fit

        Counted
          site    home
          policy  spread 3

        By rack
          RACK  HOSTS  MORE
          b     1      4
          -     2      1

        By host
          hosts with room  2
          HOST  MORE
          h2    4
          h1    1

        What stops the next one
          maintenance  1 host
          cpu          2 hosts
          HOST  RULE  DETAIL
          h1    cpu   needs 1 CPUs, 0 of 16 CPUs are left
    """)


def test_a_quota_that_stops_the_next_one_is_shown_beside_the_hosts_room() -> None:
    found = Capacity(
        site="home",
        policy="spread",
        policy_version=1,
        project="shop",
        count=1,
        hosts=(Room(host="h1", count=4),),
        hosts_with_room=1,
        over_quota=("3 VMs are allowed, 3 are taken, 1 more are asked for",),
    )
    assert plain_page(capacity_page(found)) == dedent("""\
        1 more fits

        Counted
          site     home
          policy   spread 1
          project  shop

        By host, whatever the quota
          hosts with room  1
          HOST  MORE
          h1    4

        What stops the next one
          quota  3 VMs are allowed, 3 are taken, 1 more are asked for
    """)


@pytest.mark.parametrize(
    ("count", "complete", "title"),
    [
        (0, True, "no more fit"),
        (1, True, "1 more fits"),
        (5000, False, "at least 5000 more fit"),
        (None, True, "If these hosts were taken away"),
    ],
)
def test_capacity_in_a_line(count: int | None, complete: bool, title: str) -> None:
    page = capacity_page(Capacity(site="home", count=count, complete=complete))
    assert page.title == title


def test_vms_that_would_fit_nowhere_are_named_with_the_nearest_host() -> None:
    nearest = Excluded(host="h1", rule="memory", detail="needs 9 MiB, 8 of 16 MiB are left")
    stuck = Stuck(vm=id_of(1), name="db", host="h4", detail="No host of 3.", excluded=(nearest,))
    found = Capacity(site="home", displaced=Displaced(vms=3, placed=2, stuck=(stuck,)))
    assert plain_page(capacity_page(found)) == dedent("""\
        If these hosts were taken away

        VMs of the hosts taken away
          on them        3 VMs
          fit elsewhere  2 VMs
          fit nowhere    1 VM
          VM  HOST  WHY NOT ELSEWHERE  NEAREST
          db  h4    No host of 3.      h1: needs 9 MiB, 8 of 16 MiB are left
    """)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("h2", {"like": "h2"}),
        ("3*h2", {"count": 3, "like": "h2"}),
        ("3*h2,rack=b", {"count": 3, "like": "h2", "labels": {"rack": "b"}}),
        (
            "2*cpus=64,memory=256GiB,disk=2TiB,rack=b",
            {
                "count": 2,
                "cpus": 64,
                "memory_mib": 262144,
                "disk_gib": 2048,
                "labels": {"rack": "b"},
            },
        ),
    ],
)
def test_hosts_that_might_be_are_typed_shortly(text: str, meant: dict[str, Any]) -> None:
    assert more_hosts(text) == meant


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "no name"),
        ("H2", "no name"),
        ("x*h2", "how many hosts"),
        ("99999*h2", "how many hosts"),
        ("cpus=many", "no number of CPUs"),
        ("h2,rack", "no KEY=VALUE"),
    ],
)
def test_what_is_no_host_that_might_be_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        more_hosts(text)
