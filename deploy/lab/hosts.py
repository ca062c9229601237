"""Isolated hosts: bring them up, cut their power, restart their libvirtd, take them down.

A host is a folder `<lab>/<name>` and, while it runs, a process tree under `init`. What survives a
power cut is in the folder. Nothing here speaks libvirt's protocol; `virsh` tells when a host is up.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.lab import cgroups, configuration

START_TIMEOUT_S = 30.0
RESTART_TIMEOUT_S = 70.0
"""libvirtd that is told to end gives the calls in hand half a minute, then ends all the same."""
STOP_TIMEOUT_S = 15.0
COMMAND_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.02
# sun_path in unix(7), less the final zero.
MAX_SOCKET_PATH = 107

_INIT = Path(__file__).with_name("init.py")
_LIBVIRTD = Path("/usr/sbin/libvirtd")
_TOOLS = ("unshare", "nsenter", "ip", "mount", "virsh", "qemu-system-x86_64", "dnsmasq")
# What a host has of its own, by the path that it sees.
_BINDS = {
    "etc-libvirt": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "run": "/run",
}


class LabError(Exception):
    """A host cannot do what was asked; the text says why."""


def why_hosts_cannot_run() -> str | None:
    """The reason why this machine cannot carry isolated hosts, or None."""
    if os.geteuid() != 0:
        return "isolated hosts need root"
    if not _LIBVIRTD.exists():
        return f"isolated hosts need libvirtd, and there is no {_LIBVIRTD}"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"isolated hosts need {', '.join(missing)}" if missing else None


class Host:
    """One isolated libvirt host. Its paths mean the same inside and outside."""

    def __init__(self, lab_directory: Path, number: int) -> None:
        self.number = number
        self.name = configuration.host_name(number)
        self.directory = lab_directory / self.name
        self._fabric = lab_directory / "fabric"
        self._hosts_file = lab_directory / "hosts"

    @property
    def socket(self) -> Path:
        return self.directory / "run" / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def data_dir(self) -> Path:
        """For the host's agent, which runs outside: state, images, disks."""
        return self.directory / "data"

    @property
    def pid(self) -> int | None:
        """The host's PID 1 as the machine numbers it; None while the host is off."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        # A number may have passed on to another process, and a dead one has no command line.
        return pid if str(self._spec_file).encode() in command.split(b"\0") else None

    @property
    def _pid_file(self) -> Path:
        return self.directory / "init.pid"

    @property
    def _spec_file(self) -> Path:
        return self.directory / "spec.json"

    @property
    def _log_file(self) -> Path:
        return self.directory / "init.log"

    def start(self) -> None:
        """Power on; returns when libvirtd answers. Does nothing to a host that runs."""
        if self.pid is not None:
            return
        self._prepare()
        with self._log_file.open("ab") as log:
            subprocess.run(
                [sys.executable, "-I", str(_INIT), "launch", str(self._spec_file)],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=COMMAND_TIMEOUT_S,
            )
        self._wait_until_up()

    def crash(self) -> None:
        """Cut the power: everything inside dies at once, and /run is empty afterwards."""
        if (pid := self.pid) is not None:
            _kill_and_wait(pid)
        self._remove_cgroups()
        shutil.rmtree(self.directory / "run", ignore_errors=True)

    def restart_libvirtd(self, *, kill: bool = False) -> None:
        """Restart libvirtd, after SIGKILL if `kill`; returns when the new one answers."""
        before = self._libvirtd_pid()
        os.kill(self._running_pid(), signal.SIGUSR1 if kill else signal.SIGHUP)
        if not _wait_until(lambda: self._libvirtd_pid() not in (None, before), RESTART_TIMEOUT_S):
            raise LabError(f"{self.name}: libvirtd did not come back; see {self._log_file}")
        self._wait_until_up()

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` inside the host."""
        # The root as well: a mount namespace alone would lead out of a chroot.
        entered = ["--mount", "--root", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return ["nsenter", f"--target={self._running_pid()}", *entered, "--", *command]

    def run(
        self, command: Sequence[str], *, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command inside the host and wait for its end, whatever its exit code."""
        return subprocess.run(
            self.command(command),
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def _running_pid(self) -> int:
        pid = self.pid
        if pid is None:
            raise LabError(f"{self.name} is off")
        return pid

    def _libvirtd_pid(self) -> int | None:
        """As the host itself numbers it."""
        try:
            return int((self.directory / "run" / "libvirtd.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _prepare(self) -> None:
        self._pid_file.unlink(missing_ok=True)
        shutil.rmtree(self.directory / "run", ignore_errors=True)
        for folder in (*_BINDS, "data", "run/lock", "etc-libvirt/qemu/networks/autostart"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        etc = self.directory / "etc-libvirt"
        identity = uuid.uuid5(uuid.NAMESPACE_URL, self.directory.as_uri())
        settings = {"host_uuid": str(identity), **configuration.LIBVIRTD}
        (etc / "libvirtd.conf").write_text(configuration.render(settings))
        (etc / "qemu.conf").write_text(configuration.render(configuration.QEMU))
        (etc / "network.conf").write_text(configuration.render(configuration.NETWORK))
        self._prepare_networks(etc)
        self._write_spec()

    def _prepare_networks(self, etc: Path) -> None:
        network = etc / "qemu" / "networks" / "default.xml"
        # Once only: what somebody changed since then is part of the host.
        if not network.exists():
            network.write_text(configuration.nat_network(self.number))
            (network.parent / "autostart" / network.name).symlink_to(
                "/etc/libvirt/qemu/networks/default.xml"
            )
        filters = Path("/etc/libvirt/nwfilter")
        if filters.is_dir() and not (etc / "nwfilter").exists():
            shutil.copytree(filters, etc / "nwfilter")

    def _write_spec(self) -> None:
        groups = []
        for hierarchy in cgroups.hierarchies(
            Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
        ):
            group = cgroups.directory(hierarchy, self.cgroup_name)
            cgroups.create(group)
            groups.append(
                {
                    "directory": str(group),
                    "mount_point": hierarchy.mount_point,
                    "unified": hierarchy.unified,
                    "options": hierarchy.options,
                }
            )
        binds = [{"source": str(self.directory / k), "target": v} for k, v in _BINDS.items()]
        binds.insert(0, {"source": str(self._hosts_file), "target": "/etc/hosts"})
        spec = {
            "name": self.name,
            "address": configuration.host_address(self.number),
            "mac": configuration.host_mac(self.number),
            "fabric": str(self._fabric),
            "pid_file": str(self._pid_file),
            "binds": binds,
            "cgroups": groups,
        }
        self._spec_file.write_text(json.dumps(spec, indent=2))

    @property
    def cgroup_name(self) -> str:
        """Unique on the machine, where several labs may run at once."""
        lab = hashlib.sha256(str(self.directory.parent).encode()).hexdigest()[:8]
        return f"vireo-{lab}-{self.name}"

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        booted = _wait_until(lambda: self.socket.exists() or self._has_failed(), START_TIMEOUT_S)
        while booted and time.monotonic() < deadline and self.pid is not None:
            if self._answers():
                return
            time.sleep(POLL_INTERVAL_S)
        raise LabError(f"{self.name} did not come up: {_last_lines(self._log_file)}")

    def _has_failed(self) -> bool:
        return self._pid_file.exists() and self._pid_file.read_text() != "" and self.pid is None

    def _answers(self) -> bool:
        asked = subprocess.run(
            ["virsh", "-q", "-c", self.uri, "net-info", "default"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_TIMEOUT_S,
        )
        return asked.returncode == 0

    def _remove_cgroups(self) -> None:
        if not self._spec_file.exists():
            return
        for group in json.loads(self._spec_file.read_text())["cgroups"]:
            directory = Path(group["directory"])
            if not cgroups.remove(directory, lambda done: _wait_until(done, STOP_TIMEOUT_S)):
                raise LabError(f"{self.name}: processes are left in {directory}")


class Lab:
    """The hosts below one directory, and the bridge that joins them.

    As a context manager, it takes everything down at the end.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._fabric = self.directory / "fabric"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.down()

    def hosts(self) -> tuple[Host, ...]:
        """Every host that was ever brought up here, running or not, in the order of numbers."""
        hosts = (Host(self.directory, number) for number in range(1, configuration.MAX_HOSTS + 1))
        return tuple(host for host in hosts if host.directory.is_dir())

    def host(self, name: str) -> Host:
        found = next((host for host in self.hosts() if host.name == name), None)
        if found is None:
            raise LabError(f"there is no host {name} in {self.directory}")
        return found

    def up(self, count: int) -> tuple[Host, ...]:
        """Hosts h1..hN running; those that run already stay as they are."""
        self._check(count)
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            # In place: running hosts see this very file as their /etc/hosts.
            (self.directory / "hosts").write_text(configuration.hosts_file())
            self._raise_fabric()
            hosts = tuple(Host(self.directory, number) for number in range(1, count + 1))
            for host in hosts:
                host.start()
        return hosts

    def down(self) -> None:
        """Nothing is left: no process, mount, namespace, cgroup, or file of the hosts."""
        if not self.directory.is_dir():
            return
        with self._locked():
            for host in self.hosts():
                host.crash()
                shutil.rmtree(host.directory)
            if self._has_fabric():
                subprocess.run(["umount", str(self._fabric)], check=True)
            self._fabric.unlink(missing_ok=True)
            (self.directory / "hosts").unlink(missing_ok=True)
        self._lock_file.unlink(missing_ok=True)
        # Somebody else's files in it, if any, stay.
        with contextlib.suppress(OSError):
            self.directory.rmdir()

    @property
    def _lock_file(self) -> Path:
        return self.directory / ".lock"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _check(self, count: int) -> None:
        if reason := why_hosts_cannot_run():
            raise LabError(reason)
        if not 1 <= count <= configuration.MAX_HOSTS:
            raise LabError(f"a lab has 1 to {configuration.MAX_HOSTS} hosts, not {count}")
        for hidden in _BINDS.values():
            if self.directory.resolve().is_relative_to(Path(hidden).resolve()):
                raise LabError(
                    f"{self.directory} is hidden inside a host, which has its own {hidden}"
                )
        longest = Host(self.directory, configuration.MAX_HOSTS).socket
        if len(os.fsencode(longest)) > MAX_SOCKET_PATH:
            raise LabError(f"{self.directory} is too long a path for a Unix socket below it")

    def _has_fabric(self) -> bool:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return any(line.split(" ")[4] == str(self._fabric) for line in mounts)

    def _raise_fabric(self) -> None:
        """A network namespace, kept by a mount on a file, that holds one bridge."""
        if self._has_fabric():
            return
        self._fabric.touch()
        _run("unshare", f"--net={self._fabric}", "true")
        inside = ["nsenter", f"--net={self._fabric}", "--", "ip", "link"]
        _run(*inside, "add", "bridge", "type", "bridge")
        _run(*inside, "set", "bridge", "up")


def _run(*command: str) -> None:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _kill_and_wait(pid: int) -> None:
    """Kill a PID 1; it ends only when all in its namespace have ended."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not select.select([handle], [], [], STOP_TIMEOUT_S)[0]:
                raise LabError(f"process {pid} does not end")
        finally:
            os.close(handle)


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def _last_lines(path: Path, count: int = 5) -> str:
    return " | ".join(path.read_text(errors="replace").splitlines()[-count:]) or "no word from it"
