"""What `vireo alert` shows."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from schemas.alerts import AlertRule
from schemas.samples import ALERT, ALERT_RULE, AT, RULE_TRIAL, SILENCE, kept
from vireo.cli.alert_view import alert_table, condition, rule_table, trial_page
from vireo.cli.layout import plain_page, plain_table


def test_alerts_say_since_when_and_whether_they_are_silenced() -> None:
    now = AT + timedelta(minutes=3)
    found = plain_table(alert_table([ALERT, replace(ALERT, silenced=True)], now=now))
    assert found == (
        "RULE         SEVERITY  STATE             SINCE  VALUE  WHAT\n"
        "host-silent  critical  firing            3 min  0      Host h1 is silent\n"
        "host-silent  critical  firing, silenced  3 min  0      Host h1 is silent\n"
    )


def test_rules_say_what_is_bad_and_how_long_they_are_silent() -> None:
    now = AT - timedelta(hours=2)
    off = kept(replace(ALERT_RULE, name="off", enabled=False))
    assert plain_table(rule_table([kept(ALERT_RULE), off], [SILENCE], now=now)) == (
        "RULE         VERSION  BY           SEVERITY  BAD IF                 FOR    SILENT FOR\n"
        "host-silent  2        token/admin  critical  vireo_host_online < 1  1 min  2 h\n"
        "off          2        token/admin  -         not watched over       -      -\n"
    )


def test_a_trial_says_what_is_bad_now_and_when_it_would_fire() -> None:
    assert plain_page(trial_page(ALERT_RULE, RULE_TRIAL)) == (
        "rule host-silent\n"
        "\n"
        "What it finds now\n"
        "  bad if    vireo_host_online < 1\n"
        "  measured  1, 1 bad\n"
        "  fires     once it is bad for 1 min\n"
        "  NOW  VALUE  OF                  WHAT WOULD BE SAID\n"
        "  bad  0      host=h1, site=main  Host h1 is silent\n"
    )


def test_conditions_read_as_a_person_would_say_them() -> None:
    rule = AlertRule(name="a", summary="", above=5)
    assert [
        condition(replace(rule, metric="vireo_a", of="vireo_b")),
        condition(replace(rule, metric="vireo_a", age=True)),
        condition(replace(rule, event="vm.crashed", grown_within_s=900)),
    ] == ["vireo_a / vireo_b > 5", "age of vireo_a > 5", "vm.crashed in 15 min > 5"]
