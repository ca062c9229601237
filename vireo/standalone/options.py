"""What `vireo up` can be told, and where it keeps things. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from schemas.ids import HostName, SiteName, is_name

Port = Annotated[int, Meta(ge=1, le=65_535)]


class HostOption(Struct, frozen=True, kw_only=True):
    """A hypervisor to run an agent for: its name in the fleet and its libvirt URI."""

    name: HostName
    uri: str


class UpOptions(Struct, frozen=True, kw_only=True):
    """How one machine's Vireo is to be."""

    state_dir: Path
    """Kept across restarts: the bus's streams, the database, credentials, settings, logs."""
    hosts: tuple[HostOption, ...]
    """One agent each."""
    site: SiteName = "default"
    gateway_address: str = "127.0.0.1"
    gateway_port: Port = 8470
    nats_port: Port = 4222
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 9470
    """Where Prometheus scrapes, on loopback; 0: nowhere."""
    image_dir: Path | None = None
    """Where base images lie; by default `images` in the state directory."""
    system_user: str = "vireo"
    """Whom Postgres runs as when we are root; it refuses to be root. Made if it does not exist."""
    log_level: str = "info"
    trace_file: Path | None = None
    settings: Mapping[str, Mapping[str, Any]] = {}
    """More settings by service, as in its TOML file: `{"hostagent": {"domain_type": "qemu"}}`."""

    @property
    def images(self) -> Path:
        return self.image_dir or self.state_dir / "images"

    @property
    def gateway_url(self) -> str:
        address = self.gateway_address
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(  # noqa: S104
            address, f"[{address}]" if ":" in address else address
        )
        return f"http://{shown}:{self.gateway_port}"

    @property
    def metrics_url(self) -> str | None:
        """None where nothing is served, or where settings of one's own say where."""
        if self.metrics_port == 0 or "prometheus" in self.settings.get("metrics", {}):
            return None
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def admin_token_file(self) -> Path:
        return self.state_dir / "credentials" / "admin.token"


class BadOption(ValueError):
    """An option cannot be used; the text names it."""


def host_option(text: str) -> HostOption:
    """`NAME=URI` as given on the command line. Raises BadOption."""
    name, separator, uri = text.partition("=")
    if not separator or not uri:
        raise BadOption(f"--host {text!r}: expected NAME=URI")
    if not is_name(name):
        raise BadOption(
            f"--host {text!r}: {name!r} is no host name (a-z, 0-9, hyphens, at most 63)"
        )
    return HostOption(name=name, uri=uri)


def default_state_dir(environ: Mapping[str, str], *, root: bool) -> Path:
    """`VIREO_STATE_DIR`, else `/var/lib/vireo` for root, else under the user's own state directory."""
    if chosen := environ.get("VIREO_STATE_DIR"):
        return Path(chosen)
    if root:
        return Path("/var/lib/vireo")
    state = environ.get("XDG_STATE_HOME") or str(
        Path(environ.get("HOME", "/")) / ".local" / "state"
    )
    return Path(state) / "vireo"
