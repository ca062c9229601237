"""`vireo guest-agent`: what puts the guest agent into a guest."""

from __future__ import annotations

from typing import Annotated

import typer

from vireo.cli.options import examples
from vireo.cli.printing import show_lines

app = typer.Typer(no_args_is_help=True, help="Put the guest agent into guests.")

Port = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=2**32 - 2,
        metavar="PORT",
        help="The hosts' `guest_agent.push.port`, where it is not the usual one.",
    ),
]


@app.command(
    "script",
    epilog=examples(
        "vireo guest-agent script | ssh root@web1 sh",
        "vireo guest-agent script | DESTDIR=/mnt/image sh",
    ),
)
def script(port: Port = None) -> None:
    """Print a shell script that installs the guest agent where it is run, as root."""
    from vireo import guest_agent

    show_lines(guest_agent.script(*guest_agent.files(), port=port).splitlines())


@app.command(
    "cloud-init",
    epilog=examples(
        "vireo guest-agent cloud-init > user-data",
        "cloud-localds seed.img user-data",
    ),
)
def cloud_init(port: Port = None) -> None:
    """Print user-data with which cloud-init installs the guest agent at a guest's first boot."""
    from vireo import guest_agent

    show_lines(guest_agent.cloud_config(*guest_agent.files(), port=port).splitlines())
