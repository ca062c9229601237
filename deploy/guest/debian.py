"""Build a guest with Debian's own kernel, systemd, cloud-init and Python: `debian.{vmlinuz,initrd,qcow2}`.

What is to be seen in the guests that people run is seen in this one; for everything else the tiny guest
is enough. mmdebstrap installs the packages, so root is needed. Booting takes half a minute where QEMU
emulates the processor.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from deploy.guest.build import GuestImage, default_image_dir, distribution, locked, tool
from deploy.guest.packages import PackageError

NAME = "debian"
KERNEL_ARGUMENTS = "root=/dev/vda rw console=ttyS0"
MEMORY_MIB = 512
DISK_MIB = 2048
PACKAGES = (
    "systemd-sysv",
    "udev",
    "linux-image-cloud-amd64",
    "cloud-init",
    "ifupdown",
    "python3",
    "qemu-guest-agent",
    # Compresses the initrd.
    "zstd",
)
FILES = {
    # A guest of a cloud that is asked for in vain costs a minute each. For the rest there are no programs
    # here, and newer cloud-inits call that an error.
    "etc/cloud/cloud.cfg.d/90_vireo.cfg": (
        "datasource_list: [NoCloud]\nlocale: false\nresize_rootfs: false\nssh_genkeytypes: []\n"
    ),
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
}
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale")
BUILD_S = 900.0


def ensure_debian(directory: Path | None = None) -> GuestImage:
    """The guest in `directory`, built first unless it is there, and for this distribution and by this
    file. Raises PackageError where it cannot be had, and says why."""
    directory = (directory or default_image_dir() / NAME).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    image = GuestImage(directory, NAME)
    with locked(directory / f".{NAME}.lock"):
        if not _is_current(image):
            _build(image)
    return image


def why_not() -> str:
    """Why it cannot be built here; empty where it can."""
    if platform.machine() != "x86_64" or platform.freedesktop_os_release()["ID"] != "debian":
        return "the Debian guest is built on Debian on x86_64 only"
    if os.geteuid() != 0:
        return "mmdebstrap needs root"
    if shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not on this machine (./dev test installs it)"
    return ""


def _parts(image: GuestImage) -> tuple[Path, ...]:
    return (image.kernel, image.initrd, image.disk)


def _fingerprint() -> str:
    return hashlib.sha256(distribution().encode() + Path(__file__).read_bytes()).hexdigest()


def _is_current(image: GuestImage) -> bool:
    if not all(path.exists() for path in (*_parts(image), image.manifest)):
        return False
    return bool(json.loads(image.manifest.read_text())["fingerprint"] == _fingerprint())


def _build(image: GuestImage) -> None:
    if reason := why_not():
        raise PackageError(reason)
    fingerprint = _fingerprint()
    # Beside the result, so that each part moves into place in one step.
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=image.directory) as work:
        root, built = Path(work) / "root", GuestImage(Path(work), NAME)
        _install(root)
        _write_parts(root, built)
        image.manifest.unlink(missing_ok=True)
        for source, target in zip(_parts(built), _parts(image), strict=True):
            source.replace(target)
        # Last: without it the parts count as absent.
        image.manifest.write_text(json.dumps({"fingerprint": fingerprint}))


def _install(root: Path) -> None:
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        '--aptopt=Acquire::Retries "3"',
        *(f"--dpkgopt=path-exclude=/{folder}/*" for folder in UNUSED),
        f"--include={','.join(PACKAGES)}",
        platform.freedesktop_os_release()["VERSION_CODENAME"],
        str(root),
    ]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode != 0:
        raise PackageError(f"mmdebstrap failed: {done.stderr.strip()[-2000:]}")
    for name, text in FILES.items():
        (root / name).write_text(text)


def _write_parts(root: Path, image: GuestImage) -> None:
    (kernel,), (initrd,) = root.glob("boot/vmlinuz-*"), root.glob("boot/initrd.img-*")
    kernel.replace(image.kernel)
    initrd.replace(image.initrd)
    raw = image.directory / "disk.raw"
    with raw.open("wb") as disk:
        disk.truncate(DISK_MIB * 1024 * 1024)
    tool("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(raw))
    tool("qemu-img", "convert", "-O", "qcow2", str(raw), str(image.disk))
