"""The vsock addresses (CIDs) of guests: chosen here, so that a connection's CID says whose it is.

`choose` and `is_outdated` are pure. A VM's CID stands in its own folder (`cid.json`): it stays the same as
long as the VM is on this host, outlives the agent and the domain, and goes when the VM's folder goes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from schemas.ids import VmId
from services.hostagent.hypervisor import HypervisorFailure

RECORD = "cid.json"
LOWEST, HIGHEST = 1 << 20, (1 << 31) - 1
"""Above what libvirt and people count up from 3, so that domains that are not ours are not in the way."""


def choose(vm: VmId, taken: frozenset[int]) -> int:
    """The first that is free, beginning where the VM's id says. Raises HypervisorFailure."""
    size = HIGHEST - LOWEST + 1
    begin = int.from_bytes(hashlib.sha256(vm.encode()).digest()[:8], "big") % size
    for step in range(len(taken) + 1):
        cid = LOWEST + (begin + step) % size
        if cid not in taken:
            return cid
    raise HypervisorFailure("no vsock address is free")


def is_outdated(defined: int | None, *, vsock: bool) -> bool:
    """Whether a definition lacks the device that guests get here, or has one of ours that would keep the
    guest from starting. `defined`: the CID in it; one that somebody else put there is left alone."""
    if vsock:
        return defined is None
    return defined is not None and LOWEST <= defined <= HIGHEST


def held_by(folder: Path) -> int | None:
    """The CID in a VM's record; None where it has none."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=int)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        # Guessing could give one guest's numbers to another.
        raise HypervisorFailure(f"{folder / RECORD} cannot be read: {error}") from error


def held_by_others(folder: Path) -> frozenset[int]:
    """Those of the VMs of all folders beside this one."""
    others = (path.parent for path in folder.parent.glob(f"*/{RECORD}") if path.parent != folder)
    return frozenset(cid for other in others if (cid := held_by(other)) is not None)


def of(vm: VmId, folder: Path) -> int:
    """A VM's CID, on disk before the domain is defined with it. One VM at a time."""
    held = held_by(folder)
    if held is not None:
        return held
    cid = choose(vm, held_by_others(folder))
    unfinished, path = folder / f"{RECORD}.new", folder / RECORD
    with unfinished.open("wb") as file:
        file.write(msgspec.json.encode(cid))
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    return cid
