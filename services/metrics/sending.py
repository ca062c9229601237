"""Who is told of an alert: webhooks and mailboxes. What is sent, and sending it from a thread.

What belongs here: one message to one destination. When and how often is `alerts`'. Secrets are read from
their files at each message, so that they can be changed while the service runs.
"""

from __future__ import annotations

import hashlib
import hmac
import smtplib
import ssl
import urllib.request
from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from http.client import HTTPException
from pathlib import Path

from schemas.alerts import Alert
from schemas.wire import encode
from services.metrics.settings import MailSettings, WebhookSettings

SIGNATURE = "Vireo-Signature"
ANSWER_BYTES = 4096

Failures = (OSError, HTTPException, smtplib.SMTPException, ValueError)
"""What sending may fail with; everything else is a bug."""

Send = Callable[[Alert, datetime], None]


def webhook(settings: WebhookSettings) -> Send:
    """POST the alert as JSON. Raises one of Failures; anything but 2xx is one."""

    def send(alert: Alert, at: datetime) -> None:
        body = encode(alert)
        headers = {"Content-Type": "application/json", "User-Agent": "vireo"}
        if settings.secret_file is not None:
            headers[SIGNATURE] = signature(body, _secret(settings.secret_file), at=at)
        request = urllib.request.Request(settings.url, body, headers, method="POST")  # noqa: S310
        with _opener.open(request, timeout=settings.timeout_s) as answer:
            answer.read(ANSWER_BYTES)

    return send


def signature(body: bytes, secret: str, *, at: datetime) -> str:
    """`t=<Unix seconds>,v1=<HMAC-SHA256 of "<t>." and the body, in hex>`: who knows the secret can tell
    that the message is ours, and that it is not an old one sent again."""
    seconds = int(at.timestamp())
    mac = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
    return f"t={seconds},v1={mac.hexdigest()}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What was signed for one address is not for another."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def mailbox(settings: MailSettings, host: str) -> Send:
    """Send a mail by SMTP. Raises one of Failures."""

    def send(alert: Alert, at: datetime) -> None:
        with _smtp(settings, host) as server:
            if settings.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if settings.user is not None and settings.password_file is not None:
                server.login(settings.user, _secret(settings.password_file))
            server.send_message(mail(alert, settings, at=at))

    return send


def _smtp(settings: MailSettings, host: str) -> smtplib.SMTP:
    if settings.tls == "tls":
        return smtplib.SMTP_SSL(
            host,
            settings.port,
            timeout=settings.timeout_s,
            context=ssl.create_default_context(),
        )
    return smtplib.SMTP(host, settings.port, timeout=settings.timeout_s)


def mail(alert: Alert, settings: MailSettings, *, at: datetime) -> EmailMessage:
    """Headers take no line breaks, and labels may hold anything."""
    message = EmailMessage()
    word = "resolved" if alert.phase == "resolved" else alert.severity
    message["Subject"] = _one_line(f"[vireo] {word}: {alert.summary}")
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.recipients)
    message["Date"] = at
    lines = (
        alert.summary,
        alert.description,
        "",
        f"Rule:   {alert.rule}",
        f"Phase:  {alert.phase}",
        f"Since:  {alert.since.isoformat()}",
        f"Value:  {alert.value:g}",
        *(f"{name}: {_one_line(value)}" for name, value in sorted(alert.labels.items())),
    )
    message.set_content("\n".join(lines) + "\n")
    return message


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _secret(path: Path) -> str:
    text = path.read_text().strip()
    if not text:
        raise ValueError(f"{path} is empty")
    return text
