"""What a placement promised to a VM, found on this host: its NUMA node, its devices, its pools.

Blocking calls, each made in a thread. Who has which device is written down in the VM's own folder before
the domain is defined with it, one VM at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import libvirt
import structlog

from schemas.assignments import VmAssignment
from schemas.ids import VmId
from services.hostagent import cids, libvirt_domain, libvirt_node, libvirt_pci
from services.hostagent import devices as pci
from services.hostagent.devices import Offered, Withheld
from services.hostagent.disks import Disks
from services.hostagent.hypervisor import HypervisorFailure
from services.hostagent.libvirt_domain_xml import Node

log = structlog.get_logger(__name__)


class Promises:
    """The settings of pools and devices against one machine. `pools` are those found last."""

    def __init__(
        self, disks: Disks, *, pools: Mapping[str, str], devices: Mapping[str, str]
    ) -> None:
        self.pools: Mapping[str, Path] = {}
        self._disks = disks
        self._places = pools
        self._allowed = devices
        self._choosing = threading.Lock()
        self._withheld: tuple[Withheld, ...] = ()

    # pools

    def look_at_pools(self, conn: Any) -> Mapping[str, Path]:
        self.pools = libvirt_node.pool_folders(conn, self._places)
        return self.pools

    def pool(self, conn: Any, name: str) -> Path:
        """Raises HypervisorFailure where there is no such pool, or not now."""
        folder = self.look_at_pools(conn).get(name)
        if folder is None:
            raise HypervisorFailure(f"storage pool {name!r} is not on this host, or not mounted")
        return folder

    # vsock

    def cid(self, vm: VmId) -> int:
        """The vsock address of a VM: the same as before."""
        with self._choosing:
            return cids.of(vm, self._disks.folder(vm))

    # memory and CPUs

    def node(self, conn: Any, assignment: VmAssignment) -> Node | None:
        promised = assignment.placement.numa_node
        if promised is None:
            return None
        return libvirt_node.pinning(conn.getCapabilities(), promised)

    # devices

    def offers(self, conn: Any) -> tuple[Offered, ...]:
        """What guests may have, whether one has it or not; foreign domains' devices are theirs."""
        if not self._allowed:
            return ()
        given, withheld = pci.offered(
            libvirt_pci.machine(conn), self._allowed, elsewhere=_elsewhere(conn)
        )
        if withheld != self._withheld:
            for one in withheld:
                log.warning("device_withheld", address=one.address, why=one.why)
        self._withheld = withheld
        return given

    def devices(self, conn: Any, assignment: VmAssignment) -> tuple[str, ...]:
        """The addresses for a VM: the same as before as long as they serve it."""
        wanted, folder = assignment.spec.hardware.devices, self._disks.folder(assignment.vm)
        held = pci.held_by(folder)
        if not wanted and not held:
            return ()
        with self._choosing:
            taken = pci.held_by_others(folder)
            chosen = pci.choose(wanted, self.offers(conn), held=held, taken=taken)
            pci.record(folder, chosen)
        return tuple(address for one in chosen for address in one.addresses)


def _elsewhere(conn: Any) -> frozenset[str]:
    found: set[str] = set()
    for domain in conn.listAllDomains():
        try:
            if not libvirt_domain.has_marker(domain):
                found.update(libvirt_pci.handed_over(domain.XMLDesc(0)))
        except libvirt.libvirtError as error:
            # It has gone since it was listed.
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return frozenset(found)
