"""The members of a command that makes several VMs: which VM and which operation each of them is. Pure.

Whoever knows the command knows its members, so the gateway can tell of their operations before anybody
has decided on them.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from schemas.commands import CreateVm, CreateVms
from schemas.envelope import Envelope
from schemas.ids import derived_id
from schemas.resources import OperationMember
from schemas.subjects import BY_MESSAGE


def members_of(command: str, names: tuple[str, ...]) -> tuple[OperationMember, ...]:
    """The VMs that the command of this id makes, in the order of their names."""
    return tuple(
        OperationMember(
            operation=derived_id(command, f"operation.{place}"),
            vm=derived_id(command, f"vm.{place}"),
            name=name,
        )
        for place, name in enumerate(names)
    )


def creates_of(command: Envelope[CreateVms]) -> tuple[Envelope[Any], ...]:
    """The command as one create for each VM, under the ids of their own operations."""
    wish = command.data
    return tuple(
        replace(
            command,
            id=member.operation,
            type=BY_MESSAGE[CreateVm].type,
            subject=f"vm/{member.vm}",
            operation=member.operation,
            cause=command.id,
            data=CreateVm(
                vm=member.vm,
                spec=replace(wish.spec, name=member.name),
                cloud_init=wish.cloud_init,
            ),
        )
        for member in members_of(command.id, wish.names)
    )
