"""Write an initramfs archive: cpio in the "newc" format, the one that Linux unpacks at boot.

Only the writing; which files belong into the guest is `build`'s business. The format is described
in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from pathlib import PurePosixPath

_MAGIC = b"070701"
_ALIGNMENT = 4


class Archive:
    """An archive that grows entry by entry, owned by root throughout.

    Parent directories appear by themselves. Entries keep the order in which they are added, and
    nothing depends on the clock, so equal content makes equal bytes.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._directories: set[PurePosixPath] = {PurePosixPath()}
        self._entries = 0

    def add_directory(self, path: str, *, permissions: int = 0o755) -> None:
        name = _relative(path)
        if name in self._directories:
            return
        self._add_parents(name)
        self._directories.add(name)
        self._append(name, mode=stat.S_IFDIR | permissions)

    def add_file(self, path: str, content: bytes, *, permissions: int = 0o644) -> None:
        name = _relative(path)
        self._add_parents(name)
        self._append(name, mode=stat.S_IFREG | permissions, content=content)

    def add_link(self, path: str, target: str) -> None:
        name = _relative(path)
        self._add_parents(name)
        self._append(name, mode=stat.S_IFLNK | 0o777, content=target.encode())

    def add_character_device(self, path: str, *, major: int, minor: int, permissions: int) -> None:
        name = _relative(path)
        self._add_parents(name)
        self._append(name, mode=stat.S_IFCHR | permissions, device=(major, minor))

    def finish(self) -> bytes:
        """The whole archive, with its trailer; the archive itself stays as it was."""
        return bytes(self._bytes) + _record(
            b"TRAILER!!!", inode=0, mode=0, content=b"", device=(0, 0)
        )

    def _add_parents(self, name: PurePosixPath) -> None:
        for parent in reversed(name.parents):
            if parent not in self._directories:
                self.add_directory(str(parent))

    def _append(
        self,
        name: PurePosixPath,
        *,
        mode: int,
        content: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self._entries += 1
        self._bytes += _record(
            str(name).encode(), inode=self._entries, mode=mode, content=content, device=device
        )


def _relative(path: str) -> PurePosixPath:
    return PurePosixPath(path.lstrip("/"))


def _record(
    name: bytes, *, inode: int, mode: int, content: bytes, device: tuple[int, int]
) -> bytes:
    terminated = name + b"\0"
    major, minor = device
    # inode, mode, uid, gid, links, mtime, size, device of the file system, device of the node,
    # length of the name, checksum (always zero in this variant of the format)
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(terminated), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + terminated) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
