"""The machine and its libvirt as they describe themselves. Blocking calls; nothing is changed."""

from __future__ import annotations

from typing import Any, Literal

import libvirt
from lxml import etree

from schemas.resources import NumaNode
from services.hostagent.hypervisor import Description

KIB_PER_MIB = 1024

_parser = etree.XMLParser(resolve_entities=False, no_network=True)


def describe(
    conn: Any, *, domain_type: Literal["kvm", "qemu", "test"], user_networks: tuple[str, ...]
) -> Description:
    """`user_networks`: those that QEMU plays, where libvirt may make none."""
    info = conn.getInfo()
    capabilities = etree.fromstring(conn.getCapabilities(), _parser)
    counted = memory(conn)
    memory_mib = counted[0] if counted else info[1]
    return Description(
        driver=conn.getType(),
        domain_type=domain_type,
        arch=capabilities.findtext("host/cpu/arch") or str(info[0]),
        cpus=info[2],
        memory_mib=memory_mib,
        numa=numa(capabilities, memory_mib=memory_mib),
        cpu_model=capabilities.findtext("host/cpu/model") or "",
        libvirt_version=_version(conn.getLibVersion()),
        hypervisor_version=_version(conn.getVersion()),
        networks=tuple(sorted({*_networks(conn), *user_networks})),
    )


def memory(conn: Any) -> tuple[int, int] | None:
    """What the node itself counts; `nodeinfo` is wrong on some kernels."""
    try:
        stats = conn.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return None
    available = sum(stats.get(name, 0) for name in ("free", "buffers", "cached"))
    return stats["total"] // KIB_PER_MIB, available // KIB_PER_MIB


def numa(capabilities: Any, *, memory_mib: int) -> tuple[NumaNode, ...]:
    """The machine's nodes. A single one has all the memory: where memory was plugged in after boot,
    the kernel's files for the node, which libvirt reads, count only part of it."""
    cells = capabilities.findall("host/topology/cells/cell")
    return tuple(
        NumaNode(
            id=int(cell.get("id")),
            cpus=len(cell.findall("cpus/cpu")),
            memory_mib=memory_mib
            if len(cells) == 1
            else int(cell.findtext("memory") or 0) // KIB_PER_MIB,
        )
        for cell in cells
    )


def _version(number: int) -> str:
    """libvirt counts major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _networks(conn: Any) -> list[str]:
    active = conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
    return [network.name() for network in active]
