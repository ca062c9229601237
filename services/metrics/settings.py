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


class MetricsSettings(ChassisSettings, frozen=True, kw_only=True):
    """Settings of the metrics service."""

    prometheus: PrometheusSettings = PrometheusSettings()
    max_hosts: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most hosts whose readings are kept; frames of further ones are dropped and counted."""
    stale_s: Annotated[float, Meta(gt=0, le=86_400)] = 60
    """After so long without a frame a host's readings are forgotten."""
    unread_frames: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Most frames that may wait to be read; beyond it the oldest go."""
    requests: Annotated[int, Meta(ge=1, le=10_000)] = 64
    """Most requests of one endpoint that are worked on at once."""
