"""What `vireo init` writes, as values. Pure: passwords come in as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w
from msgspec import Struct

from schemas.ids import HostName, SiteName
from vireo.standalone import nats
from vireo.standalone.permissions import Permissions, inbox_prefix, of_agent, of_service

SITE_SERVICES = ("inventory", "scheduler", "metrics", "gateway")
DATABASES = {"inventory": "vireo", "metrics": "vireo_metrics"}
"""Whoever has a database of its own, and as whom it goes there: its own name."""
METRICS_ROLE = """\
-- The metrics service's role and database, made if they are not there.
\\set ON_ERROR_STOP on
\\set password `cat /run/vireo/metrics.password`
select 'create role metrics login'
where not exists (select from pg_roles where rolname = 'metrics') \\gexec
alter role metrics password :'password';
select 'create database vireo_metrics owner metrics'
where not exists (select from pg_database where datname = 'vireo_metrics') \\gexec
"""


class TlsFiles(Struct, frozen=True, kw_only=True):
    """Paths as they are on the machine that runs NATS."""

    certificate: str
    key: str
    ca: str


class DeploymentOptions(Struct, frozen=True, kw_only=True):
    """How the parts find one another."""

    hosts: tuple[HostName, ...]
    site: SiteName = "default"
    config_dir: str = "/etc/vireo"
    """Where each process will find its files: `gateway/`, …, and `hostagent/` on each hypervisor."""
    nats_url: str = "nats://127.0.0.1:4222"
    """What services and agents dial."""
    nats_listen: str = "127.0.0.1"
    nats_port: int = 4222
    nats_store: str = "/data"
    """Where NATS keeps streams, on its machine."""
    nats_tls: TlsFiles | None = None
    postgres_host: str = "127.0.0.1"
    """Not the socket: what Debian asks there is the name of the account, which is the unit's own."""
    gateway_address: str = "127.0.0.1"
    gateway_port: int = 8470
    prometheus_address: str = "127.0.0.1"
    libvirt_uri: str = "qemu:///system"


def agent(host: str) -> str:
    """The name of a host's agent: its folder, its user on the bus."""
    return f"hostagent-{host}"


def users(options: DeploymentOptions) -> dict[str, Permissions]:
    """The bus's users, the operator apart."""
    return {name: of_service(name, user=name) for name in SITE_SERVICES} | {
        agent(host): of_agent(site=options.site, host=host, user=agent(host))
        for host in options.hosts
    }


def secret_names(options: DeploymentOptions) -> list[str]:
    """Everyone who has a password on the bus, and the databases' owners."""
    return sorted({*users(options), nats.OPERATOR_USER, "postgres", "postgres-metrics"})


def files(options: DeploymentOptions, passwords: Mapping[str, str]) -> dict[str, str]:
    """Path (relative) to text of every file; all of them hold secrets or name where secrets lie."""
    return {
        "nats/nats.conf": nats.config(
            address=options.nats_listen,
            port=options.nats_port,
            store_dir=options.nats_store,
            users=users(options),
            passwords=passwords,
            tls=_tls_block(options.nats_tls),
        ),
        "operator/vireo.json": nats.natscli_context(
            url=options.nats_url, password=passwords[nats.OPERATOR_USER]
        ),
        "postgres/password": passwords["postgres"] + "\n",
        "postgres/pgpass": f"*:*:*:inventory:{passwords['postgres']}\n",
        "postgres/metrics.password": passwords["postgres-metrics"] + "\n",
        "postgres/metrics.sql": METRICS_ROLE,
        "inventory/postgres.password": passwords["postgres"] + "\n",
        "metrics/postgres.password": passwords["postgres-metrics"] + "\n",
        **{f"{name}/nats.password": passwords[name] + "\n" for name in users(options)},
        **{f"{name}/{name}.toml": _toml(name, options) for name in SITE_SERVICES},
        **{f"{agent(host)}/hostagent.toml": _agent_toml(host, options) for host in options.hosts},
    }


def _tls_block(tls: TlsFiles | None) -> dict[str, Any] | None:
    if tls is None:
        return None
    return {"cert_file": tls.certificate, "key_file": tls.key, "ca_file": tls.ca}


def _toml(service: str, options: DeploymentOptions) -> str:
    return tomli_w.dumps(_shared(service, service, options) | _own(service, options))


def _agent_toml(host: str, options: DeploymentOptions) -> str:
    return tomli_w.dumps(
        _shared(agent(host), "hostagent", options)
        | {"host": host, "libvirt_uri": options.libvirt_uri}
    )


def _shared(user: str, folder: str, options: DeploymentOptions) -> dict[str, Any]:
    bus: dict[str, Any] = {
        "urls": [options.nats_url],
        "user": user,
        "password_file": f"{options.config_dir}/{folder}/nats.password",
        "inbox_prefix": inbox_prefix(user),
    }
    if options.nats_tls is not None:
        bus["tls_ca_file"] = f"{options.config_dir}/ca.pem"
    return {"site": options.site, "nats": bus}


def _own(service: str, options: DeploymentOptions) -> dict[str, Any]:
    """What only one of the services has to be told."""
    if service == "gateway":
        return {
            "address": options.gateway_address,
            "port": options.gateway_port,
            "admin_token_file": "/var/lib/vireo/gateway/admin.token",
        }
    if service == "metrics":
        return {
            "prometheus": {"host": options.prometheus_address},
            "history": {"keep": True, "postgres": _postgres(service, options)},
        }
    if service == "inventory":
        return {
            "postgres": _postgres(service, options),
            "signing_key_file": "/var/lib/vireo/inventory/ledger.key",
        }
    return {}


def _postgres(service: str, options: DeploymentOptions) -> dict[str, Any]:
    return {
        "host": options.postgres_host,
        "database": DATABASES[service],
        "user": service,
        "password_file": f"{options.config_dir}/{service}/postgres.password",
    }
