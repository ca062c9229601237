"""The metrics service's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from chassis.postgres import PostgresSettings
from chassis.settings import ChassisSettings
from services.metrics.levels import Level, kept


class PrometheusSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Prometheus scrapes the fleet."""

    host: str = "127.0.0.1"
    """Address to serve `/metrics` on."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 9470
    """Its port; 0: not served."""


class OtlpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The metrics pushed to a collector, for those that cannot scrape."""

    endpoint: str | None = None
    """OTLP/HTTP collector, `http://host:4318/v1/metrics` (needs the extra `otlp`); left out: no push."""
    every_s: Annotated[float, Meta(gt=0, le=3600)] = 30
    """How often they are pushed."""
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 10
    """How long a push may take, its retries included."""
    batch_points: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most values in one request; a push is as many requests as it takes."""


class WatchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the control plane itself is looked at."""

    every_s: Annotated[float, Meta(gt=0, le=3600)] = 15
    """How often services, streams and the record are asked how they are."""
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 3
    """How long one of them may take to answer."""
    most: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most hosts and gaps of the record that are told of."""


class RingsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept in memory, tick by tick."""

    window_s: Annotated[float, Meta(ge=60, le=86_400)] = 3600
    """How far it goes back."""
    memory_mib: Annotated[int, Meta(ge=1, le=1024 * 1024)] = 4096
    """Most memory for all hosts; beyond it the oldest goes. A VM takes some 55 KiB at a tick of 5 s."""
    host_mib: Annotated[int, Meta(ge=1, le=1024 * 1024)] = 256
    """Most memory for one host and its VMs; beyond it, that host's oldest goes."""
    skew_s: Annotated[float, Meta(ge=0, le=3600)] = 30
    """By so much a host's clock may differ from ours; beyond it, frames count as made when they come."""
    block_ticks: Annotated[int, Meta(ge=1, le=10_000)] = 60
    """Ticks for which memory is taken at once."""


class KeepSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many days each level is kept in Postgres: none for less time than a finer one."""

    minutes: Annotated[int, Meta(ge=1, le=90)] = 1
    """One minute's values. A VM takes 0.4 MB a day."""
    half_hours: Annotated[int, Meta(ge=1, le=1830)] = 31
    """Half an hour's."""
    six_hours: Annotated[int, Meta(ge=14, le=7300)] = 366
    """Six hours'."""
    weeks: Annotated[int, Meta(ge=14, le=36_500)] = 3653
    """A week's."""

    def __post_init__(self) -> None:
        self.levels()

    def levels(self) -> tuple[Level, ...]:
        """Raises ValueError."""
        return kept((self.minutes, self.half_hours, self.six_hours, self.weeks))


class HistorySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept in Postgres, and what is answered of it."""

    keep: bool = False
    """Whether to keep the past in Postgres. Else the last hour is all there is."""
    keep_days: KeepSettings = KeepSettings()
    postgres: PostgresSettings = PostgresSettings(user="metrics", pool_max=4)
    settle_s: Annotated[float, Meta(ge=0, le=600)] = 10
    """How long after its end a minute may still be told of before it is stored."""
    batch: Annotated[int, Meta(ge=1, le=100_000)] = 2000
    """Most VMs and hosts in one transaction."""
    vms_per_host: Annotated[int, Meta(ge=1, le=100_000)] = 4096
    """Most VMs of one host that are stored in a minute; what it tells of beyond it is left out, so that a
    host which invents VMs fills no disk."""
    alarm_s: Annotated[float, Meta(ge=60, le=86_400)] = 300
    """After so long without anything stored, a person should look at it."""
    points: Annotated[int, Meta(ge=1, le=10_000)] = 300
    """Into how many steps a time is cut, about, if the question does not say."""
    most_points: Annotated[int, Meta(ge=1, le=10_000)] = 1500
    """Most steps in one answer; it must fit into a message of the bus."""
    most_samples: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Most ticks in one answer to those who watch."""
    watchers: Annotated[int, Meta(ge=1, le=100_000)] = 4096
    """Most who may wait for the next tick at once; beyond it they are answered 503."""


class WebhookSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address that is told of alerts by HTTP POST."""

    url: Annotated[str, Meta(pattern=r"^https?://", max_length=2000)]
    """Where to."""
    secret_file: Path | None = None
    """Signs what is sent, in the header `Vireo-Signature`; left out, nothing is signed."""
    timeout_s: Annotated[float, Meta(gt=0, le=120)] = 10
    """How long it may take to answer."""


class MailSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server by which alerts are mailed, and whom to."""

    host: str | None = None
    """SMTP server; left out, nothing is mailed."""
    port: Annotated[int, Meta(ge=1, le=65_535)] = 587
    """Its port."""
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls` turns to TLS, `tls` begins with it, `none` sends in the clear."""
    user: str | None = None
    """Who logs in, if anybody does."""
    password_file: Path | None = None
    """The password, on its own in a file."""
    sender: str = "vireo@localhost"
    """Whom mails are from."""
    recipients: tuple[str, ...] = ()
    """Whom they go to."""
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 20
    """How long the server may take to answer."""


class AlertSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rules over metrics and events are watched over, and who is told of what they find."""

    enabled: bool = True
    """Whether to watch over rules; of several metrics services only one should."""
    every_s: Annotated[float, Meta(gt=0, le=3600)] = 15
    """How often they are looked at."""
    gone_s: Annotated[float, Meta(ge=0, le=86_400)] = 300
    """An alert whose metric is not told any more is over after so long."""
    most: Annotated[int, Meta(ge=1, le=1000)] = 500
    """Most alerts at a time; further ones are not looked after."""
    most_events: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most events that rules about events remember."""
    webhooks: tuple[WebhookSettings, ...] = ()
    """Who is told by HTTP."""
    mail: MailSettings = MailSettings()
    """Who is told by mail."""
    tries: Annotated[int, Meta(ge=1, le=100)] = 6
    """How often it is tried to tell one of them; then it is left at that, and logged."""
    retry_s: Annotated[float, Meta(gt=0, le=3600)] = 5
    """How long after a first failure it is tried again; twice as long after each further one."""
    senders: Annotated[int, Meta(ge=1, le=64)] = 4
    """Most messages that are on their way at once."""


class MetricsSettings(ChassisSettings, frozen=True, kw_only=True):
    """Settings of the metrics service."""

    prometheus: PrometheusSettings = PrometheusSettings()
    rings: RingsSettings = RingsSettings()
    history: HistorySettings = HistorySettings()
    otlp: OtlpSettings = OtlpSettings()
    watch: WatchSettings = WatchSettings()
    alerts: AlertSettings = AlertSettings()
    max_hosts: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most hosts whose readings are kept; frames of further ones are dropped and counted."""
    stale_s: Annotated[float, Meta(gt=0, le=86_400)] = 60
    """After so long without a frame a host's readings are forgotten."""
    unread_frames: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most frames that may wait to be read; beyond it the oldest go."""
    requests: Annotated[int, Meta(ge=1, le=10_000)] = 64
    """Most requests of one endpoint that are worked on at once."""
