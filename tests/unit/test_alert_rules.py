"""Alert rules: what they measure, when they fire, when they are well again. All times are given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from schemas.alerts import AlertRule, Silence
from schemas.definition_faults import faults_of
from schemas.metric_labels import METRIC_LABELS
from schemas.shipped import shipped_rules
from schemas.wire import encode
from services.metrics.alert_rules import Measures, Rules, Unreadable
from services.metrics.alert_states import (
    Key,
    Limits,
    Tracked,
    evaluate,
    event_id,
    is_done,
    to_say,
    to_tell,
    trial,
)
from services.metrics.exposition import LABELS
from services.metrics.families import Family, Metric, labelled

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
H1, H2 = labelled(host="h1", site="lab"), labelled(host="h2", site="lab")
SILENT = AlertRule(
    name="silent", metric="vireo_host_online", below=1, for_s=60, summary="{host} is silent"
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def family(name: str, values: Mapping[tuple[tuple[str, str], ...], float]) -> Family:
    metric = Metric(name=name, help="", value=lambda _: None)
    return Family(metric=metric, samples=tuple(values.items()))


class Story:
    """One rule, looked at again and again."""

    def __init__(self, rule: AlertRule, *, most: int = 100, gone_s: float = 300) -> None:
        self.rules: tuple[AlertRule, ...] = (rule,)
        self.measures = Measures(self.rules, most=10)
        self.limits = Limits(most=most, gone_s=gone_s)
        self.tracked: dict[Key, Tracked] = {}
        self.well: set[Key] = set()

    def look(self, seconds: float, *families: Family) -> list[tuple[str, str]]:
        """The phase of each alert, by its summary."""
        now = at(seconds)
        measured = self.measures.of(families, now=now)
        self.tracked = evaluate(
            self.rules, measured, self.tracked, self.well, now=now, limits=self.limits
        )
        return [(each.alert.summary, each.alert.phase) for _, each in sorted(self.tracked.items())]

    def online(self, seconds: float, **hosts: float) -> list[tuple[str, str]]:
        values = {labelled(host=name, site="lab"): value for name, value in hosts.items()}
        return self.look(seconds, family("vireo_host_online", values))


def test_it_fires_once_it_has_been_bad_for_long_enough() -> None:
    story = Story(SILENT)
    assert story.online(0, h1=1, h2=1) == []
    assert story.online(15, h1=0, h2=1) == [("h1 is silent", "pending")]
    assert story.online(60, h1=0, h2=1) == [("h1 is silent", "pending")]
    assert story.online(75, h1=0, h2=1) == [("h1 is silent", "firing")]
    assert story.online(90, h1=1, h2=1) == [("h1 is silent", "resolved")]


def test_a_moment_of_being_well_begins_the_wait_anew() -> None:
    story = Story(SILENT)
    story.online(0, h1=0)
    assert story.online(30, h1=1) == []
    story.online(45, h1=0)
    assert story.online(75, h1=0) == [("h1 is silent", "pending")]


def test_it_is_over_only_beyond_the_mark_that_says_so() -> None:
    rule = AlertRule(
        name="behind",
        metric="vireo_plane_messages_behind",
        above=1000,
        clear=100,
        summary="behind",
    )
    story = Story(rule)
    phases = [
        [phase for _, phase in story.look(n, family(rule.metric or "", {(): value}))]
        for n, value in enumerate((900.0, 1001.0, 999.0, 101.0, 100.0))
    ]
    assert phases == [[], ["firing"], ["firing"], ["firing"], ["resolved"]]


def test_what_is_not_measured_any_more_stays_for_a_while_and_is_over_then() -> None:
    story = Story(SILENT, gone_s=100)
    story.online(0, h1=0)
    story.online(60, h1=0)
    assert story.look(120) == [("h1 is silent", "firing")]
    assert story.look(160) == [("h1 is silent", "resolved")]


def test_no_more_alerts_are_looked_after_than_may_be() -> None:
    story = Story(SILENT, most=2)
    assert len(story.online(0, h1=0, h2=0, h3=0)) == 2


def test_what_never_was_well_can_be_left_alone() -> None:
    rule = AlertRule(
        name="gone", metric="vireo_guest_agent_up", below=1, was_well=True, summary="{vm}"
    )
    story = Story(rule)
    one, other = labelled(vm="v1", host="h1"), labelled(vm="v2", host="h1")
    assert story.look(0, family("vireo_guest_agent_up", {one: 0, other: 1})) == []
    assert story.look(15, family("vireo_guest_agent_up", {one: 0, other: 0})) == [("v2", "firing")]


def test_shares_are_of_the_series_with_the_same_labels() -> None:
    rule = AlertRule(
        name="filling",
        metric="vireo_host_disk_free_bytes",
        of="vireo_host_disk_size_bytes",
        below=0.1,
        where={"site": "lab"},
        summary="{host}",
    )
    found = Story(rule).look(
        0,
        family("vireo_host_disk_free_bytes", {H1: 5, H2: 50, labelled(host="h3", site="x"): 0}),
        family("vireo_host_disk_size_bytes", {H1: 100, H2: 100}),
    )
    assert found == [("h1", "firing")]


def test_growth_counts_within_its_window_and_a_counter_may_begin_anew() -> None:
    rule = AlertRule(
        name="letters",
        metric="vireo_plane_dead_letters_total",
        grown_within_s=100,
        above=0,
        summary="letters",
    )
    story = Story(rule)
    phases = [
        [phase for _, phase in story.look(n * 50, family(rule.metric or "", {(): value}))]
        for n, value in enumerate((5.0, 5.0, 6.0, 6.0, 6.0, 2.0))
    ]
    assert phases == [[], [], ["firing"], ["firing"], ["resolved"], ["firing"]]


def test_events_count_for_a_while() -> None:
    rule = AlertRule(
        name="crash", event="vm.crashed", grown_within_s=100, above=0, summary="{id} died"
    )
    story = Story(rule, gone_s=0)
    story.measures.happened("vm.crashed", labelled(kind="vm", id="v1"), at=at(0))
    story.measures.happened("vm.started", labelled(kind="vm", id="v2"), at=at(0))
    assert story.look(50) == [("v1 died", "firing")]
    assert story.look(150) == [("v1 died", "resolved")]


def test_an_age_is_how_long_ago_a_time_was() -> None:
    rule = AlertRule(
        name="quiet",
        metric="vireo_guest_last_sample_timestamp_seconds",
        age=True,
        above=300,
        summary="quiet",
    )
    told = family(rule.metric or "", {(): START.timestamp()})
    assert (Story(rule).look(300, told), Story(rule).look(301, told)) == ([], [("quiet", "firing")])


def test_a_silenced_alert_is_said_and_told_to_nobody_until_the_silence_ends() -> None:
    story = Story(SILENT)
    story.online(0, h1=0)
    story.online(60, h1=0)
    tracked = next(iter(story.tracked.values()))
    silences = {"silent": Silence(rule="silent", until=at(100))}
    assert to_say(tracked)
    assert not to_tell(tracked, silences, at(99))
    assert to_tell(tracked, silences, at(100))


def test_who_was_told_of_nothing_is_not_told_that_it_is_over() -> None:
    story = Story(SILENT)
    for seconds, value in ((0, 0), (60, 0), (75, 1)):
        story.online(seconds, h1=value)
    tracked = next(iter(story.tracked.values()))
    assert (tracked.alert.phase, to_tell(tracked, {}, at(75))) == ("resolved", False)
    assert not is_done(tracked)


def test_each_time_an_alert_fires_its_event_has_an_id_of_its_own() -> None:
    story = Story(SILENT)
    story.online(0, h1=0)
    story.online(60, h1=0)
    first = next(iter(story.tracked.values()))
    story.online(75, h1=1)
    over = next(iter(story.tracked.values()))
    story.online(90, h1=0)
    story.online(150, h1=0)
    second = next(iter(story.tracked.values()))
    assert event_id(first) == event_id(first)
    assert len({event_id(each) for each in (first, over, second)}) == 3


GOOD = AlertRule(name="a", metric="vireo_host_online", below=1, summary="{host}")


@pytest.mark.parametrize(
    ("rule", "faults"),
    [
        (GOOD, {}),
        (replace(GOOD, metric=None), {"/metric": "either"}),
        (replace(GOOD, event="vm.crashed"), {"/metric": "either", "/grown_within_s": "needs it"}),
        (replace(GOOD, below=None), {"/above": "either"}),
        (replace(GOOD, above=1), {"/above": "either"}),
        (replace(GOOD, metric="vireo_nothing"), {"/metric": "vireo_nothing"}),
        (replace(GOOD, of="vireo_nothing"), {"/of": "vireo_nothing"}),
        (
            replace(GOOD, metric=None, event="vm.exploded", grown_within_s=9, summary="{id}"),
            {"/event": "vm.exploded"},
        ),
        (replace(GOOD, summary="{pool}"), {"/summary": "labels host, site"}),
        (replace(GOOD, summary="{0}"), {"/summary": "labels host, site"}),
        (replace(GOOD, where={"pool": "a"}), {"/where/pool": "labels are host, site"}),
        (replace(GOOD, clear=0), {"/clear": "good side"}),
        (replace(GOOD, age=True, grown_within_s=9), {"/age": "either"}),
    ],
)
def test_every_fault_of_a_rule_is_found_with_its_field(
    rule: AlertRule, faults: dict[str, str]
) -> None:
    found = {each.field: each.detail for each in faults_of(rule)}
    assert found.keys() == faults.keys()
    assert all(part in found[field] for field, part in faults.items())


def test_rules_may_be_about_what_is_told_and_nothing_else() -> None:
    assert METRIC_LABELS == LABELS


def test_the_rules_that_come_with_vireo_are_good() -> None:
    for name, rule in shipped_rules().items():
        assert (rule.name, rule.version, [*faults_of(rule)]) == (name, 1, [])


def test_prometheus_rules_about_what_is_told_here_come_with_vireo_too() -> None:
    path = Path(__file__).parents[2] / "deploy/prometheus/rules.yml"
    groups = yaml.safe_load(path.read_text())["groups"]
    theirs = {rule["alert"].lower() for group in groups for rule in group["rules"]}
    ours = {name.replace("-", "") for name in shipped_rules()}
    assert theirs - ours == {"fleetunseen"}


def test_what_people_define_counts_over_what_comes_with_vireo() -> None:
    rules = Rules({"a": GOOD, "silent": SILENT})
    mine = replace(GOOD, summary="mine")
    rules.learn("a", encode(mine))
    rules.learn("silent", encode(replace(SILENT, enabled=False)))
    assert [*rules.in_force] == [mine]
    rules.learn("a", None)
    rules.learn("silent", None)
    assert [*rules.in_force] == [GOOD, SILENT]


@pytest.mark.parametrize("data", [b"{", encode(replace(GOOD, metric="vireo_of_tomorrow"))])
def test_a_rule_that_is_not_understood_leaves_the_one_before_in_force(data: bytes) -> None:
    rules = Rules({})
    rules.learn("a", encode(GOOD))
    with pytest.raises(Unreadable):
        rules.learn("a", data)
    assert rules.in_force == (GOOD,)


def test_a_rule_that_is_changed_counts_growth_anew_and_the_others_go_on() -> None:
    letters = AlertRule(
        name="letters",
        metric="vireo_plane_dead_letters_total",
        grown_within_s=100,
        above=0,
        summary="letters",
    )
    gaps = replace(letters, name="gaps", metric="vireo_plane_messages_behind")
    measures = Measures((gaps, letters), most=10)

    def grown(seconds: float, value: float) -> dict[str, list[float]]:
        told = [family(name, {(): value}) for name in (letters.metric or "", gaps.metric or "")]
        return {k: [*v.values()] for k, v in measures.of(told, now=at(seconds)).items()}

    grown(0, 1.0)
    measures.use((gaps, replace(letters, above=5)))
    assert grown(10, 4.0) == {"gaps": [3.0], "letters": [0.0]}


def test_an_alert_of_a_rule_that_is_removed_is_over_at_once() -> None:
    story = Story(SILENT)
    story.online(0, h1=0)
    assert story.online(60, h1=0) == [("h1 is silent", "firing")]
    story.rules = ()
    story.measures.use(())
    assert story.online(75, h1=0) == [("h1 is silent", "resolved")]


def test_a_trial_shows_what_is_bad_first_and_counts_what_is_too_much() -> None:
    hosts = {labelled(host=f"h{n}", site="lab"): float(n != 2) for n in range(1, 4)}
    measured = Measures((SILENT,), most=1).of([family("vireo_host_online", hosts)], now=START)
    found = trial(SILENT, measured["silent"], most=2)
    assert (found.measured, found.bad) == (3, 1)
    assert [(each.labels["host"], each.bad) for each in found.findings] == [
        ("h2", True),
        ("h1", False),
    ]
    assert found.findings[0].summary == "h2 is silent"
