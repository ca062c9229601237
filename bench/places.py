"""Where the state of what is measured lies: on a disk, but out of the way of what was there before.

ext4 without a journal passes over every inode that was deleted in the last minutes when it makes a file, so
a run would pay for what the runs before it have deleted, by a third and more.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GET_FLAGS, SET_FLAGS = 0x80086601, 0x40086602
"""`FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS` of linux/fs.h, where a long has 64 bits."""
TOP_OF_TREES = 0x00020000
"""`FS_TOPDIR_FL`, the `T` of chattr(1): what is below has nothing to do with each other."""
MEMORY = Path("/dev/shm")


def disk() -> str:
    """Where state outlives the machine's power: `/tmp` may lie in memory, where syncing costs nothing."""
    return os.environ.get("TMPDIR", "/var/tmp")


def spread(folder: Path) -> None:
    """Ask the file system to lay the folders that are made in this one apart from each other and from what
    else is there. Most can't, and needn't."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            (flags,) = struct.unpack("l", fcntl.ioctl(handle, GET_FLAGS, bytes(8)))
            fcntl.ioctl(handle, SET_FLAGS, struct.pack("l", flags | TOP_OF_TREES))
    finally:
        os.close(handle)


@contextmanager
def no_disks(data_dir: Path) -> Iterator[None]:
    """Let the agent whose folder this is keep the test driver's disks, which are empty files that nothing
    is ever written to, in memory. All else that it keeps stays where it is."""
    with tempfile.TemporaryDirectory(
        prefix="vireo-bench-", dir=MEMORY if MEMORY.is_dir() else data_dir
    ) as memory:
        (data_dir / "vms").symlink_to(memory)
        yield
