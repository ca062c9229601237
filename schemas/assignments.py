"""Assignments: the whole desired state of one thing on one host, kept in the bucket FLEET.

An assignment needs no other message to be understood. Its generation only grows. Absence is not an
order: a VM is destroyed only by an assignment with `ended` set.
"""

from __future__ import annotations

from msgspec import Struct

from schemas.cloud_init import CloudInit
from schemas.commands import GraceSeconds
from schemas.ids import HostName, OperationId, VmId
from schemas.resources import Placement, PowerState, StopMode, VmSpec


class VmAssignment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """FLEET key `vm.<vm>.<host>`."""

    vm: VmId
    host: HostName
    generation: int
    spec: VmSpec
    power: PowerState
    operation: OperationId
    """The operation that wrote this generation; the agent ends it."""
    supersedes: OperationId | None = None
    """The operation of the generation before, which the host may not have confirmed."""
    actor: str
    placement: Placement
    cloud_init: CloudInit | None = None
    """Kept as long as the VM: the host that comes back after a month may not have made it yet."""
    stop_mode: StopMode = "graceful"
    """How to stop when power turns to `stopped`, and before the end."""
    grace_s: GraceSeconds = 60
    ended: bool = False
    """The VM is to be destroyed with its disks; kept until the host has confirmed it."""
    traceparent: str | None = None
