"""The floor beneath a create: define and start on libvirt alone. A process of its own, like an agent.

`python -m bench.raw_libvirt URI COUNT` prints the seconds that COUNT domains took, one after another.
"""

from __future__ import annotations

import sys
import time
import uuid

import libvirt
from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]


def domain_xml(name: str) -> str:
    """A small domain, about as long as what an agent defines."""
    domain = E.domain(
        E.name(name),
        E.uuid(str(uuid.uuid4())),
        E.memory("65536", unit="KiB"),
        E.vcpu("1"),
        E.os(E.type("hvm", arch="x86_64")),
        E.devices(
            E.disk(
                E.driver(name="qemu", type="qcow2"),
                E.source(file=f"/nonexistent/{name}.qcow2"),
                E.target(dev="vda", bus="virtio"),
                type="file",
                device="disk",
            ),
            E.interface(E.source(network="default"), E.model(type="virtio"), type="network"),
        ),
        type="test",
    )
    return str(etree.tostring(domain, encoding="unicode"))


def main(uri: str, count: int) -> None:
    connection = libvirt.open(uri)
    documents = [domain_xml(f"raw-{number}") for number in range(count)]
    began = time.perf_counter()
    for document in documents:
        connection.defineXML(document).create()
    print(time.perf_counter() - began)
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
