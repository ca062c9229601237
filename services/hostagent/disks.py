"""The disks of guests: `data_dir/vms/<vm>/<disk>.qcow2`, overlays on base images or blank.

A disk in a storage pool is `<pool>/<vm>/<disk>.qcow2`, and a link to it stands in the VM's folder: so
where it is stays known even when the settings that named the pool have changed.

What a guest's cloud-init is to find lies beside them, in `seed.iso`; only its owner may read that.

A disk that exists is never written to, and a half-made one never has a disk's name. What removes is
`remove` alone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from pathlib import Path

from schemas.assignments import VmAssignment
from schemas.ids import VmId, is_name, is_uuid7
from schemas.resources import DiskSpec, VmSpec
from services.hostagent import images, seeds
from services.hostagent.hypervisor import HypervisorFailure
from services.hostagent.images import GIB, Image

SEED = "seed.iso"
PASSABLE = 0o711
"""Mode of the folders above disks."""
QEMU_IMG_S = 120.0
"""How long qemu-img may take: it only writes headers."""


class Disks:
    """The disks under one data folder. `empty`: make empty files, for drivers without real guests."""

    def __init__(self, data_dir: Path, image_dir: Path, *, empty: bool = False) -> None:
        self._vms = data_dir.resolve() / "vms"
        self._images = image_dir.resolve()
        self._empty = empty

    def folder(self, vm: VmId) -> Path:
        if not is_uuid7(vm):
            raise ValueError(f"not an id: {vm!r}")
        return self._vms / vm

    def path(self, vm: VmId, name: str) -> Path:
        """Where a disk is: in the VM's folder, or where the link there leads."""
        entry = self._entry(vm, name)
        return entry.readlink() if entry.is_symlink() else entry

    def image(self, spec: VmSpec) -> Image | None:
        """The image that the guest boots from, if it boots from one that is here."""
        name = spec.disks[0].image
        return None if name is None else images.find(self._images, name)

    def missing(self, vm: VmId, spec: VmSpec) -> list[str]:
        """The names of disks that are not there, the seed among them."""
        missing = [disk.name for disk in spec.disks if not self._entry(vm, disk.name).exists()]
        return [*missing, SEED] if spec.seeded and not self.seed(vm).exists() else missing

    def seed(self, vm: VmId) -> Path:
        return self.folder(vm) / SEED

    async def create(self, vm: VmId, disk: DiskSpec, *, pool: Path | None = None) -> None:
        """`pool`: the folder to make it in; one that exists stays where it is."""
        entry = self._entry(vm, disk.name)
        if entry.exists():
            return
        elsewhere = entry.readlink() if entry.is_symlink() else None
        if elsewhere is not None and not elsewhere.parent.parent.is_dir():
            raise HypervisorFailure(f"the pool of disk {disk.name!r} is away: {elsewhere}")
        base = self._base(disk)
        self._make_folder(vm)
        if pool is not None and elsewhere is None:
            elsewhere = pool.resolve() / vm / entry.name
            _link(entry, elsewhere)
        if elsewhere is not None:
            _passable(elsewhere.parent)
        path = elsewhere or entry
        if self._empty:
            path.touch()
            return
        unfinished = path.with_suffix(".qcow2.new")
        unfinished.unlink(missing_ok=True)
        await _qemu_img(*_create_arguments(unfinished, base, disk.size_gib))
        await asyncio.to_thread(_finish, unfinished, path)

    async def write_seed(self, assignment: VmAssignment) -> None:
        path = self.seed(assignment.vm)
        if path.exists():
            return
        image = await asyncio.to_thread(seeds.image_of, seeds.files_of(assignment))
        self._make_folder(assignment.vm)
        await asyncio.to_thread(_write_for_owner, path, image)

    async def remove(self, vm: VmId) -> None:
        folder = self.folder(vm)
        if folder.exists():
            await asyncio.to_thread(_remove, folder)

    def _make_folder(self, vm: VmId) -> None:
        # QEMU runs as a user of its own, who must pass through but needs to see nothing else.
        _passable(self.folder(vm))

    def _entry(self, vm: VmId, name: str) -> Path:
        if not is_name(name):
            raise ValueError(f"not a name: {name!r}")
        return self.folder(vm) / f"{name}.qcow2"

    def _base(self, disk: DiskSpec) -> Image | None:
        if disk.image is None:
            if not disk.size_gib:
                raise HypervisorFailure(f"disk {disk.name!r} has neither an image nor a size")
            return None
        base = images.find(self._images, disk.image)
        if base is None:
            raise HypervisorFailure(f"image {disk.image!r} is not on this host")
        if disk.size_gib and disk.size_gib * GIB < base.size_bytes:
            needed = -(-base.size_bytes // GIB)
            raise HypervisorFailure(
                f"disk {disk.name!r} of {disk.size_gib} GiB is smaller than image {disk.image!r},"
                f" which needs {needed} GiB"
            )
        return base


def _create_arguments(path: Path, base: Image | None, size_gib: int) -> list[str]:
    backing = [] if base is None else ["-b", str(base.path), "-F", "qcow2"]
    size = [f"{size_gib}G"] if size_gib else []
    return ["create", "-q", "-f", "qcow2", *backing, str(path), *size]


async def _qemu_img(*arguments: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "qemu-img",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise HypervisorFailure("qemu-img is not installed on this host") from error
    try:
        async with asyncio.timeout(QEMU_IMG_S):
            _, complaint = await process.communicate()
    except (TimeoutError, asyncio.CancelledError):
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise HypervisorFailure(complaint.decode(errors="replace").strip()[:1000])


def _passable(folder: Path) -> None:
    """Make a folder, and the one that holds it."""
    try:
        folder.mkdir(PASSABLE)
    except FileNotFoundError:
        folder.parent.mkdir(parents=True)
        folder.parent.chmod(PASSABLE)
        folder.mkdir(PASSABLE)
    except FileExistsError:
        pass
    # Whatever the process' mask, and whoever made it.
    if stat.S_IMODE(folder.stat().st_mode) != PASSABLE:
        folder.chmod(PASSABLE)


def _link(entry: Path, target: Path) -> None:
    """The link is on the platter before there is anything that it leads to: nothing is left behind."""
    entry.symlink_to(target)
    _sync(entry.parent)


def _remove(folder: Path) -> None:
    """A VM's folder and what its links lead to: in each pool, the folder of the same VM."""
    for entry in folder.iterdir():
        if not entry.is_symlink():
            continue
        in_pool = entry.readlink().parent
        if in_pool.name != folder.name:
            raise HypervisorFailure(f"{entry} leads to {entry.readlink()}, which is not the VM's")
        if not in_pool.parent.is_dir():
            raise HypervisorFailure(f"the pool of {entry.readlink()} is away: it cannot be removed")
        if in_pool.exists():
            shutil.rmtree(in_pool)
    shutil.rmtree(folder)


def _write_for_owner(path: Path, content: bytes) -> None:
    """For the agent, and for the user to whom libvirt gives a guest's disks while it runs."""
    unfinished = path.with_suffix(".iso.new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(content)
    _finish(unfinished, path)


def _finish(unfinished: Path, path: Path) -> None:
    """Give a disk its name once all of it is on the platter."""
    _sync(unfinished)
    unfinished.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
