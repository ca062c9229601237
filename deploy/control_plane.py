"""`vireo up` as a process of its own, with a state directory and ports of its own.

For the demo, the end-to-end tests and the benchmarks: nothing here knows how `vireo up` works inside;
it is started, talked to and stopped as a person would.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

POLL_S = 0.05


class NotUp(Exception):
    """It did not start, or a condition did not come true in time; the text says what was seen."""


class ControlPlane:
    """Everything that `vireo up` starts for the given hosts (name → libvirt URI).

    A context manager: up on entry, stopped on exit; guests and the state directory are left as they
    are. May be entered again, on the same state.
    """

    def __init__(
        self,
        state_dir: Path,
        hosts: Mapping[str, str],
        *,
        image_dir: Path | None = None,
        settings: Sequence[str] = (),
        start_timeout_s: float = 120,
    ) -> None:
        self.state_dir = state_dir
        self._hosts = dict(hosts)
        self._image_dir = image_dir
        self._settings = tuple(settings)
        self._start_timeout_s = start_timeout_s
        self.port, self.nats_port, self.prometheus_port = free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.state_dir / "credentials/admin.token").read_text(encoding="ascii").strip()

    @property
    def environment(self) -> dict[str, str]:
        """For commands: this gateway and no context of the user's."""
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("VIREO_")},
            "XDG_CONFIG_HOME": str(self.state_dir / "config-home"),
            "VIREO_URL": self.url,
            "VIREO_TOKEN": self.token,
        }

    @property
    def pid(self) -> int:
        if self._process is None:
            raise NotUp("it is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until every host is online. Raises NotUp with the end of its log."""
        self.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "XDG_CONFIG_HOME": str(self.state_dir / "config-home")},
            )
        try:
            self.wait_until(self._all_online, "every host is online", self._start_timeout_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """As Ctrl-C does; guests go on."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def cli(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a `vireo` command against it."""
        return subprocess.run(
            [sys.executable, "-m", "vireo.cli", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def get(self, path: str, *, timeout_s: float = 10) -> Any:
        """The JSON at a path of the gateway. Raises HTTPError, URLError."""
        request = urllib.request.Request(  # noqa: S310
            self.url + path, headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return json.load(answer)

    def children(self) -> dict[str, int]:
        """The processes that `vireo up` runs, by name (`gateway`, `nats`, `hostagent-h1`, …)."""
        found = {}
        for pid in _children_of(self.pid):
            name = _name_of(pid)
            if name:
                found[name] = pid
        return found

    def wait_until(self, condition: Any, meaning: str, timeout_s: float = 30) -> None:
        """Wait for `condition()` to be true. Raises NotUp that names `meaning`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self._process is not None and self._process.poll() is not None:
                raise NotUp(f"vireo up ended with {self._process.returncode}: {self.log_end()}")
            if time.monotonic() > deadline:
                raise NotUp(f"not within {timeout_s:g} s: {meaning}\n{self.log_end()}")
            time.sleep(POLL_S)

    def log_end(self, lines: int = 20) -> str:
        """The last lines of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    @property
    def _log(self) -> Path:
        return self.state_dir / "up.log"

    def _command(self) -> list[str]:
        hosts = [part for name, uri in self._hosts.items() for part in ("--host", f"{name}={uri}")]
        images = ["--image-dir", str(self._image_dir)] if self._image_dir else []
        return [
            *(sys.executable, "-m", "vireo.cli", "up"),
            *("--state-dir", str(self.state_dir)),
            *("--port", str(self.port), "--nats-port", str(self.nats_port)),
            *("--metrics-port", str(self.prometheus_port)),
            # A user that every machine has: what is tried out adds none.
            *("--system-user", "nobody"),
            *hosts,
            *images,
            *(part for setting in self._settings for part in ("--set", setting)),
        ]

    def _all_online(self) -> bool:
        try:
            hosts = self.get("/v1/hosts")["items"]
        except (OSError, urllib.error.URLError):
            return False
        return {host["name"] for host in hosts if host["state"] == "online"} >= set(self._hosts)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _children_of(pid: int) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # pid (name) state parent …; the name may hold blanks and brackets.
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                yield int(entry.parent.name)


def _name_of(pid: int) -> str:
    """The child's name, from its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    for word in words:
        if word.endswith(".toml"):
            return Path(word).stem
        if Path(word).name in ("nats-server", "postgres"):
            return Path(word).name.removesuffix("-server")
    return ""
