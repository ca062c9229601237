"""Base images in the host's image folder: which there are, how big, and how they boot.

An image NAME is `NAME.qcow2`; with `NAME.vmlinuz` and `NAME.initrd` beside it a guest is booted
directly from these. Images are only read.
"""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from schemas.resources import HostImage

GIB = 1 << 30
_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_MAGIC = b"QFI\xfb"


class Image(Struct, frozen=True, kw_only=True):
    """One base image. `kernel` and `initrd` are both set or both None."""

    name: str
    path: Path
    size_bytes: int
    """What a guest sees of it."""
    kernel: Path | None = None
    initrd: Path | None = None


def virtual_size(header: bytes) -> int | None:
    """The size in a qcow2 header (QEMU's docs/interop/qcow2.txt: magic, …, bytes 24 to 31)."""
    if len(header) < 32 or header[:4] != _MAGIC:
        return None
    return int.from_bytes(header[24:32], "big")


def find(folder: Path, name: str) -> Image | None:
    """The image of this name, or None where there is none that can be read."""
    if not _NAME.match(name):
        return None
    path = folder / f"{name}.qcow2"
    try:
        with path.open("rb") as file:
            size = virtual_size(file.read(32))
    except OSError:
        return None
    if size is None:
        return None
    kernel, initrd = folder / f"{name}.vmlinuz", folder / f"{name}.initrd"
    direct = kernel.is_file() and initrd.is_file()
    return Image(
        name=name,
        path=path,
        size_bytes=size,
        kernel=kernel if direct else None,
        initrd=initrd if direct else None,
    )


def survey(folder: Path) -> tuple[HostImage, ...]:
    """Every image of the folder, by name."""
    names = sorted(path.stem for path in folder.glob("*.qcow2"))
    found = (find(folder, name) for name in names)
    return tuple(
        HostImage(name=image.name, size_gib=-(-image.size_bytes // GIB))
        for image in found
        if image is not None
    )
