"""Choose kernel modules and the order in which a guest loads them.

A kernel package holds thousands; the guest carries those named here and what they depend on.
"""

import lzma
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

REQUIRED = ("virtio_pci", "virtio_console", "virtio_net", "virtio_blk")
OPTIONAL = (
    # ACPI's power button, as an input event
    "button",
    "evdev",
    # disks behind other controllers, and the file systems of seeds and data disks
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "ata_piix",
    "ext4",
    "isofs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    # what makes a guest observable
    "virtio_balloon",
    "virtio-rng",
    "qemu_fw_cfg",
    # the guest agent's way to its host, and a guest's way to itself
    "vmw_vsock_virtio_transport",
    "vsock_loopback",
    # the panic device on the ISA bus, found by ACPI, and the one on PCI
    "pvpanic-mmio",
    "pvpanic-pci",
)
HOSTS = ("vhost_vsock", "kvm_amd")
"""What such a guest needs to be a host of guests itself; they lie in an archive of their own."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class ModuleError(Exception):
    """The kernel package lacks a module without which the guest cannot work."""


class KernelModules:
    """The modules of one unpacked kernel tree (`lib/modules/VERSION`)."""

    def __init__(self, tree: Path) -> None:
        self._files = {
            _canonical(path.name.split(".ko")[0]): path for path in sorted(tree.rglob("*.ko*"))
        }
        listing = tree / "modules.builtin"
        self._builtin = {
            _canonical(Path(line).stem)
            for line in (listing.read_text().splitlines() if listing.exists() else ())
        }

    def load(
        self, required: Iterable[str] = REQUIRED, optional: Iterable[str] = OPTIONAL
    ) -> dict[str, bytes]:
        """Name to uncompressed module, dependencies first: the order to load them in."""
        wanted = [_canonical(name) for name in required]
        missing = [n for n in wanted if n not in self._files and n not in self._builtin]
        if missing:
            raise ModuleError("the kernel has no module " + ", ".join(missing))
        wanted += [name for name in map(_canonical, optional) if name in self._files]

        images: dict[str, bytes] = {}
        pending = [name for name in wanted if name in self._files]
        while pending:
            name = pending.pop()
            if name not in images:
                images[name] = _uncompressed(self._files[name])
                pending += [d for d in dependencies(images[name]) if d in self._files]
        needs = {name: dependencies(image) for name, image in images.items()}
        return {name: images[name] for name in load_order(wanted, needs)}


def dependencies(module: bytes) -> tuple[str, ...]:
    """The names in a module's `depends=` field."""
    field = _DEPENDS.search(module)
    return tuple(_canonical(n.decode()) for n in field[1].split(b",") if n) if field else ()


def load_order(wanted: Iterable[str], needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Those of `wanted` that are keys of `needs`, each after everything it needs."""
    order: list[str] = []

    def place(name: str) -> None:
        if name in needs and name not in order:
            for dependency in needs[name]:
                place(dependency)
            order.append(name)

    for name in wanted:
        place(name)
    return order


def _canonical(name: str) -> str:
    """The kernel takes `-` and `_` in a module's name for the same."""
    return name.replace("-", "_")


def _uncompressed(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix == ".zst":
        return subprocess.run(
            ["zstd", "-dcq"], input=content, capture_output=True, check=True
        ).stdout
    return content
