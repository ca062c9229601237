"""How policies, templates, projects and alert rules are shown, and how two versions of one differ. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from schemas.alerts import AlertRule
from schemas.definitions import AnyDefinition, Definition, Project, ProjectUse, Template
from vireo.cli import words
from vireo.cli.alert_view import condition
from vireo.cli.layout import Page, Section, Table
from vireo.cli.printing import Output, data_text

REMOVED = "(removed)"
MIB_PER_GIB = 1024
Shown = Definition[Any]


def definition_table(found: Sequence[Shown], *, wide: bool, now: datetime) -> Table:
    columns = ("name", "version", "age", "by", "says")
    rows = [
        (each.name, str(each.version), _age(each, now), _by(each), _says(each.definition))
        for each in found
    ]
    if not wide:
        return Table(columns=columns, rows=tuple(rows))
    more = [(each.operation or words.NOTHING,) for each in found]
    return Table(
        columns=(*columns, "operation"),
        rows=tuple(row + extra for row, extra in zip(rows, more, strict=True)),
    )


def version_table(found: Sequence[Shown], *, now: datetime) -> Table:
    """Versions, and how many lines each changed of the one before."""
    texts = [lines_of(each.definition) for each in found]
    befores = [*texts[1:], []]
    return Table(
        columns=("version", "age", "by", "lines changed"),
        rows=tuple(
            (str(each.version), _age(each, now), _by(each), _changed(before, text, each))
            for each, text, before in zip(found, texts, befores, strict=True)
        ),
    )


def definition_page(found: Shown, *, now: datetime, use: ProjectUse | None = None) -> Page:
    facts = [("version", str(found.version)), ("by", _by(found))]
    if found.at is not None:
        facts.append(("applied", f"{words.when(found.at)} ({words.age(found.at, now)} ago)"))
    if found.operation is not None:
        facts.append(("operation", found.operation))
    sections = [Section(title="Version", facts=tuple(facts))]
    if use is not None:
        sections.append(use_section(use))
    return Page(title=f"{found.kind} {found.name}", sections=tuple(sections))


def use_page(use: ProjectUse) -> Page:
    return Page(title=f"project {use.project}", sections=(use_section(use),))


def use_section(use: ProjectUse) -> Section:
    """What the project's VMs take of each quota, and how much of it that is."""
    used, quota = use.used, use.quota
    rows = (
        _used("VMs", used.vms, quota.vms, str),
        _used("CPUs", used.cpus, quota.cpus, str),
        _used("memory", used.memory_mib, quota.memory_mib, words.of_mib),
        _used("disk", used.disk_gib, quota.disk_gib, lambda gib: words.of_mib(gib * MIB_PER_GIB)),
    )
    table = Table(columns=("resource", "used", "quota", "share"), rows=rows)
    return Section(title=f"Use at site {use.site}", table=table)


def _used(
    name: str, used: int, quota: int | None, written: Callable[[int], str]
) -> tuple[str, str, str, str]:
    most = words.NOTHING if quota is None else written(quota)
    return name, written(used), most, words.share(used / quota if quota else None)


def lines_of(definition: AnyDefinition | None) -> list[str]:
    """As a file would say it, but for the version, which the inventory counts."""
    if definition is None:
        return [REMOVED]
    plain = msgspec.to_builtins(definition)
    plain.pop("version", None)
    return data_text(plain, Output.YAML).splitlines()


def difference(
    old: AnyDefinition | None, new: AnyDefinition | None, *, names: tuple[str, str]
) -> list[str]:
    """A unified diff; empty where they say the same."""
    return list(difflib.unified_diff(lines_of(old), lines_of(new), *names, n=2, lineterm=""))


def _changed(before: list[str], text: list[str], found: Shown) -> str:
    if found.definition is None:
        return "removed"
    return str(sum(line[0] in "+-" for line in difflib.ndiff(before, text)))


def _age(found: Shown, now: datetime) -> str:
    return words.NOTHING if found.at is None else words.age(found.at, now)


def _by(found: Shown) -> str:
    return "shipped" if found.shipped else found.actor or words.NOTHING


def _says(definition: Any) -> str:
    """The most important part of it, for a list."""
    if definition is None:
        return REMOVED
    if isinstance(definition, Template):
        return words.shortened(_template_says(definition), 60)
    if isinstance(definition, Project):
        return words.shortened(_project_says(definition), 60)
    if isinstance(definition, AlertRule):
        return condition(definition)
    return words.shortened(
        ", ".join(f"{term} {weight:g}" for term, weight in definition.weights.items()), 60
    )


def _template_says(template: Template) -> str:
    memory = None if template.memory_mib is None else words.of_mib(template.memory_mib)
    parts = [
        None if template.cpus is None else f"{template.cpus} CPU",
        memory,
        *(disk.image for disk in template.disks or ()),
        template.project and f"project {template.project}",
        template.policy and f"policy {template.policy}",
    ]
    return ", ".join(part for part in parts if part) or words.NOTHING


def _project_says(project: Project) -> str:
    quota = project.quota
    parts = [
        project.policy and f"policy {project.policy}",
        None if quota.vms is None else f"{quota.vms} VMs",
        None if quota.cpus is None else f"{quota.cpus} CPUs",
        None if quota.memory_mib is None else words.of_mib(quota.memory_mib),
        None if quota.disk_gib is None else f"{words.of_mib(quota.disk_gib * MIB_PER_GIB)} of disk",
    ]
    return ", ".join(part for part in parts if part) or words.NOTHING
