"""A large make-believe machine for libvirt's test driver."""

from __future__ import annotations

from pathlib import Path

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]

GIB_IN_KIB = 1 << 20


def node_file(path: Path, *, memory_gib: int = 4096) -> str:
    """Write a node of 512 CPUs to `path`; returns the URI to connect to."""
    node = E.node(
        E.cpu(
            E.mhz("2400"),
            E.model("x86_64"),
            E.active("512"),
            E.nodes("1"),
            E.sockets("8"),
            E.cores("64"),
            E.threads("1"),
        ),
        E.memory(str(memory_gib * GIB_IN_KIB)),
        # The driver wants to find these three when it reads a file.
        E.network(E.name("default"), E.bridge(name="virbr0"), E.ip(address="192.168.122.1")),
    )
    path.write_bytes(etree.tostring(node))
    return f"test://{path}"
