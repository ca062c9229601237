"""What the inventory tells the scheduler when FLEET was lost: all that belongs into it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from schemas.assignments import VmAssignment
from schemas.resources import HostConfig, HostFacts

MOST_RESTORED = 1000
"""VMs, and hosts, of which one command may tell."""


class RestoreFleet(Struct, frozen=True, kw_only=True):
    """Write these to FLEET. What is there and not older stays; what was forgotten stays forgotten."""

    part: Annotated[int, Meta(ge=1)]
    of: Annotated[int, Meta(ge=1)]
    assignments: Annotated[tuple[VmAssignment, ...], Meta(max_length=MOST_RESTORED)] = ()
    configs: Annotated[tuple[HostConfig, ...], Meta(max_length=MOST_RESTORED)] = ()
    hosts: Annotated[tuple[HostFacts, ...], Meta(max_length=MOST_RESTORED)] = ()
    """Last, with all VMs before them: on a host that is not known nothing is placed."""
