"""From settings to what watches over alerts: destinations named, rules as they come with Vireo."""

from __future__ import annotations

from chassis.service import Rig
from schemas.shipped import shipped_rules
from services.metrics.alert_rules import Rules
from services.metrics.alerts import Alerts, Told
from services.metrics.sending import Send, mailbox, webhook
from services.metrics.settings import AlertSettings


def alerts(settings: AlertSettings, rig: Rig, told: Told) -> Alerts:
    return Alerts(
        settings, rig, rules=Rules(shipped_rules()), told=told, sends=destinations(settings)
    )


def destinations(settings: AlertSettings) -> dict[str, Send]:
    """By a name that may stand in a log: of an address no more than its place in the settings."""
    found = {f"webhook {n}": webhook(each) for n, each in enumerate(settings.webhooks, start=1)}
    if settings.mail.host is not None and settings.mail.recipients:
        found["mail"] = mailbox(settings.mail, settings.mail.host)
    return found
