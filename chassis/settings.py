"""The settings that every service has, and `load`, which reads them.

A service's own settings are a frozen Struct that inherits from `ChassisSettings` and adds fields with
their limits (`Annotated[int, Meta(ge=1)]`) and a docstring beneath each: the reference for people is
made from these. Reading and naming rules stand in
`chassis.settings_loader`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct

from chassis import settings_loader
from chassis.nats.settings import NatsSettings
from chassis.settings_loader import Fault, SettingsError
from schemas.ids import SiteName

__all__ = [
    "ChassisSettings",
    "Fault",
    "HealthSettings",
    "LogSettings",
    "NatsSettings",
    "SettingsError",
    "TraceSettings",
    "load",
]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]

OVERLOOKED = (
    *("GATEWAY_", "SCHEDULER_", "HOSTAGENT_", "INVENTORY_", "METRICS_"),
    *("CLI_", "UP_", "DEV_", "TEST_", "URL", "TOKEN", "TOKEN_FILE", "CONTEXT", "STATE_DIR"),
)
"""Names after `VIREO_` that a service leaves to its neighbours and to the command line."""


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal, else JSON, one object a line."""


class TraceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where OpenTelemetry spans go; nowhere by default. Trace ids are carried on in any case."""

    otlp_endpoint: str | None = None
    """OTLP/HTTP collector, `http://host:4318/v1/traces` (needs the extra `otlp`)."""
    file: Path | None = None
    """File to append spans to, one JSON object a line."""
    ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the traces begun here that are recorded; those begun elsewhere follow their origin."""


class HealthSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Health and meters by HTTP, for orchestrators; by rpc they are there in any case."""

    host: str = "127.0.0.1"
    """Address to serve health on."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """Port for `/live`, `/ready` and `/metrics`; 0: not served."""


class ChassisSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every service has."""

    site: SiteName = "default"
    """The site that this service belongs to."""
    instance: Annotated[str, Meta(max_length=100)] = ""
    """The name of this process; by default made of the machine's name and the process id."""
    grace_s: Seconds = 20
    """Time to finish what is in hand when told to stop."""
    nats: NatsSettings = NatsSettings()
    log: LogSettings = LogSettings()
    trace: TraceSettings = TraceSettings()
    health: HealthSettings = HealthSettings()


S = TypeVar("S", bound=ChassisSettings)


def load(settings: type[S], *, service: str, file: Path | None, environ: Mapping[str, str]) -> S:
    """A service's settings. Raises SettingsError, which names every fault."""
    return settings_loader.load(
        settings,
        service=service,
        file=file,
        environ=environ,
        shared=ChassisSettings,
        overlook=OVERLOOKED,
    )
