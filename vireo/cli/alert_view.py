"""How alerts look: what fires, the rules, and what a rule would find. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from schemas.alerts import Alert, AlertRule, RuleTrial, Silence
from schemas.definitions import Definition
from vireo.cli.layout import Page, Section, Table
from vireo.cli.words import NOTHING, age, duration, pairs


def alert_table(alerts: Sequence[Alert], *, now: datetime) -> Table:
    return Table(
        columns=("rule", "severity", "state", "since", "value", "what"),
        rows=tuple(
            (
                alert.rule,
                alert.severity,
                f"{alert.phase}, silenced" if alert.silenced else alert.phase,
                age(alert.since, now),
                f"{alert.value:g}",
                alert.summary,
            )
            for alert in alerts
        ),
    )


def rule_table(
    rules: Sequence[Definition[AlertRule]], silences: Sequence[Silence], *, now: datetime
) -> Table:
    silent = {each.rule: (each.until - now).total_seconds() for each in silences}
    return Table(
        columns=("rule", "version", "by", "severity", "bad if", "for", "silent for"),
        rows=tuple(
            (
                each.name,
                str(each.version),
                "shipped" if each.shipped else each.actor or NOTHING,
                *_says(each.definition),
                duration(silent[each.name]) if each.name in silent else NOTHING,
            )
            for each in rules
        ),
    )


def _says(rule: AlertRule | None) -> tuple[str, str, str]:
    if rule is None or not rule.enabled:
        return NOTHING, "not watched over", NOTHING
    return rule.severity, condition(rule), duration(rule.for_s) if rule.for_s else NOTHING


def condition(rule: AlertRule) -> str:
    """`vireo_host_online < 1`, as a person reads it."""
    what = rule.event or rule.metric or ""
    if rule.of is not None:
        what = f"{what} / {rule.of}"
    if rule.age:
        what = f"age of {what}"
    if rule.grown_within_s:
        what = f"{what} in {duration(rule.grown_within_s)}"
    edge = f"> {rule.above:g}" if rule.above is not None else f"< {rule.below:g}"
    return f"{what} {edge}"


def trial_page(rule: AlertRule, trial: RuleTrial) -> Page:
    rows = tuple(
        ("bad" if each.bad else "well", f"{each.value:g}", pairs(each.labels), each.summary)
        for each in trial.findings
    )
    columns = ("now", "value", "of", "what would be said")
    facts = [("bad if", condition(rule)), ("measured", f"{trial.measured}, {trial.bad} bad")]
    if rule.for_s:
        facts.append(("fires", f"once it is bad for {duration(rule.for_s)}"))
    if rule.grown_within_s:
        facts.append(("counts", "from when it is applied: so far it is nothing"))
    table = Table(columns=columns, rows=rows) if rows else None
    return Page(
        title=f"rule {rule.name}",
        sections=(Section(title="What it finds now", facts=tuple(facts), table=table),),
    )
