"""One VM's wish, compiled: what it takes of a host, and its rules in the form that columns want.

Pure. Two wishes with the same `shape` see the same hosts, whatever their names and labels are, as long
as no rule about other VMs is in play.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from msgspec import Struct

from schemas.resources import HostFacts, VmSpec
from schemas.rules import Affinity, HostPreference, Spread
from services.scheduler.groups import AntiTerm
from services.scheduler.selectors import Selector, matches, selector

KIB_PER_MIB = 1024
LATELY = 512
"""Wishes that are kept compiled."""

Counted = tuple[str, Any]
"""What is counted by class: `("device", name)`, `("pool", name)`, `("huge", size in KiB)`."""


class Demand(Struct, frozen=True, kw_only=True, gc=False):
    """What a VM takes of a host, or several take together."""

    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    counted: tuple[tuple[Counted, int], ...] = ()
    node: int | None = None
    """The NUMA node that it was promised, by its place in the host's facts."""


class Storage(Struct, frozen=True, gc=False):
    """What the disks in one pool (None: the host's own) take: images may be larger than was asked."""

    pool: str | None
    blank_gib: int
    images: tuple[tuple[str, int], ...]
    """Image and the size asked for, per disk with one."""

    def size_gib(self, images: Mapping[str, int]) -> int:
        """On a host with these images. A disk never gets smaller than its image."""
        return self.blank_gib + sum(max(size, images.get(name, 0)) for name, size in self.images)


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """A `VmSpec` made ready; times and chance are not part of it."""

    spec: VmSpec
    shape: Hashable
    cpus: int
    memory_mib: int
    huge: tuple[int, int] | None
    """Size in KiB of its huge pages, and how many."""
    storage: tuple[Storage, ...]
    images: tuple[str, ...]
    networks: tuple[str, ...]
    devices: tuple[tuple[str, int], ...]
    one_node: bool
    where: Selector
    near: tuple[tuple[Selector, Affinity], ...]
    away: tuple[tuple[Selector, Affinity], ...]
    shuns: tuple[AntiTerm, ...]
    """What of `away` is required: whom this VM, once placed, keeps away in its turn."""
    spread: tuple[tuple[Selector, Spread], ...]
    prefer: tuple[tuple[Selector, HostPreference], ...]


def request_of(spec: VmSpec) -> Request:
    on, hardware = spec.on, spec.hardware
    huge = None
    if hardware.huge_page_kib is not None:
        size_kib = hardware.huge_page_kib
        huge = (size_kib, -(-spec.memory_mib * KIB_PER_MIB // size_kib))
    disks = tuple((disk.size_gib, disk.image, disk.pool) for disk in spec.disks)
    networks = tuple(sorted({nic.network for nic in spec.nics}))
    where = selector(on.labels, on.expressions)
    prefer = tuple((selector(one.labels, one.expressions), one) for one in on.prefer)
    # fmt: off
    shape = (
        spec.cpus, spec.memory_mib, disks, networks, hardware,
        where, on.host, on.not_on, on.tolerations, tuple((one, said.weight) for one, said in prefer),
    )
    # fmt: on
    away = tuple((selector(one.labels, one.expressions), one) for one in on.anti_affinity)
    return Request(
        spec=spec,
        shape=shape,
        cpus=spec.cpus,
        memory_mib=0 if huge else spec.memory_mib,
        huge=huge,
        storage=_storage(spec),
        images=tuple(sorted({image for _, image, _ in disks if image is not None})),
        networks=networks,
        devices=tuple(sorted(_sums((one.name, one.count) for one in hardware.devices).items())),
        one_node=hardware.numa == "one",
        where=where,
        near=tuple((selector(one.labels, one.expressions), one) for one in on.affinity),
        away=away,
        shuns=tuple(
            AntiTerm(one, said.topology, matches(one, spec.labels))
            for one, said in away
            if said.required
        ),
        spread=tuple((selector(one.labels, one.expressions), one) for one in on.spread),
        prefer=prefer,
    )


class Requests:
    """Wishes compiled lately: what is asked for is decided, reserved and written within moments."""

    def __init__(self) -> None:
        self._lately: dict[int, Request] = {}
        """By the identity of the spec, which the request holds on to."""

    def of(self, spec: VmSpec) -> Request:
        found = self._lately.get(id(spec))
        if found is None:
            found = self._lately[id(spec)] = request_of(spec)
            if len(self._lately) > LATELY:
                del self._lately[next(iter(self._lately))]
        return found


def demand_of(request: Request, images: Mapping[str, int], *, node: int | None = None) -> Demand:
    """What a VM takes on a host with these images. An unknown image counts nothing."""
    counted: list[tuple[Counted, int]] = [
        (("pool", part.pool), part.size_gib(images)) for part in request.storage if part.pool
    ]
    counted += [(("device", name), count) for name, count in request.devices]
    if request.huge is not None:
        counted.append((("huge", request.huge[0]), request.huge[1]))
    return Demand(
        cpus=request.cpus,
        memory_mib=request.memory_mib,
        disk_gib=sum(part.size_gib(images) for part in request.storage if part.pool is None),
        counted=tuple(counted),
        node=node,
    )


def foreign_demand(facts: HostFacts) -> Demand:
    """What running domains that are not Vireo's take. The test driver's own domains are larger than its
    host and use nothing of it."""
    if facts.domain_type == "test":
        return Demand()
    running = [domain for domain in facts.foreign if domain.state in ("running", "paused")]
    return Demand(
        cpus=sum(domain.cpus for domain in running),
        memory_mib=sum(domain.memory_mib for domain in running),
    )


def _storage(spec: VmSpec) -> tuple[Storage, ...]:
    pools = sorted({disk.pool or "" for disk in spec.disks})
    return tuple(_part(spec, pool or None) for pool in pools)


def _part(spec: VmSpec, pool: str | None) -> Storage:
    disks = [disk for disk in spec.disks if disk.pool == pool]
    return Storage(
        pool,
        sum(disk.size_gib for disk in disks if disk.image is None),
        tuple((disk.image, disk.size_gib) for disk in disks if disk.image is not None),
    )


def _sums(pairs: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in pairs:
        found[name] = found.get(name, 0) + count
    return found
