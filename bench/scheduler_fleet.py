"""Fleets and traces for the scheduler's benchmark: made of a seed, the same on every machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from schemas.assignments import VmAssignment
from schemas.resources import DiskSpec, HostConfig, HostFacts, HostImage, Placement, VmSpec
from schemas.rules import Affinity, HostRules
from schemas.shipped import shipped
from services.scheduler.fleet import Fleet
from services.scheduler.model import Ask, Limits
from services.scheduler.placement import NoHost
from tests.oracle.scheduler import Oracle, OracleHost, OracleVm

CPUS, MEMORY_MIB, DISK_GIB = 32, 131_072, 2_000
APPS, RACKS = 200, 40
IMAGE = HostImage(name="tiny", size_gib=1)
LIMITS = Limits()


def facts(number: int) -> HostFacts:
    return HostFacts(
        host=f"h{number:06d}",
        site="bench",
        hypervisor="QEMU",
        domain_type="kvm",
        arch="x86_64",
        cpus=CPUS,
        memory_mib=MEMORY_MIB,
        disk_gib=DISK_GIB,
        images=(IMAGE,),
        networks=("default",),
        labels={"rack": f"r{number % RACKS}", "zone": f"z{number % 3}"},
    )


def fleet(hosts: int, limits: Limits = LIMITS) -> Fleet:
    """Empty, every host alive."""
    made = Fleet(limits, shipped())
    for number in range(hosts):
        known = facts(number)
        made.apply_facts(known, number + 1)
        made.heard_lease(known.host, at=0.0, lease_s=limits.lease_s)
    return made


def crowded(hosts: int, vms: int, *, seed: int) -> Fleet:
    """So many VMs on the first host alone, and five times as many on the others."""
    made = fleet(hosts)
    first, *others = (facts(number).host for number in range(hosts))
    for number, wish in enumerate(wishes(6 * vms, anti_affinity=0.5, seed=seed)):
        host = first if number < vms else others[number % len(others)]
        placement = Placement(host=host, policy="spread", considered=0, ranking=())
        reserve(made, wish, placement, number)
    return made


def oracle(hosts: int) -> Oracle:
    """The same, for the naive version."""
    known = [facts(number) for number in range(hosts)]
    return Oracle(
        {one.host: OracleHost(one, HostConfig(host=one.host), renewed_at=0.0) for one in known}
    )


def wishes(count: int, *, anti_affinity: float = 0.0, seed: int = 1) -> Iterator[VmSpec]:
    """Eighteen sizes, 200 apps; a share of the requests shuns the hosts of its own app."""
    random = Random(seed)
    for number in range(count):
        labels = {"app": f"a{random.randrange(APPS)}"}
        shuns = random.random() < anti_affinity
        yield VmSpec(
            name=f"vm{number}",
            cpus=random.choice((1, 2, 4)),
            memory_mib=random.choice((512, 1024, 2048, 4096, 6144, 8192)),
            disks=(DiskSpec(image="tiny", size_gib=20),),
            labels=labels,
            on=HostRules(anti_affinity=(Affinity(labels=labels),) if shuns else ()),
        )


def mixed(seed: int) -> Iterator[VmSpec]:
    """Without end, from the smallest VMs to half a host, some lean to CPU and some to memory."""
    random = Random(seed)
    for number in range(10**6):
        cpus = random.choice((1, 2, 4, 8, 16, 32))
        memory_mib = min(cpus * random.choice((512, 1024, 2048)), MEMORY_MIB // 2)
        disks = (DiskSpec(image="tiny", size_gib=20),)
        yield VmSpec(name=f"vm{number}", cpus=cpus, memory_mib=memory_mib, disks=disks)


def decide(fleet: Fleet, wish: VmSpec, chance: int, policy: str | None = None) -> Placement | None:
    """One decision with its explanation; not yet reserved."""
    compiled = fleet.policy(policy)
    assert compiled is not None
    outcome = fleet.place(wish, compiled, Ask(now=1.0, chance=chance))
    return None if isinstance(outcome, NoHost) else outcome


def reserve(fleet: Fleet, wish: VmSpec, placement: Placement, number: int) -> None:
    fleet.reserve(
        VmAssignment(
            vm=f"vm-{number}",
            host=placement.host,
            generation=1,
            spec=wish,
            power="running",
            operation="",
            actor="",
            placement=placement,
        )
    )


def tell(naive: Oracle, wish: VmSpec, placement: Placement, number: int) -> None:
    naive.hold(f"vm-{number}", OracleVm(wish, placement.host, placement.numa_node))
