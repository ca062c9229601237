"""The true guest agent over real AF_VSOCK, heard by the host's own code, inside a guest."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from deploy.guest import GuestImage
from tests.fixtures.python_guest import PYTHON, ROOT, Machine, overlay, run

INIT = f"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/sbin:/bin LD_LIBRARY_PATH=/lib
mount -t tmpfs tmpfs /tmp
hostname vsock-guest
ip link set lo up
while read -r module; do
  insmod "/lib/modules/$module.ko" 2>/dev/null
done </etc/modules
{PYTHON} /vsock_check.py
poweroff -f
"""


@pytest.mark.timeout(240)
async def test_the_agent_is_heard_over_vsock_from_its_own_address_alone(
    tiny_guest: GuestImage,
) -> None:
    if shutil.which("qemu-system-x86_64") is None and not os.environ.get("CI"):
        pytest.skip("QEMU is not on this machine")
    laid = overlay(
        init=INIT,
        modules=(
            "asyncio",
            "ctypes",
            "encodings.idna",
            "guest.vireo_guest_agent",
            "runpy",
            "services.hostagent.guest_lines",
            "tests.fixtures.vsock_check",
        ),
        files={
            "vsock_check.py": (ROOT / "tests/fixtures/vsock_check.py").read_bytes(),
            "vireo_guest_agent.py": Path(ROOT / "guest/vireo_guest_agent.py").read_bytes(),
        },
    )
    console = await asyncio.to_thread(run, Machine(image=tiny_guest, overlay=laid))
    said = [line for line in console.splitlines() if line.startswith("SEEN ")]
    assert said, console[-4000:]
    assert json.loads(said[0].removeprefix("SEEN ")) == {
        "frames": True,
        "hostname": "vsock-guest",
        "by_ctypes": True,
        "unprivileged": True,
        "unknown": True,
    }
