#!/usr/bin/env python3
"""PID 1 of an isolated host: makes the host out of its namespaces and keeps libvirtd running.

    init.py launch SPEC    join the host's cgroups, leave the caller, enter new namespaces
    init.py boot SPEC      inside them: mounts, network, then libvirtd for as long as the host lives

SPEC is a JSON file that `hosts` writes. This file is run by its path with `python -I`, and stands
on the standard library alone.

SIGHUP restarts libvirtd, SIGUSR1 kills it first; a libvirtd that dies by itself is started again.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLONE_NEWCGROUP = 0x02000000
RESTART_DELAY_S = 0.2
LIBVIRTD = "/usr/sbin/libvirtd"
SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1)


def main() -> None:
    verb, spec_path = sys.argv[1:]
    spec = json.loads(Path(spec_path).read_text())
    {"launch": launch, "boot": boot}[verb](spec, spec_path)


def launch(spec: dict[str, Any], spec_path: str) -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    join_cgroups(spec)
    unshare = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
    os.execvp("unshare", [*unshare, sys.executable, "-I", __file__, "boot", spec_path])


def join_cgroups(spec: dict[str, Any]) -> None:
    for group in spec["cgroups"]:
        Path(group["directory"], "cgroup.procs").write_text("0")
    # What this process is in now is what the host sees as the root.
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWCGROUP) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a cgroup namespace")
    for group in spec["cgroups"]:
        # Version 2 lets a cgroup hand controllers down only while it holds no process itself.
        if group["unified"]:
            leaf = Path(group["directory"], "init")
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text("0")


def boot(spec: dict[str, Any], _spec_path: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # /proc is still the machine's, and so is the number found there.
    Path(spec["pid_file"]).write_text(str(Path("/proc/self").readlink()))
    socket.sethostname(spec["name"])
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "sysfs", "sysfs", "/sys")
    mount_cgroups(spec)
    join_bridge(spec)
    for bind in spec["binds"]:
        mount("--bind", bind["source"], bind["target"])
    keep_libvirtd_running()


def mount_cgroups(spec: dict[str, Any]) -> None:
    groups = sorted(spec["cgroups"], key=lambda group: str(group["mount_point"]))
    if groups and groups[0]["mount_point"] != "/sys/fs/cgroup":
        mount("-t", "tmpfs", "tmpfs", "/sys/fs/cgroup")
    for group in groups:
        Path(group["mount_point"]).mkdir(parents=True, exist_ok=True)
        if group["unified"]:
            mount("-t", "cgroup2", "cgroup2", group["mount_point"])
        else:
            mount("-t", "cgroup", "-o", group["options"], "cgroup", group["mount_point"])


def join_bridge(spec: dict[str, Any]) -> None:
    """A cable from eth0 to the bridge that all hosts share, in a namespace of its own."""
    bridge = ["nsenter", f"--net={spec['fabric']}", "--", "ip", "link"]
    # After a power cut the old cable may hang there for a moment.
    subprocess.run([*bridge, "del", spec["name"]], check=False, stderr=subprocess.DEVNULL)
    ip("link", "set", "lo", "up")
    cable = ["type", "veth", "peer", "name", spec["name"], "netns", spec["fabric"]]
    ip("link", "add", "eth0", "address", spec["mac"], *cable)
    subprocess.run([*bridge, "set", spec["name"], "master", "bridge", "up"], check=True)
    ip("address", "add", f"{spec['address']}/24", "dev", "eth0")
    ip("link", "set", "eth0", "up")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def keep_libvirtd_running() -> None:
    libvirtd = start_libvirtd()
    while True:
        received = signal.sigwait(SIGNALS)
        if received == signal.SIGHUP:
            os.kill(libvirtd, signal.SIGTERM)
        elif received == signal.SIGUSR1:
            os.kill(libvirtd, signal.SIGKILL)
        elif libvirtd in reaped():
            time.sleep(RESTART_DELAY_S)
            libvirtd = start_libvirtd()


def start_libvirtd() -> int:
    # Blocked signals are inherited, and libvirtd has to hear SIGHUP and SIGCHLD.
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.execv(LIBVIRTD, [LIBVIRTD])
    return pid


def reaped() -> set[int]:
    """Every child that has ended by now; one signal may stand for many."""
    ended: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.add(pid)


if __name__ == "__main__":
    main()
