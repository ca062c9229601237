"""The true guest agent over real AF_VSOCK: a guest that is a host itself, with a guest of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from deploy.guest import GuestImage
from tests.fixtures.python_guest import PYTHON, ROOT, Machine, laid_over, overlay, run
from tests.fixtures.vsock_check import INNER_CID

QEMU = "qemu-system-x86_64"
FIRMWARE_FOLDERS = ("/usr/share/seabios", "/usr/share/qemu")
FIRMWARE = ("bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin")

START = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/sbin:/bin LD_LIBRARY_PATH=/lib
mount -t tmpfs tmpfs /tmp
while read -r module; do
  insmod "/lib/modules/$module.ko" 2>/dev/null
done </etc/modules
"""
INNER = f"""{START}
hostname inner
{PYTHON} -I -S /vireo_guest_agent.py
poweroff -f
"""
OUTER = f"""{START}
hostname outer
ip link set lo up
for module in /lib/host-modules/*.ko; do
  insmod "$module"
done
if [ -e /dev/kvm ]; then accelerator=kvm; else accelerator=tcg; fi
{PYTHON} /vsock_check.py {QEMU} -accel $accelerator -cpu max -m 160 -M pc -nodefaults -no-reboot \\
  -display none -monitor none -serial stdio -L /firmware \\
  -kernel /inner.kernel -initrd /inner.initrd -append 'console=ttyS0 panic=-1 quiet rdinit=/start' \\
  -device vhost-vsock-pci,guest-cid={INNER_CID}
poweroff -f
"""


def machine(image: GuestImage, qemu: Path) -> Machine:
    agent = {"vireo_guest_agent.py": (ROOT / "guest/vireo_guest_agent.py").read_bytes()}
    initrd = image.initrd.read_bytes()
    inner = overlay(init=INNER, modules=("encodings.idna", "guest.vireo_guest_agent"), files=agent)
    outer = overlay(
        init=OUTER,
        modules=("ctypes", "encodings.idna", "runpy", "tests.fixtures.vsock_check"),
        files={
            **agent,
            **firmware(),
            "vsock_check.py": (ROOT / "tests/fixtures/vsock_check.py").read_bytes(),
            "inner.kernel": image.kernel.read_bytes(),
            "inner.initrd": laid_over(initrd, inner),
        },
        programs=(qemu,),
    )
    whole = laid_over(initrd, image.host_modules.read_bytes(), outer)
    return Machine(kernel=image.kernel, initrd=whole, memory_mib=1280)


def firmware() -> dict[str, bytes]:
    places = (Path(folder) / name for name in FIRMWARE for folder in FIRMWARE_FOLDERS)
    return {f"firmware/{place.name}": place.read_bytes() for place in places if place.exists()}


@pytest.mark.timeout(240)
async def test_each_agent_is_heard_by_its_own_address_and_no_other_is_heard(
    tiny_guest: GuestImage,
) -> None:
    qemu = shutil.which(QEMU)
    if qemu is None:
        assert not os.environ.get("CI")
        pytest.skip("QEMU is not on this machine")
    console = await asyncio.to_thread(run, machine(tiny_guest, Path(qemu).resolve()))
    said = [line for line in console.splitlines() if line.startswith("SEEN ")]
    assert said, console[-4000:]
    assert json.loads(said[0].removeprefix("SEEN ")) == {
        "inner": True,
        "beside": True,
        "names": [["inner"], ["outer"]],
        "by_ctypes": True,
        "unprivileged": True,
        "unknown": True,
        "heard": 0,
    }
