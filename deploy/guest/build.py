"""Build the tiny guest: NAME.vmlinuz, NAME.initrd and NAME.qcow2 in an image directory.

What a host's agent calls an image is `<image_dir>/NAME.qcow2`; with a kernel and an initrd of the
same name beside it, the guest is booted from these. The parts come from the distribution's own
packages (kernel, busybox, qemu-guest-agent with its libraries), so no root and no mounts are needed.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from deploy.guest.cpio import Archive
from deploy.guest.elf import interpreter, needed_libraries
from deploy.guest.modules import HOSTS, KernelModules
from deploy.guest.packages import Apt, PackageError

NAME = "tiny"
KERNEL_ARGUMENTS = "console=ttyS0 panic=-1"
MEMORY_MIB = 96
DISK_MIB = 64

# The first that the distribution has: Debian's, then Ubuntu's kernel for virtual machines.
KERNEL_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual")
_LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64")
# Libraries sit at most this many steps of "depends on" away from the program that wants them.
_DEPENDENCY_DEPTH = 4
_ROOTFS = Path(__file__).parent / "rootfs"
_ROOTFS_PLACES = {
    "init": "/init",
    "udhcpc.sh": "/etc/udhcpc.sh",
    "shutdown": "/sbin/shutdown",
    "power-button": "/etc/acpi/PWRF/00000080",
    "fsfreeze-hook": "/etc/qemu/fsfreeze-hook",
}


class GuestImage(msgspec.Struct, frozen=True):
    """Where a guest's parts lie."""

    directory: Path
    name: str

    @property
    def kernel(self) -> Path:
        return self.directory / f"{self.name}.vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / f"{self.name}.initrd"

    @property
    def disk(self) -> Path:
        return self.directory / f"{self.name}.qcow2"

    @property
    def host_modules(self) -> Path:
        """An archive to lay over the initrd, with which a guest can be a host: modules in
        `/lib/host-modules`, named in the order to load them in."""
        return self.directory / f"{self.name}.host-modules"

    @property
    def manifest(self) -> Path:
        return self.directory / f"{self.name}.json"

    @property
    def parts(self) -> tuple[Path, ...]:
        return (self.kernel, self.initrd, self.disk, self.host_modules)


def default_image_dir() -> Path:
    """`/var/cache/vireo/guest` for root, else below the user's cache directory."""
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "vireo" / "guest"
    if os.geteuid() == 0:
        return Path("/var/cache/vireo/guest")
    return Path.home() / ".cache" / "vireo" / "guest"


def ensure_guest(directory: Path, *, force: bool = False) -> GuestImage:
    """The tiny guest in `directory`, built first unless it is there and its sources are unchanged.

    Two processes that ask at the same time build it once. Raises PackageError when the
    distribution's packages cannot be had.
    """
    image = GuestImage(directory.absolute(), NAME)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / f".{NAME}.lock"):
        if force or not _is_current(image):
            _build(image)
    return image


def source_fingerprint() -> str:
    """Changes with every byte of this package, and with the distribution that feeds it."""
    digest = hashlib.sha256(distribution().encode())
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def distribution() -> str:
    release = platform.freedesktop_os_release()
    return f"{release['ID']} {release.get('VERSION_ID', '')}"


def _is_current(image: GuestImage) -> bool:
    if not all(path.exists() for path in (*image.parts, image.manifest)):
        return False
    manifest: dict[str, object] = json.loads(image.manifest.read_text())
    return manifest["fingerprint"] == source_fingerprint()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(image: GuestImage) -> None:
    if platform.machine() != "x86_64":
        raise PackageError(f"the tiny guest is built on x86_64 only, this is {platform.machine()}")
    # Beside the result, so that each part moves into place in one step.
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=image.directory) as work:
        work_dir = Path(work)
        root = work_dir / "root"
        root.mkdir()
        apt = Apt(work_dir)
        try:
            _unpack(apt, root)
        except PackageError:
            apt.refresh()
            _unpack(apt, root)
        built = GuestImage(work_dir, NAME)
        _write_parts(root, built)
        built.manifest.write_text(
            json.dumps({"fingerprint": source_fingerprint(), "packages": apt.versions}, indent=2)
        )
        # The manifest goes last: without it the parts count as absent.
        image.manifest.unlink(missing_ok=True)
        for source, target in zip(
            (*built.parts, built.manifest), (*image.parts, image.manifest), strict=True
        ):
            source.chmod(0o644)
            source.replace(target)


def _unpack(apt: Apt, root: Path) -> None:
    kernel = next((name for name in KERNEL_PACKAGES if apt.knows(name)), None)
    if kernel is None:
        raise PackageError("apt knows none of " + ", ".join(KERNEL_PACKAGES))
    apt.unpack([*_kernel_parts(apt, kernel), "busybox-static", "qemu-guest-agent"], root)
    _unpack_libraries(apt, root)


def _kernel_parts(apt: Apt, package: str) -> list[str]:
    """The image itself and, where the distribution splits them off, its modules."""
    images = [n for n in apt.dependencies([package]) if n.startswith("linux-image-")]
    modules = [n for n in apt.dependencies(images) if n.startswith("linux-modules-")]
    return images + modules


