"""Which hypervisor this machine offers, found without libvirt's library: the agent alone may use that."""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from vireo.standalone.options import HostOption

SYSTEM_SOCKETS = (
    Path("/run/libvirt/virtqemud-sock"),
    Path("/run/libvirt/libvirt-sock"),
)
DAEMONS = ("virtqemud", "libvirtd")
EMULATORS = ("qemu-system-x86_64", "qemu-system-aarch64", "qemu-kvm")
SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec:/usr/local/sbin:/usr/local/bin"
CONNECT_TIMEOUT_S = 1.0


def this_machine(*, root: bool, sockets: Sequence[Path] = SYSTEM_SOCKETS) -> HostOption:
    """The machine's system libvirt if it answers, else one of our own, else the test driver."""
    return HostOption(name=host_name(socket.gethostname()), uri=_uri(root=root, sockets=sockets))


def _uri(*, root: bool, sockets: Sequence[Path]) -> str:
    if importlib.util.find_spec("libvirt") is None:
        return "test:///default"
    if any(answers(path) for path in sockets):
        return "qemu:///system"
    if not root and has_session_libvirt():
        return "qemu:///session"
    return "test:///default"


def has_session_libvirt() -> bool:
    """Whether libvirt could start a daemon for this user alone."""
    found = [shutil.which(name, path=SEARCH) for name in DAEMONS]
    return any(found) and any(shutil.which(name, path=SEARCH) for name in EMULATORS)


def answers(path: Path) -> bool:
    """Whether something accepts connections on a Unix socket that we may use."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def host_name(machine: str) -> str:
    """A machine's name in the form that hosts' names have."""
    plain = re.sub(r"[^a-z0-9-]+", "-", machine.partition(".")[0].lower()).strip("-")[:63]
    return plain or "host"
