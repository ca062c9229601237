"""What `vireo vm create` is told for cloud-init: files, and the guest agent.

Pure but for `read`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from vireo.cli.spec_file import read_text

UserData = Annotated[
    str | None,
    typer.Option(
        "--user-data", help="What cloud-init does at the first boot; kept secret.", metavar="FILE"
    ),
]
MetaData = Annotated[
    str | None,
    typer.Option(
        "--meta-data", help="For cloud-init, in place of the VM's id and name.", metavar="FILE"
    ),
]
NetworkConfig = Annotated[
    str | None,
    typer.Option("--network-config", help="For cloud-init, in place of DHCP.", metavar="FILE"),
]
GuestAgent = Annotated[
    bool,
    typer.Option(
        "--guest-agent", help="Have cloud-init install the guest agent, beside --user-data."
    ),
]


def read(**paths: str | None) -> dict[str, str]:
    """The content of the files that were named, by the field they are for. Raises ValueError."""
    return {field: read_text(path) for field, path in paths.items() if path is not None}


def over(base: Any, given: Mapping[str, str], *, guest_agent: bool) -> Any:
    """The `cloud_init` of a request: what the spec's file says, if anything, with what was given over it;
    None if nothing was. Raises ValueError."""
    # What is no mapping in a file is left to the server to complain about.
    if not (given or guest_agent) or not isinstance(base, Mapping | None):
        return base
    said = {**(base or {}), **given}
    if guest_agent:
        said["user_data"] = _with_guest_agent(said.get("user_data", ""))
    return said


def _with_guest_agent(user_data: Any) -> Any:
    from vireo import guest_agent

    if not isinstance(user_data, str):
        return user_data
    return guest_agent.user_data(*guest_agent.files(), beside=user_data)
