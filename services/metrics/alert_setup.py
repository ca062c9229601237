"""From settings to what watches over alerts: rules read from their files, destinations named."""

from __future__ import annotations

from pathlib import Path

import yaml

from chassis.service import Rig
from services.metrics.alert_rules import BadRules, Measures, checked, read
from services.metrics.alerts import Alerts, Told
from services.metrics.sending import Send, mailbox, webhook
from services.metrics.settings import AlertSettings

BUILT_IN = Path(__file__).with_name("rules.yaml")
MOST_BYTES = 1 << 20


def alerts(settings: AlertSettings, rig: Rig, told: Told) -> Alerts:
    """Raises BadRules, OSError."""
    return Alerts(
        settings, rig, measures=measures(settings), told=told, sends=destinations(settings)
    )


def measures(settings: AlertSettings) -> Measures:
    """Of one name the rule of one's own counts."""
    files = [BUILT_IN] if settings.built_in else []
    if settings.rules_file is not None:
        files.append(settings.rules_file)
    rules = checked(rule for file in files for rule in read(_values(file)))
    return Measures(rules, most=settings.most_events)


def _values(path: Path) -> object:
    if path.stat().st_size > MOST_BYTES:
        raise BadRules(f"{path} is larger than {MOST_BYTES} bytes")
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise BadRules(f"{path}: {error}") from error


def destinations(settings: AlertSettings) -> dict[str, Send]:
    """By a name that may stand in a log: of an address no more than its place in the settings."""
    found = {f"webhook {n}": webhook(each) for n, each in enumerate(settings.webhooks, start=1)}
    if settings.mail.host is not None and settings.mail.recipients:
        found["mail"] = mailbox(settings.mail, settings.mail.host)
    return found
