"""One domain, asked and told: each function is what one trip into a thread does there.

They block, and are harmless when done twice. Whether a domain is ours to touch is asked before, in
`libvirt_hypervisor`.
"""

from __future__ import annotations

from typing import Any

import libvirt

from schemas.assignments import VmAssignment
from schemas.ids import VmId
from services.hostagent import cids, libvirt_stats
from services.hostagent import libvirt_domain_xml as domain_xml
from services.hostagent.hypervisor import HypervisorFailure
from services.hostagent.libvirt_stats import (
    PASSING_PAUSES,
    PAUSE_DETAILS,
    PAUSED_CRASHED,
    STOP_CAUSES,
)
from services.hostagent.model import Observed


def observe(conn: Any, vm: VmId, *, vsock: bool) -> Observed:
    """`vsock`: whether guests get such a device here."""
    domain = conn.lookupByUUIDString(vm)
    state, reason = domain.state()
    if _is_dead(state, reason):
        state, reason = libvirt.VIR_DOMAIN_CRASHED, 0
    found = domain_xml.read(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    busy, detail = "", ""
    if state == libvirt.VIR_DOMAIN_PAUSED:
        busy, detail = PASSING_PAUSES.get(reason, ""), PAUSE_DETAILS.get(reason, "")
    elif state == libvirt.VIR_DOMAIN_SHUTDOWN:
        busy = "shutting down"
    crashed = state == libvirt.VIR_DOMAIN_CRASHED
    return Observed(
        vm=vm,
        state=libvirt_stats.power_of(state),
        cause="crashed" if crashed else STOP_CAUSES.get(reason, "host"),
        detail=detail,
        ours=found.ours,
        persistent=bool(domain.isPersistent()),
        generation=found.generation,
        spec=found.spec,
        cpus=found.cpus,
        memory_mib=found.memory_mib,
        outdated=found.ours and cids.is_outdated(found.cid, vsock=vsock),
        busy=busy,
    )


def has_marker(domain: Any) -> bool:
    try:
        domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, domain_xml.NAMESPACE)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (
            libvirt.VIR_ERR_NO_DOMAIN_METADATA,
            libvirt.VIR_ERR_NO_DOMAIN,
        ):
            return False
        raise
    return True


def define(conn: Any, xml: str, assignment: VmAssignment) -> Any:
    """Answers the domain."""
    domain = conn.defineXML(xml)
    if domain.isActive():
        # A running domain takes a new definition at its next start, but new metadata now.
        stamp(domain, assignment)
    return domain


def stamp(domain: Any, assignment: VmAssignment) -> None:
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    if domain.isActive():
        flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        domain_xml.marker(assignment),
        domain_xml.PREFIX,
        domain_xml.NAMESPACE,
        flags,
    )


def start(domain: Any) -> bool:
    """Answers whether it had to be started."""
    if domain.isActive() and not bury(domain):
        return False
    domain.create()
    return True


def bury(domain: Any) -> bool:
    """Take away a guest that panicked: its definition may say that it is kept, and libvirt takes a
    moment where it says that it is not. Answers whether there was one."""
    if not _is_dead(*domain.state()):
        return False
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        # libvirt was faster.
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise
    return True


def _is_dead(state: int, reason: int) -> bool:
    return (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, PAUSED_CRASHED)


def pause(domain: Any) -> None:
    if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
        domain.suspend()


def resume(domain: Any) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()


def shutdown_by_agent(domain: Any) -> None:
    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)


def shutdown(domain: Any) -> None:
    if domain.isActive():
        domain.shutdown()


def reboot_by_agent(domain: Any) -> None:
    domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)


def reboot(domain: Any) -> None:
    domain.reboot(0)


def reset(domain: Any) -> None:
    domain.reset(0)


def destroy(domain: Any) -> None:
    if domain.isActive():
        domain.destroy()


def undefine(domain: Any) -> None:
    bury(domain)
    if domain.isActive():
        raise HypervisorFailure("the domain is still running")
    if domain.isPersistent():
        try:
            domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            )
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
                raise
            # The test driver knows none of these flags.
            domain.undefine()
