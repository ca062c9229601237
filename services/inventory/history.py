"""What a batch of events has changed, so that it is remembered how everything was. Pure.

A version is made of every row that changed and is to be seen. What seldom changes and is long is
remembered only where it changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from services.inventory.model import HostRow, OperationRow, Tables, VmRow


class Turns(Struct, frozen=True, kw_only=True):
    """The ids of rows of which there is something to remember."""

    vms: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    """VMs whose wish, guest or placement is another."""
    born: tuple[str, ...] = ()
    died: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    """Operations that were not known before."""
    placed: tuple[str, ...] = ()
    """Operations whose placement is another."""
    hosts: tuple[str, ...] = ()


def turns(before: Tables, after: Tables) -> Turns:
    """`after` are the rows that changed, `before` what is known of how they were."""
    shown = {id: row for id, row in after.vms.items() if row.spec is not None}
    known = {id: row for id, row in before.vms.items() if row.spec is not None}
    return Turns(
        vms=_ids(shown),
        documents=_ids(id for id, row in shown.items() if _told_anew(known.get(id), row)),
        born=_ids(id for id in shown if id not in known),
        died=_ids(id for id, row in shown.items() if row.deleted and _lived(known.get(id))),
        operations=_ids(after.operations),
        begun=_ids(id for id in after.operations if id not in before.operations),
        placed=_ids(
            id for id, row in after.operations.items() if _placed(before.operations.get(id), row)
        ),
        hosts=_ids(name for name, row in after.hosts.items() if _is_shown(row)),
    )


def _ids(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(found))


def _told_anew(before: VmRow | None, after: VmRow) -> bool:
    if before is None:
        return True
    was = (before.spec, before.guest, before.placement, before.site)
    return was != (after.spec, after.guest, after.placement, after.site)


def _lived(before: VmRow | None) -> bool:
    return before is None or not before.deleted


def _placed(before: OperationRow | None, after: OperationRow) -> bool:
    return after.placement != (None if before is None else before.placement)


def _is_shown(row: HostRow) -> bool:
    return row.facts is not None
