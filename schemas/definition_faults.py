"""What is wrong with a definition whose fields are good one by one: each mistake with its field. Pure.

What belongs here: what can be said of a definition alone. Whether what it names was defined, the inventory
knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from schemas.alerts import AlertRule
from schemas.definitions import AnyDefinition
from schemas.metric_labels import METRIC_LABELS
from schemas.problems import FieldError

EVENT_LABELS = ("kind", "id", "source")


@cache
def _events() -> frozenset[str]:
    """Asked of alert rules alone: who reads a policy need not load the whole language of the bus."""
    from schemas.subjects import CATALOG

    return frozenset(each.name for each in CATALOG if each.subject.startswith("vireo.evt."))


def faults_of(definition: AnyDefinition) -> Iterator[FieldError]:
    if isinstance(definition, AlertRule):
        yield from _what_is_measured(definition)
        yield from _when_it_is_bad(definition)
        yield from _which_labels_are_named(definition)


def labels_of(rule: AlertRule) -> tuple[str, ...]:
    """Those that a rule's alerts have; none where it is about nothing that there is."""
    if rule.metric is not None:
        return METRIC_LABELS.get(rule.metric, ())
    return EVENT_LABELS if rule.event is not None else ()


def _what_is_measured(rule: AlertRule) -> Iterator[FieldError]:
    if (rule.metric is None) == (rule.event is None):
        yield FieldError(field="/metric", detail="expected either `metric` or `event`")
    for field, metric in (("/metric", rule.metric), ("/of", rule.of)):
        if metric is not None and metric not in METRIC_LABELS:
            yield FieldError(field=field, detail=f"there is no metric {metric}")
    if rule.event is not None and rule.event not in _events():
        yield FieldError(field="/event", detail=f"there is no event {rule.event}")
    if rule.event is not None and not rule.grown_within_s:
        yield FieldError(field="/grown_within_s", detail="an `event` needs it")
    if rule.age and rule.grown_within_s:
        yield FieldError(field="/age", detail="expected either `age` or `grown_within_s`")


def _when_it_is_bad(rule: AlertRule) -> Iterator[FieldError]:
    if (rule.above is None) == (rule.below is None):
        yield FieldError(field="/above", detail="expected either `above` or `below`")
    elif rule.clear is not None and not _is_good(rule, rule.clear):
        yield FieldError(field="/clear", detail="must be on the good side")


def _is_good(rule: AlertRule, clear: float) -> bool:
    if rule.above is not None:
        return clear <= rule.above
    return rule.below is None or clear >= rule.below


def _which_labels_are_named(rule: AlertRule) -> Iterator[FieldError]:
    labels = labels_of(rule)
    if not _is_about_something(rule):
        return
    shown = ", ".join(labels) or "(none)"
    for label in sorted(rule.where.keys() - set(labels)):
        yield FieldError(field=f"/where/{label}", detail=f"the labels are {shown}")
    try:
        rule.summary.format_map(dict.fromkeys(labels, ""))
    except (KeyError, IndexError, ValueError, AttributeError):
        yield FieldError(field="/summary", detail=f"may name the labels {shown}")


def _is_about_something(rule: AlertRule) -> bool:
    return rule.metric in METRIC_LABELS or rule.event in _events()
