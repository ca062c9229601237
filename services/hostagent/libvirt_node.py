"""The machine and its libvirt as they describe themselves. Blocking calls; nothing is changed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import libvirt
from lxml import etree

from schemas.resources import HostPool, NumaNode
from schemas.rules import HostDevice, HugePageKib, HugePages
from services.hostagent.hypervisor import Description, HypervisorFailure
from services.hostagent.libvirt_domain_xml import Node

KIB_PER_MIB = 1024
GIB = 1 << 30
LIBVIRT_POOL = "libvirt:"
FOLDERS = ("dir", "fs", "netfs")
"""Types of libvirt's pools that are folders (libvirt's formatstorage)."""

_parser = etree.XMLParser(resolve_entities=False, no_network=True)


def describe(
    conn: Any,
    *,
    domain_type: Literal["kvm", "qemu", "test"],
    user_networks: tuple[str, ...],
    pools: Mapping[str, Path],
    devices: tuple[HostDevice, ...],
    vsock: bool,
) -> Description:
    """`user_networks`: those that QEMU plays, where libvirt may make none."""
    info = conn.getInfo()
    capabilities = etree.fromstring(conn.getCapabilities(), _parser)
    counted = memory(conn)
    memory_mib = counted[0] if counted else info[1]
    nodes = numa(capabilities, memory_mib=memory_mib)
    return Description(
        driver=conn.getType(),
        domain_type=domain_type,
        arch=capabilities.findtext("host/cpu/arch") or str(info[0]),
        cpus=info[2],
        memory_mib=memory_mib,
        numa=nodes,
        huge_pages=_sum(page for node in nodes for page in node.huge_pages),
        pools=sizes(pools),
        devices=devices,
        cpu_model=capabilities.findtext("host/cpu/model") or "",
        libvirt_version=_version(conn.getLibVersion()),
        hypervisor_version=_version(conn.getVersion()),
        networks=tuple(sorted({*_networks(conn), *user_networks})),
        vsock=vsock,
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
            huge_pages=_huge_pages(cell),
        )
        for cell in cells
    )


def _huge_pages(cell: Any) -> tuple[HugePages, ...]:
    """Those that the kernel has set aside, in use or not."""
    return _sum(
        HugePages(size_kib=size_kib, pages=int(pages.text or 0))
        for pages in cell.findall("pages")
        for size_kib in get_args(HugePageKib)
        if pages.get("size") == str(size_kib)
    )


def _sum(pages: Iterable[HugePages]) -> tuple[HugePages, ...]:
    sums: Counter[HugePageKib] = Counter()
    for one in pages:
        sums[one.size_kib] += one.pages
    return tuple(HugePages(size_kib=size, pages=n) for size, n in sorted(sums.items()) if n)


def pinning(capabilities: str, node: int) -> Node | None:
    """How to keep a guest on a node, by libvirt's capabilities; None on a machine of one node, where
    there is nothing to keep it from. Raises HypervisorFailure where there is no such node any more."""
    cells = etree.fromstring(capabilities, _parser).findall("host/topology/cells/cell")
    if len(cells) <= 1:
        return None
    for cell in cells:
        if cell.get("id") == str(node):
            cpus = sorted(int(cpu.get("id", "0")) for cpu in cell.findall("cpus/cpu"))
            return Node(node, _as_set(cpus))
    raise HypervisorFailure(f"the VM was promised NUMA node {node}, which this host does not have")


def _as_set(numbers: list[int]) -> str:
    """`[0, 1, 2, 8]` → `0-2,8`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


# storage pools


def pool_folders(conn: Any, places: Mapping[str, str]) -> dict[str, Path]:
    """The folder of each pool that is there now. `places`: a path, or `libvirt:NAME`."""
    found = {}
    for name, place in sorted(places.items()):
        if place.startswith(LIBVIRT_POOL):
            folder = _folder_of(conn, place.removeprefix(LIBVIRT_POOL))
        else:
            folder = Path(place)
        if folder is not None and _space(folder) is not None:
            found[name] = folder
    return found


def _folder_of(conn: Any, name: str) -> Path | None:
    try:
        pool = conn.storagePoolLookupByName(name)
        if not pool.isActive():
            return None
        described = etree.fromstring(pool.XMLDesc(0), _parser)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise
        return None
    path = described.findtext("target/path")
    return Path(path) if path and described.get("type") in FOLDERS else None


def sizes(pools: Mapping[str, Path]) -> tuple[HostPool, ...]:
    spaces = ((name, _space(folder)) for name, folder in sorted(pools.items()))
    return tuple(
        HostPool(name=name, size_gib=space.f_frsize * space.f_blocks // GIB)
        for name, space in spaces
        if space is not None
    )


def _space(folder: Path) -> os.statvfs_result | None:
    """None where the folder is not there now: not mounted, say."""
    try:
        return os.statvfs(folder)
    except OSError:
        return None


def _version(number: int) -> str:
    """libvirt counts major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _networks(conn: Any) -> list[str]:
    active = conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
    return [network.name() for network in active]
