"""From metrics and events to the numbers that alert rules are about. Pure.

What belongs here: which rules count, and what one measures now. Whether that is bad, and for how long, is
`alert_states`'.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from schemas.alerts import AlertRule
from schemas.definition_faults import faults_of, labels_of
from services.metrics.families import Family, Labels

Series = Mapping[Labels, float]

POINTS = 20
"""A window of growth is remembered by so many looks, however often is looked."""


class Unreadable(Exception):
    """A rule that is not understood here, and why: somebody newer may have defined it."""


class Rules:
    """Those that people define over those that come with Vireo."""

    def __init__(self, shipped: Mapping[str, AlertRule]) -> None:
        self._shipped = shipped
        self._defined: dict[str, AlertRule] = {}

    def learn(self, name: str, data: bytes | None) -> None:
        """A rule as it is kept, or (None) that it was removed. Raises Unreadable, and then the one before
        stays in force."""
        if data is None:
            self._defined.pop(name, None)
        else:
            self._defined[name] = _understood(data)

    @property
    def in_force(self) -> tuple[AlertRule, ...]:
        """By name."""
        known = {**self._shipped, **self._defined}
        return tuple(known[name] for name in sorted(known) if known[name].enabled)


def _understood(data: bytes) -> AlertRule:
    try:
        rule = msgspec.json.decode(data, type=AlertRule)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from error
    if faults := [f"{fault.field}: {fault.detail}" for fault in faults_of(rule)]:
        raise Unreadable("; ".join(faults))
    return rule


def summary_of(rule: AlertRule, labels: Mapping[str, str]) -> str:
    """A label that a series does not have is told as nothing."""
    return rule.summary.format_map({**dict.fromkeys(labels_of(rule), ""), **labels})


def metrics_of(rules: Iterable[AlertRule]) -> frozenset[str]:
    return frozenset(name for rule in rules for name in (rule.metric, rule.of) if name)


class _Point(Struct, frozen=True):
    at: datetime
    series: Series


class Measures:
    """What rules measure. Remembers what growth is counted from; of more than `most` events the oldest
    are forgotten. One thread may measure while another tells what happened."""

    def __init__(self, rules: tuple[AlertRule, ...] = (), *, most: int) -> None:
        self.rules = rules
        self._points: dict[str, deque[_Point]] = {}
        self._events: deque[tuple[datetime, str, Labels]] = deque(maxlen=most)

    def use(self, rules: tuple[AlertRule, ...]) -> None:
        """Measure these from now on. One that says something else than before counts growth anew."""
        same = {rule.name for rule in rules if rule in self.rules}
        self._points = {name: points for name, points in self._points.items() if name in same}
        self.rules = rules

    def happened(self, name: str, labels: Labels, *, at: datetime) -> None:
        self._events.append((at, name, labels))

    def of(self, families: Iterable[Family], *, now: datetime) -> dict[str, Series]:
        """By rule, of each thing that its labels name."""
        told = {family.metric.name: dict(family.samples) for family in families}
        return {rule.name: self._of(rule, told, now) for rule in self.rules}

    def _of(self, rule: AlertRule, told: Mapping[str, Series], now: datetime) -> Series:
        if rule.metric is None:
            return self._counted(rule, now)
        series = {
            labels: value
            for labels, value in told.get(rule.metric, {}).items()
            if rule.where.items() <= dict(labels).items()
        }
        if rule.of is not None:
            return _shares(series, told.get(rule.of, {}))
        if rule.age:
            return {labels: now.timestamp() - value for labels, value in series.items()}
        return self._grown(rule, series, now) if rule.grown_within_s else series

    def _counted(self, rule: AlertRule, now: datetime) -> Series:
        counts: dict[Labels, float] = {}
        # A copy: what happens meanwhile is written by another thread.
        for at, name, labels in self._events.copy():
            if name == rule.event and rule.where.items() <= dict(labels).items():
                late = (now - at).total_seconds() > rule.grown_within_s
                counts[labels] = counts.get(labels, 0.0) + (0.0 if late else 1.0)
        return counts

    def _grown(self, rule: AlertRule, series: Series, now: datetime) -> Series:
        """Since the oldest point of the window; a counter that is less than it was began anew."""
        points = self._points.setdefault(rule.name, deque())
        if series and (not points or _age_s(points[-1], now) >= rule.grown_within_s / POINTS):
            points.append(_Point(now, series))
        # One point stays that is as old as the window, or older: growth is counted from it.
        while len(points) > 1 and _age_s(points[1], now) >= rule.grown_within_s:
            points.popleft()
        first = points[0].series if points else {}
        return {
            labels: value - before if value >= (before := first.get(labels, value)) else value
            for labels, value in series.items()
        }


def _age_s(point: _Point, now: datetime) -> float:
    return (now - point.at).total_seconds()


def _shares(series: Series, wholes: Series) -> Series:
    return {
        labels: value / whole for labels, value in series.items() if (whole := wholes.get(labels))
    }
