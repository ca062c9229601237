"""Alerts: rules over metrics and events, and what they found. Values only.

A rule says of one metric, or of the growth, age or share that is made of it, when it is bad, for how long
it must be, and when it is well again. The metrics service watches over them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import END, Name

Severity = Literal["info", "warning", "critical"]
MetricName = Annotated[str, Meta(pattern=r"^vireo_[a-z0-9_]+" + END, max_length=120)]
EventName = Annotated[str, Meta(pattern=r"^[a-z_]+\.[a-z_]+" + END, max_length=63)]
Text = Annotated[str, Meta(max_length=500)]
Seconds = Annotated[float, Meta(ge=0, le=7 * 86_400)]
SilenceSeconds = Annotated[float, Meta(gt=0, le=366 * 86_400)]


class AlertRule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One rule. `metric` or `event` says what is looked at; `above` or `below` when it is bad."""

    name: Name
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


class ListAlertRules(Struct, frozen=True, kw_only=True):
    """Metrics `alert.rules`: a `Page` of `AlertRule`, by name."""


class ListSilences(Struct, frozen=True, kw_only=True):
    """Metrics `alert.silences`: a `Page` of `Silence`, by rule."""
