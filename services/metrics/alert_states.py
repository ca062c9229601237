"""What becomes of alerts: pending, firing, resolved. Pure: measured values and the time come in.

What belongs here: the states. Saying and sending them is `alerts`', what a rule measures `alert_rules`'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from schemas.alerts import Alert, AlertRule, Finding, RuleTrial, Silence
from schemas.ids import uuid7
from services.metrics.alert_rules import Series, summary_of
from services.metrics.families import Labels


class Tracked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An alert, with what was done about it."""

    alert: Alert
    measured_at: datetime
    said: str = ""
    """The last phase that an event told of."""
    told: str = ""
    """The last phase that was sent."""


Key = tuple[str, Labels]

MOST_WELL = 100_000
"""Beyond it only those are remembered as well that are still there."""


class Kept(Struct, frozen=True, kw_only=True):
    """All that outlives a restart. Pending ones begin anew: they were nobody's news yet."""

    tracked: tuple[Tracked, ...] = ()
    silences: dict[str, Silence] = {}


class Limits(Struct, frozen=True, kw_only=True):
    """`most` alerts at a time; one whose thing is not measured any more is resolved after `gone_s`."""

    most: int
    gone_s: float


def key_of(tracked: Tracked) -> Key:
    return tracked.alert.rule, tuple(sorted(tracked.alert.labels.items()))


def evaluate(
    rules: tuple[AlertRule, ...],
    measured: Mapping[str, Series],
    before: Mapping[Key, Tracked],
    well: set[Key],
    *,
    now: datetime,
    limits: Limits,
) -> dict[Key, Tracked]:
    """The alerts after one look. `well` is what was ever seen well, and is added to."""
    after: dict[Key, Tracked] = {}
    seen: set[Key] = set()
    for rule in rules:
        for labels, value in sorted(measured.get(rule.name, {}).items()):
            key = (rule.name, tuple(sorted(labels)))
            seen.add(key)
            found = _after(rule, key, before.get(key), value, well, now)
            if found is not None and (key in before or len(after) < limits.most):
                after[key] = found
    if len(well) > MOST_WELL:
        well &= seen
    names = {rule.name for rule in rules}
    for key, tracked in before.items():
        if key not in seen:
            kept = _unseen(tracked, now, limits if key[0] in names else replace(limits, gone_s=0))
            if kept is not None:
                after[key] = kept
    return after


def _after(
    rule: AlertRule,
    key: Key,
    before: Tracked | None,
    value: float,
    well: set[Key],
    now: datetime,
) -> Tracked | None:
    fires = before is not None and before.alert.phase == "firing"
    if not is_bad(rule, value, fires=fires):
        if rule.was_well:
            well.add(key)
        return _resolved(before, value, now)
    if rule.was_well and before is None and key not in well:
        return None
    if before is None or before.alert.phase == "resolved":
        before = _begun(rule, key, value, now)
    alert = replace(before.alert, value=value)
    if alert.phase == "pending" and now - alert.since >= timedelta(seconds=rule.for_s):
        alert = replace(alert, phase="firing", fired_at=now)
    return replace(before, alert=alert, measured_at=now)


def is_bad(rule: AlertRule, value: float, *, fires: bool = False) -> bool:
    """Once it fires it is bad until the value is beyond `clear`."""
    clears = rule.clear if fires and rule.clear is not None else None
    if rule.above is not None:
        return value > (rule.above if clears is None else clears)
    assert rule.below is not None
    return value < (rule.below if clears is None else clears)


def trial(rule: AlertRule, measured: Series, *, most: int) -> RuleTrial:
    """What a rule finds on one look; at most so many things, the bad first."""
    findings = [
        Finding(
            labels=dict(labels),
            value=value,
            bad=is_bad(rule, value),
            summary=summary_of(rule, dict(labels)),
        )
        for labels, value in sorted(measured.items())
    ]
    findings.sort(key=lambda finding: not finding.bad)
    return RuleTrial(
        findings=tuple(findings[:most]),
        measured=len(findings),
        bad=sum(finding.bad for finding in findings),
    )


def _begun(rule: AlertRule, key: Key, value: float, now: datetime) -> Tracked:
    labels = dict(key[1])
    alert = Alert(
        rule=rule.name,
        labels=labels,
        severity=rule.severity,
        phase="pending",
        since=now,
        value=value,
        summary=summary_of(rule, labels),
        description=rule.description,
    )
    return Tracked(alert=alert, measured_at=now)


def _resolved(before: Tracked | None, value: float, now: datetime) -> Tracked | None:
    """What never fired is forgotten; what was said and sent to be over, too."""
    if before is None or before.alert.phase == "pending":
        return None
    if before.alert.phase == "resolved":
        return None if is_done(before) else before
    alert = replace(before.alert, phase="resolved", value=value, resolved_at=now)
    return replace(before, alert=alert, measured_at=now)


def _unseen(tracked: Tracked, now: datetime, limits: Limits) -> Tracked | None:
    """Not to be measured is not to be well: for a while it stays as it was."""
    gone = (now - tracked.measured_at).total_seconds() >= limits.gone_s
    if tracked.alert.phase == "resolved" or gone:
        return _resolved(tracked, tracked.alert.value, now)
    return tracked


def is_done(tracked: Tracked) -> bool:
    """Whether nothing is left to say of one that is over. Whom nobody was told of needs no end."""
    return tracked.said == "resolved" and tracked.told in ("", "resolved")


def to_say(tracked: Tracked) -> bool:
    """Whether an event is due."""
    return tracked.alert.phase != "pending" and tracked.said != tracked.alert.phase


def to_tell(tracked: Tracked, silences: Mapping[str, Silence], now: datetime) -> bool:
    """Whether somebody is to be told now."""
    phase = tracked.alert.phase
    if phase == "pending" or tracked.told == phase or is_silenced(tracked.alert, silences, now):
        return False
    return phase == "firing" or tracked.told == "firing"


def is_silenced(alert: Alert, silences: Mapping[str, Silence], now: datetime) -> bool:
    silence = silences.get(alert.rule)
    return silence is not None and now < silence.until


def event_id(tracked: Tracked) -> str:
    """The same however often it is said: of this alert, this time, this phase."""
    alert = tracked.alert
    at = alert.resolved_at if alert.phase == "resolved" else alert.fired_at
    assert at is not None
    about = repr((key_of(tracked), alert.phase, alert.since.isoformat()))
    return uuid7(int(at.timestamp() * 1000), hashlib.sha256(about.encode()).digest()[:10])


def kept_of(tracked: Mapping[Key, Tracked], silences: Mapping[str, Silence]) -> Kept:
    return Kept(
        tracked=tuple(each for _, each in sorted(tracked.items()) if each.alert.phase != "pending"),
        silences={rule: silences[rule] for rule in sorted(silences)},
    )


def shown(
    tracked: Mapping[Key, Tracked], silences: Mapping[str, Silence], now: datetime
) -> Iterator[Alert]:
    """Those that fire first, then those that may; each that is silenced says so."""
    for _, each in sorted(tracked.items(), key=lambda item: (item[1].alert.phase, item[0])):
        if each.alert.phase != "resolved":
            yield replace(each.alert, silenced=is_silenced(each.alert, silences, now))
