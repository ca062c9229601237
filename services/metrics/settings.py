"""The metrics service's settings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from chassis.settings import ChassisSettings


class PrometheusSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Prometheus scrapes the fleet."""

    host: str = "127.0.0.1"
    """Address to serve `/metrics` on."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 9470
    """Its port; 0: not served."""


class WatchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the control plane itself is looked at."""

    every_s: Annotated[float, Meta(gt=0, le=3600)] = 15
    """How often services, streams and the record are asked how they are."""
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 3
    """How long one of them may take to answer."""
    most: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most hosts and gaps of the record that are told of."""


class MetricsSettings(ChassisSettings, frozen=True, kw_only=True):
    """Settings of the metrics service."""

    prometheus: PrometheusSettings = PrometheusSettings()
    watch: WatchSettings = WatchSettings()
    max_hosts: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most hosts whose readings are kept; frames of further ones are dropped and counted."""
    stale_s: Annotated[float, Meta(gt=0, le=86_400)] = 60
    """After so long without a frame a host's readings are forgotten."""
    unread_frames: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most frames that may wait to be read; beyond it the oldest go."""
    requests: Annotated[int, Meta(ge=1, le=10_000)] = 64
    """Most requests of one endpoint that are worked on at once."""
