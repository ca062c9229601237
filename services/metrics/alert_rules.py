"""From metrics and events to the numbers that alert rules are about. Pure.

What belongs here: reading rules, and what a rule measures now. Whether that is bad, and for how long, is
`alert_states`'.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from schemas.alerts import AlertRule
from schemas.subjects import BY_TYPE
from services.metrics.exposition import LABELS
from services.metrics.families import Family, Labels

Series = Mapping[Labels, float]

POINTS = 20
"""A window of growth is remembered by so many looks, however often is looked."""

EVENT_LABELS = ("kind", "id", "source")


class BadRules(Exception):
    """A file of rules that cannot be used, and why."""


def checked(rules: Iterable[AlertRule]) -> tuple[AlertRule, ...]:
    """The rules by name; of one name the last counts. Raises BadRules with every fault."""
    named = {rule.name: rule for rule in rules}
    faults = [f"{rule.name}: {fault}" for rule in named.values() for fault in faults_of(rule)]
    if faults:
        raise BadRules("; ".join(faults))
    return tuple(named[name] for name in sorted(named))


def read(values: object) -> list[AlertRule]:
    """From what a YAML file holds. Raises BadRules."""
    try:
        return msgspec.convert(values, list[AlertRule])
    except msgspec.ValidationError as error:
        raise BadRules(str(error)) from error


def faults_of(rule: AlertRule) -> Iterator[str]:
    if (rule.metric is None) == (rule.event is None):
        yield "either `metric` or `event`"
    if (rule.above is None) == (rule.below is None):
        yield "either `above` or `below`"
    for metric in filter(None, (rule.metric, rule.of)):
        if metric not in LABELS:
            yield f"there is no metric {metric}"
    if rule.event is not None and rule.event not in EVENTS:
        yield f"there is no event {rule.event}"
    if rule.event is not None and not rule.grown_within_s:
        yield "an `event` needs `grown_within_s`"
    if rule.age and rule.grown_within_s:
        yield "either `age` or `grown_within_s`"
    if rule.clear is not None and not _is_beyond(rule, rule.clear):
        yield "`clear` must be on the good side"
    try:
        summary_of(rule, dict.fromkeys(_labels_of(rule), ""))
    except (KeyError, IndexError, ValueError, AttributeError):
        yield f"`summary` may name the labels {', '.join(_labels_of(rule)) or '(none)'}"


EVENTS = frozenset(
    channel.name for channel in BY_TYPE.values() if channel.subject.startswith("vireo.evt.")
)


def _is_beyond(rule: AlertRule, clear: float) -> bool:
    if rule.above is not None:
        return clear <= rule.above
    return rule.below is None or clear >= rule.below


def _labels_of(rule: AlertRule) -> tuple[str, ...]:
    return EVENT_LABELS if rule.metric is None else LABELS.get(rule.metric, ())


def summary_of(rule: AlertRule, labels: Mapping[str, str]) -> str:
    """A label that a series does not have is told as nothing."""
    return rule.summary.format_map({**dict.fromkeys(_labels_of(rule), ""), **labels})


def metrics_of(rules: Iterable[AlertRule]) -> frozenset[str]:
    return frozenset(name for rule in rules for name in (rule.metric, rule.of) if name)


class _Point(Struct, frozen=True):
    at: datetime
    series: Series


class Measures:
    """What rules measure. Remembers what growth is counted from; of more than `most` events the oldest
    are forgotten. One thread may measure while another tells what happened."""

    def __init__(self, rules: tuple[AlertRule, ...], *, most: int) -> None:
        self.rules = rules
        self._points: dict[str, deque[_Point]] = {}
        self._events: deque[tuple[datetime, str, Labels]] = deque(maxlen=most)

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
