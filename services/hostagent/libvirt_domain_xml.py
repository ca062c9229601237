"""Domains as libvirt's XML: built from a spec, and read back. Pure; no text is ever pasted together.

Ours are known by an element of the namespace `urn:vireo:vm:1` in the domain's metadata, which holds
generation, operation and the spec as JSON: enough to know a domain without any other message.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import msgspec
from lxml import etree
from msgspec import Struct

from schemas.assignments import VmAssignment
from schemas.ids import VmId
from schemas.resources import MIB_PER_GIB, VmSpec

NAMESPACE = "urn:vireo:vm:1"
PREFIX = "vireo"
KIB_PER_MIB = 1024
TCG_CACHE_MIB = 16
"""QEMU's translation cache: its default of a gigabyte is far more than a small guest can use."""
BALLOON_PERIOD_S = 5

_parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)


class Node(Struct, frozen=True):
    """A NUMA node to be kept on; `cpus` as libvirt writes sets: `0-3,8-11`."""

    id: int
    cpus: str


class Layout(Struct, frozen=True, kw_only=True):
    """What a definition needs beyond the spec: where things lie on this host."""

    domain_type: Literal["kvm", "qemu", "test"]
    arch: str
    disks: tuple[Path, ...]
    """In the order of the spec's."""
    console_log: Path
    seed: Path | None = None
    """What cloud-init reads: one more disk, behind the others."""
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    user_networks: tuple[str, ...] = ()
    """Networks that QEMU itself plays (NAT, no way in), where libvirt may not make any."""
    node: Node | None = None
    """The NUMA node to be kept on."""
    devices: tuple[str, ...] = ()
    """PCI addresses to be handed over."""
    cid: int | None = None
    """Its vsock address; None: no vsock device."""


class Definition(Struct, frozen=True, kw_only=True):
    """What an existing domain's XML says that matters to the agent."""

    ours: bool
    generation: int = 0
    spec: VmSpec | None = None
    cpus: int = 0
    memory_mib: int = 0
    cid: int | None = None


def domain_name(assignment: VmAssignment) -> str:
    """Readable, and unique on any host: names may come again, ids don't."""
    return f"vireo-{assignment.spec.name}-{assignment.vm[-12:]}"


