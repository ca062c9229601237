"""How definitions are shown on the command line, and how two versions differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from textwrap import dedent

from msgspec.structs import replace

from schemas.definitions import Amounts, Definition, Project, ProjectUse, Quota, Template
from schemas.policies import Policy
from schemas.resources import DiskSpec
from vireo.cli.definition_view import (
    definition_page,
    definition_table,
    difference,
    lines_of,
    version_table,
)
from vireo.cli.layout import plain_page, plain_table
from vireo.cli.spec import SpecOptions, missing, spec_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(name="quiet", version=2, weights={"free_cpu": 2.0, "packed": 1.0})
KEPT = Definition(
    kind="policy",
    name="quiet",
    version=2,
    definition=POLICY,
    actor="token/admin",
    operation="01939f4c-8a00-7000-8000-000000000001",
    at=NOW - timedelta(minutes=5),
)
SHIPPED = Definition(
    kind="policy",
    name="pack",
    version=1,
    definition=Policy(name="pack", version=1, weights={"packed": 1.0}),
    shipped=True,
)


def test_a_list_says_what_each_is_about() -> None:
    template = Template(
        name="web",
        version=1,
        cpus=2,
        memory_mib=2048,
        disks=(DiskSpec(image="debian-12"),),
        project="shop",
    )
    project = Project(name="shop", version=1, policy="quiet", quota=Quota(vms=2, memory_mib=8192))
    others: list[Definition[Template | Project]] = [
        Definition(kind="template", name="web", version=1, definition=template),
        Definition(kind="project", name="shop", version=1, definition=project),
    ]
    table = definition_table([SHIPPED, KEPT, *others], wide=False, now=NOW)
    assert plain_table(table).splitlines() == [
        "NAME   VERSION  AGE    BY           SAYS",
        "pack   1        -      shipped      packed 1",
        "quiet  2        5 min  token/admin  free_cpu 2, packed 1",
        "web    1        -      -            2 CPU, 2 GiB, debian-12, project shop",
        "shop   1        -      -            policy quiet, 2 VMs, 8 GiB",
    ]


def test_versions_say_how_much_each_changed() -> None:
    first = replace(KEPT, version=1, definition=replace(POLICY, weights={"free_cpu": 2.0}))
    removed = replace(KEPT, version=3, definition=None)
    table = version_table([removed, KEPT, first], now=NOW)
    assert [(row[0], row[-1]) for row in table.rows] == [("3", "removed"), ("2", "1"), ("1", "3")]


def test_two_versions_are_compared_as_files_would_say_them() -> None:
    changed = replace(POLICY, version=3, weights={"free_cpu": 3.0, "packed": 1.0})
    assert difference(POLICY, changed, names=("old", "new")) == [
        "--- old",
        "+++ new",
        "@@ -1,4 +1,4 @@",
        " name: quiet",
        " weights:",
        "-  free_cpu: 2.0",
        "+  free_cpu: 3.0",
        "   packed: 1.0",
    ]
    assert difference(POLICY, replace(POLICY, version=9), names=("old", "new")) == []
    assert lines_of(None) == ["(removed)"]


def test_a_page_says_who_applied_it_when() -> None:
    shown = plain_page(definition_page(KEPT, now=NOW))
    assert shown.startswith("policy quiet\n")
    assert "  applied    2026-03-01 11:55:00 UTC (5 min ago)\n" in shown


def test_a_project_is_shown_with_what_its_vms_take() -> None:
    use = ProjectUse(
        project="shop",
        site="home",
        used=Amounts(vms=3, cpus=6, memory_mib=6144, disk_gib=60),
        quota=Quota(vms=20, memory_mib=8192, disk_gib=0),
    )
    kept = Definition(kind="project", name="shop", version=1, definition=Project(name="shop"))
    assert plain_page(definition_page(kept, now=NOW, use=use)) == dedent("""\
        project shop

        Version
          version  1
          by       -

        Use at site home
          RESOURCE  USED    QUOTA  SHARE
          VMs       3       20     15 %
          CPUs      6       -      -
          memory    6 GiB   8 GiB  75 %
          disk      60 GiB  0 B    -
    """)


def test_a_template_stands_in_for_disks() -> None:
    options = SpecOptions(name="a", template="web", project="shop", policy="pack")
    spec = spec_of(options, {})
    assert spec == {"name": "a", "template": "web", "project": "shop", "policy": "pack"}
    assert missing(spec) == ""
