"""The settings that every service has, and `load`, which reads them.

A service's own settings are a frozen Struct that inherits from `ChassisSettings` and adds fields, each
an `Annotated[type, Meta(description=…)]` with its limits. Reading and naming rules stand in
`chassis.settings_loader`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct

from chassis import settings_loader
from chassis.secret import Secret
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


class NatsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the bus. At most one way of proving who one is."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            description="Server, `nats://host:port`, `tls://…` or `ws://…`; several with commas",
        ),
    ] = "nats://127.0.0.1:4222"
    user: Annotated[str | None, Meta(description="User name")] = None
    password: Annotated[Secret | None, Meta(description="Its password; better in a file")] = None
    password_file: Annotated[Path | None, Meta(description="File that holds the password")] = None
    token_file: Annotated[Path | None, Meta(description="File that holds a token")] = None
    credentials_file: Annotated[
        Path | None, Meta(description="A `.creds` file: JWT and its key (decentralized auth)")
    ] = None
    nkey_file: Annotated[Path | None, Meta(description="File that holds an nkey seed")] = None
    tls_ca_file: Annotated[
        Path | None, Meta(description="Authorities to trust instead of the system's (PEM)")
    ] = None
    tls_certificate_file: Annotated[
        Path | None, Meta(description="Client certificate (PEM), where the server asks for one")
    ] = None
    tls_key_file: Annotated[Path | None, Meta(description="Its private key (PEM)")] = None
    inbox_prefix: Annotated[
        str | None,
        Meta(description="First part of the subjects for answers; permissions may ask for one"),
    ] = None
    connect_timeout_s: Annotated[Seconds, Meta(description="Patience for one try to connect")] = 5
    reconnect_wait_s: Annotated[Seconds, Meta(description="Pause between two tries")] = 0.5
    publish_timeout_s: Annotated[
        Seconds, Meta(description="Patience for the acknowledgement of a published message")
    ] = 10
    publish_queue: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Messages that may wait to be published")
    ] = 10_000

    def __post_init__(self) -> None:
        ways = {
            "user": self.user,
            "token_file": self.token_file,
            "credentials_file": self.credentials_file,
            "nkey_file": self.nkey_file,
        }
        chosen = [name for name, value in ways.items() if value is not None]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude one another")
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file belong together")


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"],
        Meta(description="`auto`: for people on a terminal, else JSON, one object a line"),
    ] = "auto"


class TraceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where OpenTelemetry spans go; nowhere by default. Trace ids are carried on in any case."""

    otlp_endpoint: Annotated[
        str | None,
        Meta(description="OTLP/HTTP collector, `http://host:4318/v1/traces` (extra `otlp`)"),
    ] = None
    file: Annotated[Path | None, Meta(description="File to append spans to, JSON lines")] = None
    ratio: Annotated[float, Meta(ge=0, le=1, description="Share of new traces to record")] = 1.0


class HealthSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Health and meters by HTTP, for orchestrators; by rpc they are there in any case."""

    host: Annotated[str, Meta(description="Address to serve health on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port for it; 0: not served")] = 0


class ChassisSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every service has."""

    site: Annotated[SiteName, Meta(description="The site that this service belongs to")] = "default"
    instance: Annotated[
        str, Meta(max_length=100, description="Name of this process; default: machine and pid")
    ] = ""
    grace_s: Annotated[
        Seconds, Meta(description="Time to finish what is in hand when told to stop")
    ] = 20
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
