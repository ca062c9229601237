"""The resources as people see them: Host, Vm, Operation, and the parts they are made of.

A *spec* is what was wished, a resource is the spec with what is known of its life. Sizes are MiB for
memory, GiB for disks, bytes where a name says so; times are UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.ids import END, HostName, Labels, Name, OperationId, SiteName, VmId
from schemas.problems import Problem
from schemas.rules import Hardware, HostDevice, HostRules, HugePages, Taint

MIB_PER_GIB = 1024

Cpus = Annotated[int, Meta(ge=1, le=512)]
MemoryMib = Annotated[int, Meta(ge=32, le=16 * 1024 * 1024)]
DiskGib = Annotated[int, Meta(ge=0, le=64 * 1024)]
ImageName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}" + END)]
NetworkName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}" + END)]
Mac = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}" + END)]

PowerState = Literal["running", "stopped", "paused"]
StopMode = Literal["graceful", "forced"]


class DiskSpec(Struct, frozen=True, kw_only=True):
    """One disk. The first is booted from and is an overlay on `image`; `size_gib` 0 keeps the image's
    size; a disk without an image is blank and needs a size."""

    name: Name = "root"
    size_gib: DiskGib = 0
    image: ImageName | None = None
    pool: Name | None = None
    """A storage pool of the host; None is where the host keeps its VMs' disks."""


class NicSpec(Struct, frozen=True, kw_only=True):
    """One network card in a libvirt network of the host. `mac` is derived from the VM when left out."""

    network: NetworkName = "default"
    mac: Mac | None = None
    model: Literal["virtio", "e1000"] = "virtio"


Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=63)], Annotated[str, Meta(max_length=1024)]],
    Meta(max_length=64),
]


class TemplateUse(Struct, frozen=True, kw_only=True):
    """The template that a spec was made with."""

    name: Name
    version: int


class VmSpec(Struct, frozen=True, kw_only=True):
    """What a VM is wished to be."""

    name: Name
    cpus: Cpus = 1
    memory_mib: MemoryMib = 512
    disks: Annotated[tuple[DiskSpec, ...], Meta(min_length=1, max_length=16)]
    nics: Annotated[tuple[NicSpec, ...], Meta(max_length=8)] = (NicSpec(),)
    labels: Annotated[Labels, Meta(max_length=64)] = {}
    metadata: Metadata = {}
    """Free text for people and programs; Vireo never reads it."""
    on: HostRules = HostRules()
    hardware: Hardware = Hardware()
    project: Name | None = None
    policy: Name | None = None
    """The scheduling policy to be placed by; None is the site's own."""
    template: TemplateUse | None = None
    """What it was made with. All that the template says stands in the spec itself."""
    seeded: bool | UnsetType = UNSET
    """It was given something for cloud-init. What that is, only its host is told."""
    power: PowerState = "running"


VmState = Literal[
    "scheduled",
    "creating",
    "running",
    "paused",
    "stopped",
    "crashed",
    "failed",
    "deleting",
    "deleted",
]


PlacementRule = Literal[
    "lease",
    "maintenance",
    "pinned",
    "labels",
    "taints",
    "image",
    "network",
    "cpu",
    "memory",
    "huge_pages",
    "numa",
    "disk",
    "pool",
    "devices",
    "affinity",
    "anti_affinity",
    "spread",
]
"""What can exclude a host, in the order in which it is asked."""


class Excluded(Struct, frozen=True, kw_only=True, gc=False):
    """Why a host was out of the question: the first rule that excluded it, and in words."""

    host: HostName
    rule: PlacementRule
    detail: str


class Scored(Struct, frozen=True, kw_only=True, gc=False):
    """A host that fitted, its score (higher is better) and the terms that make it up."""

    host: HostName
    score: float
    terms: dict[str, float]


class Placement(Struct, frozen=True, kw_only=True, gc=False):
    """The reason of a placement: who won, the best five with their terms, who was excluded and why."""

    host: HostName
    policy: str
    policy_version: int = 0
    considered: int
    ranking: tuple[Scored, ...]
    excluded: tuple[Excluded, ...] = ()
    """Some of those excluded, the nearest to fitting first."""
    excluded_by: dict[PlacementRule, int] = {}
    """How many hosts each rule was the first to exclude."""
    numa_node: int | None = None
    """The NUMA node of the host that was promised to the VM."""


class GuestFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a guest's agent says of the guest that seldom changes."""

    hostname: str = ""
    os: str = ""
    kernel: str = ""
    agent_version: str = ""
    addresses: tuple[str, ...] = ()
    """IP addresses without prefix length, loopback left out."""


class Vm(Struct, frozen=True, kw_only=True):
    """A virtual machine as the inventory knows it."""

    id: VmId
    site: SiteName
    spec: VmSpec
    state: VmState
    power: PowerState
    host: HostName
    generation: int
    created_at: datetime
    updated_at: datetime
    guest: GuestFacts | None = None
    placement: Placement | None = None
    operation: OperationId | None = None
    """The operation that touched it last."""
    problem: str = ""
    """In words, what went wrong last; empty when all is well."""


class NumaNode(Struct, frozen=True, kw_only=True):
    id: int
    cpus: int
    memory_mib: int
    huge_pages: tuple[HugePages, ...] = ()


