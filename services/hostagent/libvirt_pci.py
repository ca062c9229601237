"""PCI devices as libvirt's node device driver shows them, and those that foreign domains have.

Blocking calls; nothing is changed. Which of them guests may have is decided in `devices`.
"""

from __future__ import annotations

from typing import Any

import libvirt
from lxml import etree

from services.hostagent.devices import PciDevice

_parser = etree.XMLParser(resolve_entities=False, no_network=True)


def machine(conn: Any) -> tuple[PciDevice, ...]:
    """Every PCI function. A libvirt without node devices has none."""
    try:
        nodes = conn.listAllDevices(libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return ()
        raise
    found = (_look_at(node) for node in nodes)
    return tuple(one for one in found if one is not None)


def _look_at(node: Any) -> PciDevice | None:
    try:
        return read(node.XMLDesc(0))
    except libvirt.libvirtError as error:
        # It was pulled since it was listed.
        if error.get_error_code() == libvirt.VIR_ERR_NO_NODE_DEVICE:
            return None
        raise


def read(xml: str) -> PciDevice | None:
    """One node device's XML (libvirt's formatnode)."""
    pci = etree.fromstring(xml, _parser).find("capability[@type='pci']")
    if pci is None:
        return None
    parts = [int(pci.findtext(name) or "0", 0) for name in ("domain", "bus", "slot", "function")]
    return PciDevice(
        address=address_of(*parts),
        vendor=_digits(pci.find("vendor")),
        product=_digits(pci.find("product")),
        pci_class=(pci.findtext("class") or "").removeprefix("0x").lower(),
        group=tuple(sorted(_addresses(pci.find("iommuGroup")))),
    )


def handed_over(xml: str) -> list[str]:
    """The addresses that a domain's definition has from its host."""
    sources = etree.fromstring(xml, _parser).findall("devices/hostdev[@type='pci']/source")
    return [address for source in sources for address in _addresses(source)]


def address_of(domain: int, bus: int, slot: int, function: int) -> str:
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _addresses(parent: etree._Element | None) -> list[str]:
    if parent is None:
        return []
    names = ("domain", "bus", "slot", "function")
    return [
        address_of(*(int(str(one.get(name, "0")), 0) for name in names))
        for one in parent.findall("address")
    ]


def _digits(element: etree._Element | None) -> str:
    text = "" if element is None else str(element.get("id", ""))
    return text.removeprefix("0x").lower().rjust(4, "0")