def _unpack_libraries(apt: Apt, root: Path) -> None:
    seen: set[str] = set()
    packages = ["qemu-guest-agent"]
    for _ in range(_DEPENDENCY_DEPTH):
        found = apt.dependencies(packages)
        packages = [n for n in found if n not in seen and n.startswith(("lib", "zlib"))]
        seen.update(packages)
        apt.unpack(packages, root)
        _, missing = _libraries(root)
        if not missing:
            return
    raise PackageError("no package holds " + ", ".join(missing))


def _libraries(root: Path) -> tuple[dict[str, bytes], list[str]]:
    """What qemu-ga needs, name to content, and the names that are nowhere in `root`."""
    agent = _program(root, "qemu-ga").read_bytes()
    loader = interpreter(agent)
    wanted = [*needed_libraries(agent), *([Path(loader).name] if loader else [])]
    found: dict[str, bytes] = {}
    missing: list[str] = []
    while wanted:
        name = wanted.pop()
        if name in found or name in missing:
            continue
        path = _library_path(root, name)
        if path is None:
            missing.append(name)
        else:
            found[name] = path.read_bytes()
            wanted += needed_libraries(found[name])
    return dict(sorted(found.items())), sorted(missing)


def _library_path(root: Path, name: str) -> Path | None:
    return next((p for f in _LIBRARY_FOLDERS if (p := root / f / name).is_file()), None)


def _program(root: Path, name: str) -> Path:
    for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
        if (path := root / folder / name).is_file():
            return path
    raise PackageError(f"the packages hold no {name}")


def _write_parts(root: Path, image: GuestImage) -> None:
    kernels = sorted(root.glob("boot/vmlinuz-*"))
    if not kernels:
        raise PackageError("the kernel package holds no boot/vmlinuz-*")
    shutil.copyfile(kernels[-1], image.kernel)
    image.initrd.write_bytes(_compressed(_initramfs(root)))
    image.host_modules.write_bytes(_host_modules(root))
    _write_disk(image)


def _module_tree(root: Path) -> Path:
    (tree,) = (*root.glob("lib/modules/*"), *root.glob("usr/lib/modules/*"))
    return tree


def _host_modules(root: Path) -> bytes:
    archive = Archive()
    images = KernelModules(_module_tree(root)).load(required=(), optional=HOSTS)
    for index, (name, image) in enumerate(images.items()):
        archive.add_file(f"lib/host-modules/{index:02}-{name}.ko", image)
    return archive.finish()


def _initramfs(root: Path) -> bytes:
    archive = Archive()
    for folder in ("proc", "sys", "run", "tmp", "root", "var", "usr/bin", "usr/sbin", "data"):
        archive.add_directory(folder)
    # The kernel opens the console before anything is mounted.
    archive.add_character_device("dev/console", major=5, minor=1, permissions=0o600)
    archive.add_character_device("dev/null", major=1, minor=3, permissions=0o666)
    archive.add_link("var/run", "/run")
    archive.add_link("bin/sh", "busybox")
    archive.add_file("bin/busybox", _program(root, "busybox").read_bytes(), permissions=0o755)
    archive.add_file("usr/sbin/qemu-ga", _program(root, "qemu-ga").read_bytes(), permissions=0o755)
    archive.add_link("lib64", "lib")
    for name, library in _libraries(root)[0].items():
        archive.add_file(f"lib/{name}", library, permissions=0o755)
    _add_modules(archive, KernelModules(_module_tree(root)))
    _add_configuration(archive)
    return archive.finish()


def _add_modules(archive: Archive, modules: KernelModules) -> None:
    images = modules.load()
    for name, image in images.items():
        archive.add_file(f"lib/modules/{name}.ko", image)
    archive.add_file("etc/modules", "".join(f"{name}\n" for name in images).encode())


def _add_configuration(archive: Archive) -> None:
    for name, place in _ROOTFS_PLACES.items():
        archive.add_file(place, (_ROOTFS / name).read_bytes(), permissions=0o755)
    archive.add_file("etc/os-release", (_ROOTFS / "os-release").read_bytes())
    archive.add_file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    archive.add_file("etc/group", b"root:x:0:\n")
    archive.add_file("etc/hosts", b"127.0.0.1 localhost\n")


def _compressed(data: bytes) -> bytes:
    # One fixed level and one thread: equal input makes equal output.
    return subprocess.run(
        ["zstd", "-q", "-9", "-c", "--single-thread"], input=data, capture_output=True, check=True
    ).stdout


def _write_disk(image: GuestImage) -> None:
    """A small disk with an empty ext4, so that a guest has a file system to report."""
    raw = image.directory / "disk.raw"
    with raw.open("wb") as disk:
        disk.truncate(DISK_MIB * 1024 * 1024)
    tool("mke2fs", "-q", "-t", "ext4", "-L", "data", str(raw))
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image.disk))


def tool(name: str, *arguments: str) -> None:
    # Debian keeps file system tools out of an ordinary user's PATH.
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise PackageError(f"{name} is not on this machine")
    subprocess.run([program, *arguments], check=True, capture_output=True)
