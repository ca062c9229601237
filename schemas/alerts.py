"""Alerts: rules over metrics and events, and what they found. Values only.

A rule says of one metric, or of the growth, age or share that is made of it, when it is bad, for how long
it must be, and when it is well again. People define them as they do policies (`schemas.definitions`), and
the metrics service watches over them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import END, Name
from schemas.policies import Version

Severity = Literal["info", "warning", "critical"]
MetricName = Annotated[str, Meta(pattern=r"^vireo_[a-z0-9_]+" + END, max_length=120)]
EventName = Annotated[str, Meta(pattern=r"^[a-z_]+\.[a-z_]+" + END, max_length=63)]
Text = Annotated[str, Meta(max_length=500)]
Seconds = Annotated[float, Meta(ge=0, le=7 * 86_400)]
SilenceSeconds = Annotated[float, Meta(gt=0, le=366 * 86_400)]


class AlertRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule. `metric` or `event` says what is looked at; `above` or `below` when it is bad."""

    name: Name
    version: Version = 0
    enabled: bool = True
    """Whether it is watched over: one that comes with Vireo can be put out of force under its name."""
    metric: MetricName | None = None
    of: MetricName | None = None
    """The share of this one: `metric` divided by it, label by label."""
    where: dict[str, str] = {}
    """Only series with these labels."""
    age: bool = False
    """The metric is a time: how long ago it was."""
    grown_within_s: Seconds = 0
    """The metric is a counter: by how much it grew in the last so many seconds."""
    event: EventName | None = None
    """`vm.crashed`, …: how many of them there were in the last `grown_within_s` seconds."""
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    """It is well again only beyond this, so that a value at the edge does not fire again and again."""
    for_s: Seconds = 0
    """So long it must have been bad."""
    was_well: bool = False
    """Only what was seen to be well before."""
    severity: Severity = "warning"
    summary: Text
    """With the labels in braces: `Host {host} is silent`."""
    description: Text = ""


AlertPhase = Literal["pending", "firing", "resolved"]


class Alert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule that found something, of the thing that the labels name."""

    rule: Name
    labels: dict[str, str]
    severity: Severity
    phase: AlertPhase
    since: datetime
    """It has been bad since then."""
    value: float
    summary: str
    description: str = ""
    fired_at: datetime | None = None
    resolved_at: datetime | None = None
    silenced: bool = False


class Silence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Until then nobody is told of what a rule finds; events say it all the same."""

    rule: Name
    until: datetime
    actor: str = ""
    reason: Text = ""


class ListAlerts(Struct, frozen=True, kw_only=True):
    """Metrics `alert.list`: a `Page` of `Alert`, those that fire first."""


class TryRule(Struct, frozen=True, kw_only=True):
    """Metrics `alert.try`: the `RuleTrial` of a rule, whether anybody applied it or not."""

    rule: AlertRule


class Finding(Struct, frozen=True, kw_only=True):
    """What a rule measures of one thing now."""

    labels: dict[str, str]
    value: float
    bad: bool
    summary: str


class RuleTrial(Struct, frozen=True, kw_only=True):
    """What a rule finds on one look: the bad first. What grows is counted from when a rule is applied, so
    that on one look it is nothing."""

    findings: tuple[Finding, ...] = ()
    measured: int = 0
    """Of so many things it measures something; not all of them are findings where they are too many."""
    bad: int = 0


class ListSilences(Struct, frozen=True, kw_only=True):
    """Metrics `alert.silences`: a `Page` of `Silence`, by rule."""
