"""`vireo init`: the configuration of Vireo on several machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vireo.cli.options import as_name, parsed
from vireo.cli.printing import show_lines

if TYPE_CHECKING:
    from vireo.deployment.plan import TlsFiles


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Where to write; kept private.")
    ],
    host: Annotated[
        list[str], typer.Option(metavar="NAME", help="A hypervisor's name; may be repeated.")
    ],
    site: Annotated[str, typer.Option(metavar="NAME", help="Name of the site.")] = "default",
    config_dir: Annotated[
        str,
        typer.Option(
            metavar="DIRECTORY", help="Where each process will find the files of its folder."
        ),
    ] = "/etc/vireo",
    nats_url: Annotated[
        str, typer.Option(metavar="URL", help="What services and agents dial.")
    ] = "nats://127.0.0.1:4222",
    nats_listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where NATS listens.")
    ] = "127.0.0.1",
    nats_port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65_535, help="NATS's port.")
    ] = 4222,
    nats_store: Annotated[
        str, typer.Option(metavar="DIRECTORY", help="Where NATS keeps streams, on its machine.")
    ] = "/data",
    nats_tls: Annotated[
        str | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Folder with server.pem, server.key and ca.pem on NATS's machine: turns TLS on.",
        ),
    ] = None,
    postgres_host: Annotated[
        str, typer.Option(metavar="HOST", help="Host name, or directory of the Unix socket.")
    ] = "127.0.0.1",
    gateway_address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the gateway listens.")
    ] = "127.0.0.1",
    gateway_port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65_535, help="The gateway's port.")
    ] = 8470,
    prometheus_address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where metrics serves Prometheus.")
    ] = "127.0.0.1",
    libvirt_uri: Annotated[
        str, typer.Option(metavar="URI", help="The agents' libvirt.")
    ] = "qemu:///system",
) -> None:
    """Write settings, passwords and permissions for Vireo on several machines.

    Every process gets a folder with all that it needs and nothing of the others. Passwords that
    are there already are kept: run it again with one more --host to add a hypervisor.
    """
    from vireo.deployment.plan import DeploymentOptions
    from vireo.deployment.write import write

    options = DeploymentOptions(
        hosts=tuple(parsed("--host", as_name, text) for text in host),
        site=parsed("--site", as_name, site),
        config_dir=config_dir,
        nats_url=nats_url,
        nats_listen=nats_listen,
        nats_port=nats_port,
        nats_store=nats_store,
        nats_tls=None if nats_tls is None else _tls(nats_tls),
        postgres_host=postgres_host,
        gateway_address=gateway_address,
        gateway_port=gateway_port,
        prometheus_address=prometheus_address,
        libvirt_uri=libvirt_uri,
    )
    written = write(directory, options)
    show_lines([str(path) for path in written])


def _tls(directory: str) -> TlsFiles:
    from vireo.deployment.plan import TlsFiles

    return TlsFiles(
        certificate=f"{directory}/server.pem",
        key=f"{directory}/server.key",
        ca=f"{directory}/ca.pem",
    )