def mac_of(vm: VmId, index: int) -> str:
    """The same for the same VM and card on every host, under QEMU's prefix."""
    digest = hashlib.sha256(f"{vm}/nic/{index}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def build(assignment: VmAssignment, layout: Layout) -> str:
    """The XML that defines the domain of an assignment."""
    spec = assignment.spec
    domain = etree.Element("domain", type=layout.domain_type)
    _text(domain, "name", domain_name(assignment))
    _text(domain, "uuid", assignment.vm)
    _text(domain, "title", spec.name)
    marked = etree.Element(f"{{{NAMESPACE}}}vm", nsmap={PREFIX: NAMESPACE})
    etree.SubElement(domain, "metadata").append(_mark(marked, assignment))
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _placed(domain, spec, layout.node)
    _boot(domain, layout)
    if layout.domain_type != "test":
        _machine(domain, layout)
    # A guest that crashes is reported and then started again by the agent, not by QEMU.
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(domain, f"on_{event}", action)
    _devices(etree.SubElement(domain, "devices"), assignment, layout)
    return etree.tostring(domain, encoding="unicode")


def marker(assignment: VmAssignment) -> str:
    """The metadata element alone, as `virDomainSetMetadata` wants it: libvirt adds the namespace."""
    return etree.tostring(_mark(etree.Element("vm"), assignment), encoding="unicode")


def read(xml: str) -> Definition:
    """What a domain's XML says. A marker that cannot be read counts as not ours."""
    domain = etree.fromstring(xml, _parser)
    cpus = int(domain.findtext("vcpu") or 0)
    memory_mib = _memory_mib(domain.find("memory"))
    found = domain.find(f"metadata/{{{NAMESPACE}}}vm")
    if found is None:
        return Definition(ours=False, cpus=cpus, memory_mib=memory_mib)
    try:
        spec = msgspec.json.decode(found.text or "", type=VmSpec)
        generation = int(found.get("generation", "0"))
    except (msgspec.MsgspecError, ValueError):
        return Definition(ours=False, cpus=cpus, memory_mib=memory_mib)
    return Definition(
        ours=True,
        generation=generation,
        spec=spec,
        cpus=cpus,
        memory_mib=memory_mib,
        cid=_cid(domain.find("devices/vsock/cid")),
    )


def _mark(element: etree._Element, assignment: VmAssignment) -> etree._Element:
    element.set("generation", str(assignment.generation))
    element.set("operation", assignment.operation)
    # ASCII alone: XML cannot hold every character that JSON can.
    element.text = json.dumps(msgspec.to_builtins(assignment.spec), separators=(",", ":"))
    return element


def _placed(domain: etree._Element, spec: VmSpec, node: Node | None) -> None:
    """What its memory is made of, and where memory and CPUs have to be."""
    if spec.hardware.huge_page_kib is not None:
        pages = etree.SubElement(etree.SubElement(domain, "memoryBacking"), "hugepages")
        etree.SubElement(pages, "page", size=str(spec.hardware.huge_page_kib), unit="KiB")
    if node is None:
        _text(domain, "vcpu", str(spec.cpus))
        return
    _text(domain, "vcpu", str(spec.cpus), placement="static", cpuset=node.cpus)
    tuned = etree.SubElement(domain, "numatune")
    etree.SubElement(tuned, "memory", mode="strict", nodeset=str(node.id))


def _boot(domain: etree._Element, layout: Layout) -> None:
    os = etree.SubElement(domain, "os")
    if layout.domain_type == "test":
        _text(os, "type", "hvm")
        return
    _text(os, "type", "hvm", arch=layout.arch, machine="q35")
    if layout.kernel is not None and layout.initrd is not None:
        _text(os, "kernel", str(layout.kernel))
        _text(os, "initrd", str(layout.initrd))
        _text(os, "cmdline", layout.cmdline)
    else:
        etree.SubElement(os, "boot", dev="hd")


def _machine(domain: etree._Element, layout: Layout) -> None:
    features = etree.SubElement(domain, "features")
    etree.SubElement(features, "acpi")
    etree.SubElement(features, "apic")
    if layout.domain_type == "qemu":
        tcg = etree.SubElement(features, "tcg")
        _text(tcg, "tb-cache", str(TCG_CACHE_MIB), unit="MiB")
        etree.SubElement(domain, "cpu", mode="maximum")
    else:
        etree.SubElement(domain, "cpu", mode="host-model")
    etree.SubElement(domain, "clock", offset="utc")


def _devices(devices: etree._Element, assignment: VmAssignment, layout: Layout) -> None:
    for index, path in enumerate(layout.disks):
        _disk(devices, path, target=_disk_target(index))
    if layout.seed is not None:
        _seed(devices, layout.seed, target=_disk_target(len(layout.disks)))
    for index, nic in enumerate(assignment.spec.nics):
        by_qemu = nic.network in layout.user_networks
        interface = etree.SubElement(devices, "interface", type="user" if by_qemu else "network")
        etree.SubElement(interface, "mac", address=nic.mac or mac_of(assignment.vm, index))
        if not by_qemu:
            etree.SubElement(interface, "source", network=nic.network)
        etree.SubElement(interface, "model", type=nic.model)
    for address in layout.devices:
        _host_device(devices, address)
    if layout.domain_type == "test":
        return
    _console(devices, layout.console_log)
    channel = etree.SubElement(devices, "channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    if layout.cid is not None:
        vsock = etree.SubElement(devices, "vsock", model="virtio")
        # Fixed: by it the host knows whose a connection is.
        etree.SubElement(vsock, "cid", auto="no", address=str(layout.cid))
    rng = etree.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    balloon = etree.SubElement(devices, "memballoon", model="virtio")
    etree.SubElement(balloon, "stats", period=str(BALLOON_PERIOD_S))
    etree.SubElement(devices, "panic", model="isa")


def _disk(devices: etree._Element, path: Path, *, target: str) -> None:
    disk = etree.SubElement(devices, "disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type="qcow2", discard="unmap")
    etree.SubElement(disk, "source", file=str(path))
    etree.SubElement(disk, "target", dev=target, bus="virtio")


def _seed(devices: etree._Element, path: Path, *, target: str) -> None:
    """A disk like the others: kernels made for clouds drive no CD-ROM of this machine type."""
    disk = etree.SubElement(devices, "disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type="raw")
    etree.SubElement(disk, "source", file=str(path))
    etree.SubElement(disk, "target", dev=target, bus="virtio")
    etree.SubElement(disk, "readonly")


def _host_device(devices: etree._Element, address: str) -> None:
    """`managed`: libvirt takes it from its driver at each start, and gives it back at each end."""
    hostdev = etree.SubElement(devices, "hostdev", mode="subsystem", type="pci", managed="yes")
    bus, slot = address.rsplit(":", 2)[-2:]
    parts = {
        "domain": address.rsplit(":", 2)[0],
        "bus": bus,
        "slot": slot.partition(".")[0],
        "function": slot.partition(".")[2],
    }
    where = {name: f"0x{digits}" for name, digits in parts.items()}
    etree.SubElement(etree.SubElement(hostdev, "source"), "address", where)


def _console(devices: etree._Element, log: Path) -> None:
    serial = etree.SubElement(devices, "serial", type="pty")
    etree.SubElement(serial, "log", file=str(log), append="on")
    etree.SubElement(serial, "target", port="0")
    console = etree.SubElement(devices, "console", type="pty")
    etree.SubElement(console, "target", type="serial", port="0")


def _disk_target(index: int) -> str:
    return f"vd{chr(ord('a') + index)}"


def _text(parent: etree._Element, name: str, text: str, **attributes: str) -> None:
    element = etree.SubElement(parent, name)
    for key, value in attributes.items():
        element.set(key, value)
    element.text = text


_TO_KIB = {"KiB": 1, "MiB": KIB_PER_MIB, "GiB": KIB_PER_MIB * MIB_PER_GIB}


def _cid(element: etree._Element | None) -> int | None:
    address = "" if element is None else element.get("address", "")
    return int(address) if address.isascii() and address.isdigit() else None


def _memory_mib(element: etree._Element | None) -> int:
    """libvirt always answers in KiB, whatever it was given."""
    if element is None or not element.text:
        return 0
    return int(element.text) * _TO_KIB.get(element.get("unit", "KiB"), 0) // KIB_PER_MIB
