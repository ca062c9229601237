"""PCI devices that guests may have: which of a machine's are offered, and which guest has which.

`offered` and `choose` are pure. Who has what stands in each VM's own folder (`devices.json`, one list of
addresses), so it outlives the agent and the domain, and goes when the VM's folder goes.

What shares an IOMMU group can only be handed over together: a group is one device here, called by its
first address that the settings allow, and the rest of its group goes with it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas.rules import DeviceRequest, HostDevice
from services.hostagent.hypervisor import HypervisorFailure

RECORD = "devices.json"
BRIDGES = "06"
"""The PCI class of bridges: they stand in groups, and are never handed over."""


class PciDevice(Struct, frozen=True, kw_only=True):
    """One function as the machine shows it; hexadecimal digits without `0x`."""

    address: str
    """`0000:41:00.0`"""
    vendor: str
    product: str
    pci_class: str = ""
    """Six digits: class, subclass, interface."""
    group: tuple[str, ...] = ()
    """The addresses of its IOMMU group, its own among them; empty without an IOMMU."""


class Offered(Struct, frozen=True, kw_only=True):
    """What a guest may have as one device."""

    device: HostDevice
    addresses: tuple[str, ...]
    """All that is handed over with it, its own first."""


class Withheld(Struct, frozen=True, kw_only=True):
    """What the settings allow and the machine does not."""

    address: str
    why: str


def offered(
    found: Iterable[PciDevice], allowed: Mapping[str, str], *, elsewhere: frozenset[str]
) -> tuple[tuple[Offered, ...], tuple[Withheld, ...]]:
    """What guests may have, by address. `elsewhere`: addresses that domains have which are not ours."""
    machine = {one.address: one for one in sorted(found, key=lambda one: one.address)}
    given: list[Offered] = []
    kept: list[Withheld] = []
    seen: set[str] = set()
    for one in machine.values():
        name = class_of(one, allowed)
        if name is None or one.address in seen:
            continue
        together = _together(one, machine)
        seen.update(together)
        why = _why_not(one, together, machine, allowed, elsewhere)
        if why:
            kept.append(Withheld(address=one.address, why=why))
        else:
            device = HostDevice(name=name, address=one.address)
            given.append(Offered(device=device, addresses=together))
    return tuple(given), tuple(kept)


def class_of(device: PciDevice, allowed: Mapping[str, str]) -> str | None:
    """The class that a device is asked for by, or None where no pattern matches it."""
    narrow_first = (
        device.address,
        f"{device.vendor}:{device.product}",
        f"{device.vendor}:*",
        *(f"class:{device.pci_class[:digits]}" for digits in (6, 5, 4, 3, 2)),
    )
    for pattern in narrow_first:
        if pattern in allowed:
            return allowed[pattern] or f"{device.vendor}-{device.product}"
    return None


def _together(one: PciDevice, machine: Mapping[str, PciDevice]) -> tuple[str, ...]:
    others = (
        address
        for address in one.group
        if address != one.address
        and (address not in machine or not machine[address].pci_class.startswith(BRIDGES))
    )
    return (one.address, *sorted(others))


def _why_not(
    one: PciDevice,
    together: tuple[str, ...],
    machine: Mapping[str, PciDevice],
    allowed: Mapping[str, str],
    elsewhere: frozenset[str],
) -> str:
    if one.pci_class.startswith(BRIDGES):
        return "it is a bridge"
    if not one.group:
        return "it is in no IOMMU group: the IOMMU is off, or the machine has none"
    if taken := sorted(elsewhere.intersection(together)):
        return f"{', '.join(taken)} is handed to a domain that is not Vireo's"
    slot = one.address.rpartition(".")[0]
    for address in together:
        other = machine.get(address)
        if address.rpartition(".")[0] == slot or (other and class_of(other, allowed) is not None):
            continue
        return f"{address} is in its IOMMU group, and no pattern allows that"
    return ""


def choose(
    wanted: Iterable[DeviceRequest],
    offers: Iterable[Offered],
    *,
    held: tuple[str, ...],
    taken: frozenset[str],
) -> tuple[Offered, ...]:
    """The devices for one VM: those it held before where they still serve, then the first free ones by
    address. Raises HypervisorFailure where there are too few."""
    free = [one for one in offers if one.device.address not in taken]
    free.sort(key=lambda one: (one.device.address not in held, one.device.address))
    chosen: list[Offered] = []
    for name, count in sorted(_sums(wanted).items()):
        fitting = [one for one in free if one.device.name == name][:count]
        if len(fitting) < count:
            raise HypervisorFailure(
                f"{len(fitting)} of {count} devices {name!r} are free on this host"
            )
        chosen += fitting
    return tuple(sorted(chosen, key=lambda one: one.device.address))


def _sums(wanted: Iterable[DeviceRequest]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for one in wanted:
        sums[one.name] += one.count
    return sums


# who has what


def held_by(folder: Path) -> tuple[str, ...]:
    """The addresses in a VM's record; none where it has none."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=tuple[str, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        # Guessing would hand one device to two guests.
        raise HypervisorFailure(f"{folder / RECORD} cannot be read: {error}") from error


def held_by_others(folder: Path) -> frozenset[str]:
    """What the VMs of all folders beside this one hold."""
    records = folder.parent.glob(f"*/{RECORD}")
    others = (path.parent for path in records if path.parent != folder)
    return frozenset(address for other in others for address in held_by(other))


def record(folder: Path, chosen: Iterable[Offered]) -> None:
    """Note what a VM has, on disk before it is given."""
    unfinished, path = folder / f"{RECORD}.new", folder / RECORD
    with unfinished.open("wb") as file:
        file.write(msgspec.json.encode([one.device.address for one in chosen]))
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
