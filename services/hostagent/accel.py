"""How guests are run: under KVM or emulated.

That `/dev/kvm` is there proves nothing (nested and sandboxed machines have one that hangs), so `auto`
boots a kernel under KVM once and waits for its first words. The answer is remembered until the
machine boots again or QEMU changes.
"""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path
from typing import Literal

import msgspec
import structlog
from msgspec import Struct

log = structlog.get_logger(__name__)

QEMU = "qemu-system-x86_64"
FIRST_WORDS = b"Linux version"
VERSION_S = 5.0

Accelerator = Literal["kvm", "qemu"]


class Answer(Struct, frozen=True, kw_only=True):
    """What was found, and for which machine."""

    key: str
    accelerator: Accelerator
    reason: str


async def choose(
    wish: Literal["auto", "kvm", "qemu"],
    *,
    image_dir: Path,
    memory: Path,
    limit_s: float,
    kvm: Path = Path("/dev/kvm"),
) -> Accelerator:
    """The accelerator to use; what a trial showed is kept in the file `memory`."""
    if wish != "auto":
        log.info("domain_type", chosen=wish, reason="set")
        return wish
    answer = await _find_out(image_dir=image_dir, memory=memory, limit_s=limit_s, kvm=kvm)
    log.info("domain_type", chosen=answer.accelerator, reason=answer.reason)
    return answer.accelerator


async def _find_out(*, image_dir: Path, memory: Path, limit_s: float, kvm: Path) -> Answer:
    if not os.access(kvm, os.R_OK | os.W_OK):
        return Answer(key="", accelerator="qemu", reason=f"{kvm} cannot be opened")
    kernel = _any_kernel(image_dir)
    if kernel is None:
        return Answer(key="", accelerator="qemu", reason="there is no kernel to try KVM with")
    key = await _key()
    known = _remembered(memory)
    if known is not None and known.key == key:
        return known
    works = await boots(kernel, accelerator="kvm", limit_s=limit_s)
    answer = Answer(
        key=key,
        accelerator="kvm" if works else "qemu",
        reason=f"{kernel} {'booted' if works else f'did not boot in {limit_s:g} s'} under KVM",
    )
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_bytes(msgspec.json.encode(answer))
    return answer


async def boots(kernel: Path, *, accelerator: Literal["kvm", "tcg"], limit_s: float) -> bool:
    """Whether a kernel says its first words. It has no root and panics soon after, which ends QEMU."""
    try:
        process = await asyncio.create_subprocess_exec(
            QEMU,
            *("-accel", accelerator, "-m", "128", "-nodefaults", "-no-reboot"),
            *("-display", "none", "-monitor", "none", "-serial", "stdio"),
            *("-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return False
    assert process.stdout is not None
    try:
        async with asyncio.timeout(limit_s):
            await process.stdout.readuntil(FIRST_WORDS)
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return True


def _any_kernel(image_dir: Path) -> Path | None:
    """A guest's kernel, else the newest of the machine's own that may be read."""
    candidates = sorted(image_dir.glob("*.vmlinuz"))
    boot = sorted(Path("/boot").glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    candidates += reversed(boot)
    return next((path for path in candidates if os.access(path, os.R_OK)), None)


async def _key() -> str:
    """What the answer depends on: this boot of this kernel, and this QEMU."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    boot = boot_id.read_text().strip() if boot_id.exists() else ""
    return f"{platform.release()} {boot} {await _qemu_version()}"


async def _qemu_version() -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            QEMU,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(VERSION_S):
            out, _ = await process.communicate()
    except (FileNotFoundError, TimeoutError):
        return ""
    return out.decode(errors="replace").partition("\n")[0]


def _remembered(memory: Path) -> Answer | None:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=Answer)
    except (OSError, msgspec.MsgspecError):
        return None