class HostPool(Struct, frozen=True, kw_only=True):
    """A storage pool of the host beside the file system that `disk_gib` speaks of."""

    name: Name
    size_gib: int


class HostImage(Struct, frozen=True, kw_only=True):
    """A base image that lies on the host; `size_gib` is its virtual size, rounded up."""

    name: ImageName
    size_gib: int


class ForeignDomain(Struct, frozen=True, kw_only=True):
    """A domain of the host's libvirt that Vireo did not make: shown, counted, never touched."""

    name: str
    uuid: str
    state: str
    cpus: int
    memory_mib: int


class HostFacts(Struct, frozen=True, kw_only=True):
    """What a host is: capacity, topology, versions. Told by its agent when it registers."""

    host: HostName
    site: SiteName
    hypervisor: str
    """The libvirt driver: `QEMU`, `TEST`, …"""
    domain_type: Literal["kvm", "qemu", "test"]
    arch: str
    cpus: int
    memory_mib: int
    disk_gib: int
    """Size of the file system that holds the VMs' disks."""
    numa: tuple[NumaNode, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()
    """Set aside on the whole host; part of `memory_mib`."""
    pools: tuple[HostPool, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    cpu_model: str = ""
    libvirt_version: str = ""
    hypervisor_version: str = ""
    agent_version: str = ""
    kernel: str = ""
    networks: tuple[str, ...] = ()
    vsock: bool = False
    """Whether guests get a vsock device, over which the guest agent reaches the host."""
    images: tuple[HostImage, ...] = ()
    foreign: tuple[ForeignDomain, ...] = ()
    labels: Labels = {}
    """Labels from the agent's own settings; `HostConfig.labels` wins where both have a key."""


Overcommit = Annotated[float, Meta(gt=0, le=64)]
Watts = Annotated[float, Meta(ge=0, le=100_000)]
HostWeight = Annotated[float, Meta(gt=0, le=1000)]


class HostTuning(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What operators promise of a host, and how it counts; None is what the site's settings say."""

    cpu_overcommit: Overcommit | None = None
    memory_overcommit: Overcommit | None = None
    disk_overcommit: Overcommit | None = None
    reserve_cpus: Annotated[int, Meta(ge=0)] = 0
    reserve_memory_mib: Annotated[int, Meta(ge=0)] | None = None
    reserve_disk_gib: Annotated[int, Meta(ge=0)] | None = None
    weight: HostWeight = 1.0
    """How often it is chosen beside others, where the policy goes by that."""
    idle_watts: Watts | None = None
    full_watts: Watts | None = None


class HostConfig(Struct, frozen=True, kw_only=True):
    """What operators set for a host (`host.config.<host>` in FLEET)."""

    host: HostName
    generation: int = 0
    maintenance: bool = False
    labels: Labels = {}
    taints: Annotated[tuple[Taint, ...], Meta(max_length=16)] = ()
    tuning: HostTuning = HostTuning()


HostState = Literal["online", "silent"]


class Host(Struct, frozen=True, kw_only=True):
    """A host as the inventory knows it."""

    name: HostName
    site: SiteName
    state: HostState
    facts: HostFacts
    config: HostConfig
    reserved_cpus: int
    """Sum over the VMs placed here, running or not."""
    reserved_memory_mib: int
    reserved_disk_gib: int
    vms: int
    registered_at: datetime
    updated_at: datetime


OperationPhase = Literal["accepted", "scheduled", "running", "succeeded", "failed", "cancelled"]

OperationKind = Literal[
    "vm", "host", "policy", "template", "project", "rule", "inventory", "fleet", "replay", "alert"
]

ENDED: frozenset[OperationPhase] = frozenset({"succeeded", "failed", "cancelled"})


class OperationStep(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of an operation's trail."""

    event: str
    """The event's name: `operation.accepted`, `vm.scheduled`, …"""
    source: str
    at: datetime
    elapsed_ms: float
    """Since the operation was accepted."""
    detail: str = ""


class OperationMember(Struct, frozen=True, kw_only=True):
    """One VM of several that one command makes: it has an operation of its own."""

    operation: OperationId
    vm: VmId
    name: Name


class Operation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The life of one command as its sender sees it."""

    id: OperationId
    command: str
    """`vm.create`, `vm.start`, …"""
    kind: OperationKind
    target: str
    """Id of the VM, or name of what else it is about."""
    name: str = ""
    """What the VM is called, where `target` is the id of one that is known."""
    phase: OperationPhase
    actor: str
    created_at: datetime
    updated_at: datetime
    progress: float = 0.0
    """0 to 1"""
    detail: str = ""
    host: HostName | None = None
    problem: Problem | None = None
    trail: tuple[OperationStep, ...] = ()
    """In order; filled when one operation is asked for, empty in lists."""
    placement: Placement | None = None
    members: tuple[OperationMember, ...] = ()
    """In the answer to a request for several VMs: each of them. This operation ends when they are
    placed, theirs when they are there."""


class Page(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One page of a list. `next` is the opaque cursor of the page after it, absent on the last."""

    items: tuple[Any, ...]
    next: str | None = None
