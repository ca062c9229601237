"""What `vireo up` starts, as a value: files to write, processes to run. Pure.

What belongs here: which settings each service gets. Where programs lie and which passwords there are
comes in as arguments.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from msgspec import Struct

from vireo.standalone import nats, postgres
from vireo.standalone.child import Child, Notified, PortAnswers, SocketAnswers
from vireo.standalone.credentials import password_file
from vireo.standalone.options import HostOption, UpOptions
from vireo.standalone.permissions import Permissions, inbox_prefix, of_agent, of_service

SITE_SERVICES = ("inventory", "scheduler", "metrics", "gateway")
DATABASES = {"vireo": "inventory", "vireo_metrics": "metrics"}
"""Database → the role that owns it, named after the service."""


class Programs(Struct, frozen=True, kw_only=True):
    """What is run."""

    python: str
    nats_server: str
    setpriv: str


class PlannedFile(Struct, frozen=True, kw_only=True):
    """A file to write before anything starts, readable by its owner alone: it may hold secrets."""

    path: Path
    text: str


class Plan(Struct, frozen=True, kw_only=True):
    files: tuple[PlannedFile, ...]
    children: tuple[Child, ...]


def credentials_dir(options: UpOptions) -> Path:
    return options.state_dir / "credentials"


def agent_name(host: HostOption) -> str:
    """The name of a host's agent among the children and among the bus's users."""
    return f"hostagent-{host.name}"


def users(options: UpOptions) -> dict[str, Permissions]:
    """The bus's users (the operator apart) with what each may do."""
    services = {service: of_service(service, user=service) for service in SITE_SERVICES}
    agents = {
        agent_name(host): of_agent(site=options.site, host=host.name, user=agent_name(host))
        for host in options.hosts
    }
    return services | agents


def secret_names(options: UpOptions) -> list[str]:
    """Every name that needs a password: of the bus's users and of Postgres' roles."""
    return sorted({*users(options), nats.OPERATOR_USER, postgres.SUPERUSER, *DATABASES.values()})


def plan_children(
    options: UpOptions,
    *,
    programs: Programs,
    place: postgres.Place,
    passwords: Mapping[str, str],
) -> Plan:
    """Everything to write and to run, servers first."""
    services = [_service(service, options, place, programs) for service in SITE_SERVICES]
    agents = [_agent(host, options, programs) for host in options.hosts]
    return Plan(
        files=(
            PlannedFile(
                path=_nats_config(options),
                text=nats.config(
                    port=options.nats_port,
                    store_dir=str(options.state_dir / "nats"),
                    users=users(options),
                    passwords=passwords,
                ),
            ),
            *(file for file, _ in services),
            *(file for file, _ in agents),
        ),
        children=(
            _nats(options, programs),
            _postgres(place, programs),
            *(child for _, child in services),
            *(child for _, child in agents),
        ),
    )


def _nats_config(options: UpOptions) -> Path:
    return options.state_dir / "config" / "nats.conf"


def _nats(options: UpOptions, programs: Programs) -> Child:
    leash = postgres.leash(death_signal="TERM", setpriv=programs.setpriv)
    return Child(
        name="nats",
        argv=(*leash, programs.nats_server, "--config", str(_nats_config(options))),
        ready=PortAnswers(nats.ADDRESS, options.nats_port),
    )


def _postgres(place: postgres.Place, programs: Programs) -> Child:
    leash = postgres.leash(
        user=place.user, group=place.group, death_signal="INT", setpriv=programs.setpriv
    )
    return Child(
        name="postgres",
        argv=(*leash, *postgres.argv(place)),
        ready=SocketAnswers(place.socket),
        # Fast shutdown: clients are sent away, what is committed stays.
        stop_signal=signal.SIGINT,
        start_timeout_s=300,
    )


def _service(
    service: str, options: UpOptions, place: postgres.Place, programs: Programs
) -> tuple[PlannedFile, Child]:
    own: dict[str, Any] = {}
    after = ["nats"]
    if service in DATABASES.values():
        after.append("postgres")
    if service == "inventory":
        own["postgres"] = _postgres_table(service, options, place)
        own["signing_key_file"] = str(credentials_dir(options) / "ledger.key")
    if service == "metrics":
        own["history"] = {"keep": True, "postgres": _postgres_table(service, options, place)}
        own["prometheus"] = {"host": nats.ADDRESS, "port": options.metrics_port}
    if service == "gateway":
        own |= {
            "address": options.gateway_address,
            "port": options.gateway_port,
            "admin_token_file": str(options.admin_token_file),
        }
    return _python(service, service, tuple(after), options, own, programs)


def _agent(host: HostOption, options: UpOptions, programs: Programs) -> tuple[PlannedFile, Child]:
    own = {
        "host": host.name,
        "libvirt_uri": host.uri,
        "data_dir": str(options.state_dir / "hosts" / host.name),
        "image_dir": str(options.images),
    }
    # After the scheduler: by then the streams are made, which an agent may not make.
    after = ("nats", "scheduler")
    return _python("hostagent", agent_name(host), after, options, own, programs)


def _postgres_table(service: str, options: UpOptions, place: postgres.Place) -> dict[str, Any]:
    database = next(name for name, owner in DATABASES.items() if owner == service)
    return {
        "host": str(place.socket_dir),
        "port": postgres.PORT,
        "database": database,
        "user": service,
        "password_file": str(password_file(credentials_dir(options), service)),
    }


def _python(
    service: str,
    name: str,
    after: tuple[str, ...],
    options: UpOptions,
    own: Mapping[str, Any],
    programs: Programs,
) -> tuple[PlannedFile, Child]:
    """A service as a child, and its TOML file."""
    file = options.state_dir / "config" / f"{name}.toml"
    settings = merged(_shared(name, options), own)
    settings = merged(settings, options.settings.get(service, {}))
    leash = postgres.leash(death_signal="TERM", setpriv=programs.setpriv)
    child = Child(
        name=name,
        argv=(*leash, programs.python, "-m", f"services.{service}", "--config", str(file)),
        ready=Notified(),
        after=after,
    )
    return PlannedFile(path=file, text=tomli_w.dumps(settings)), child


def _shared(name: str, options: UpOptions) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "site": options.site,
        "nats": {
            "urls": [f"nats://{nats.ADDRESS}:{options.nats_port}"],
            "user": name,
            "password_file": str(password_file(credentials_dir(options), name)),
            "inbox_prefix": inbox_prefix(name),
        },
        "log": {"level": options.log_level, "format": "json"},
    }
    if options.trace_file is not None:
        settings["trace"] = {"file": str(options.trace_file)}
    return settings


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables as one; where both say something, `above` wins, inner tables are merged alike."""
    result = dict(below)
    for key, value in above.items():
        present = result.get(key)
        both = isinstance(present, Mapping) and isinstance(value, Mapping)
        result[key] = merged(present, value) if both and present is not None else value
    return result
