"""`./dev demo`: bring everything up on this machine, make a real VM, show it living, stop it.

The owner's libvirt is never touched: as root the demo makes two isolated hosts, else it uses a
`qemu:///session` of its own, and where there is no libvirt, the test driver, and says so. Whatever it
shows comes from the command line of Vireo itself.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from deploy.control_plane import ControlPlane, NotUp
from deploy.guest import default_image_dir, ensure_guest
from deploy.lab import Lab, LabError, why_hosts_cannot_run

VM = "web1"
GUEST_TIMEOUT_S = 120


def main() -> int:
    with ExitStack() as stack:
        try:
            show(stack)
        except (NotUp, LabError, subprocess.SubprocessError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    say("everything that was started is stopped, and what was made is removed")
    return 0


def show(stack: ExitStack) -> None:
    hosts, real = stack.enter_context(hypervisors())
    directory = stack.enter_context(working_directory())
    say(f"starting NATS, Postgres and the services for {', '.join(hosts)}")
    plane = stack.enter_context(
        ControlPlane(
            directory,
            hosts,
            image_dir=default_image_dir() if real else None,
            settings=("hostagent.guest_agent.interval_s=2", "hostagent.tick_s=2"),
        )
    )
    say("waiting for the hosts to be measured")
    since = datetime.now(UTC)
    plane.wait_until(
        lambda: all(is_measured(plane, host, since=since) for host in hosts), "hosts are measured"
    )
    began = time.monotonic()
    vireo(plane, "host", "list")
    image = ["--image", "tiny"] if real else ["--disk", "1GiB"]
    vireo(plane, "vm", "create", VM, *image, "--cpus", "1", "--memory", "128MiB")
    stack.callback(remove, plane)
    if real:
        say("waiting for the guest's own agent to report")
        plane.wait_until(lambda: has_reported(plane), "the guest reports", GUEST_TIMEOUT_S)
        say(f"it did, {time.monotonic() - began:.1f} s after the first command")
    vm = json.loads(plane.cli("vm", "show", VM, "-o", "json").stdout)
    vireo(plane, "host", "show", vm["host"])
    vireo(plane, "vm", "show", VM)
    vireo(plane, "operation", "show", first_operation(plane, vm["id"]))
    vireo(plane, "vm", "stop", VM)
    vireo(plane, "vm", "list")


@contextmanager
def hypervisors() -> Iterator[tuple[Mapping[str, str], bool]]:
    """Hosts (name → libvirt URI) that are nobody else's, and whether their guests are real."""
    reason = why_hosts_cannot_run()
    if reason is None:
        ensure_guest(default_image_dir())
        say("bringing up two isolated libvirt hosts")
        with Lab(Path(tempfile.mkdtemp(prefix="vireo-demo-lab-"))) as lab:
            yield {host.name: host.uri for host in lab.up(2)}, True
        return
    say(f"no isolated hosts: {reason}")
    session = "qemu:///session"
    if shutil.which("qemu-system-x86_64") and answers(session):
        ensure_guest(default_image_dir())
        say(f"using {session}")
        yield {"local": session}, True
        return
    say("no libvirt daemon: running on libvirt's test driver, the guest is make-believe")
    yield {"local": "test:///default"}, False


@contextmanager
def working_directory() -> Iterator[Path]:
    """Short, because Unix sockets lie below it; reachable for QEMU and Postgres' own users."""
    directory = Path(tempfile.mkdtemp(prefix="vireo-demo-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def answers(uri: str) -> bool:
    virsh = shutil.which("virsh")
    if virsh is None:
        return False
    done = subprocess.run([virsh, "-c", uri, "version"], capture_output=True, check=False)
    return done.returncode == 0


def vireo(plane: ControlPlane, *arguments: str) -> None:
    """Show a command and run it, in this terminal."""
    print(f"\n$ vireo {shlex.join(arguments)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "vireo.cli", *arguments],
        env={**plane.environment, "COLUMNS": os.environ.get("COLUMNS", "110")},
        check=False,
    )
    if done.returncode != 0:
        raise NotUp(f"vireo {shlex.join(arguments)} ended with {done.returncode}")


def is_measured(plane: ControlPlane, host: str, *, since: datetime) -> bool:
    """Whether a frame has come since then: the scheduler weighs those of hosts that it knows."""
    try:
        reading = plane.get(f"/v1/hosts/{host}/telemetry")
    except OSError:
        return False
    return datetime.fromisoformat(reading["at"]) > since


def has_reported(plane: ControlPlane) -> bool:
    """Whether the guest's address is known and its load has been read."""
    vm = json.loads(plane.cli("vm", "show", VM, "-o", "json").stdout or "{}")
    if not (vm.get("guest") or {}).get("addresses"):
        return False
    try:
        reading = plane.get(f"/v1/vms/{vm['id']}/telemetry")
    except OSError:
        return False
    return (reading.get("guest") or {}).get("load1") is not None


def first_operation(plane: ControlPlane, vm: str) -> str:
    operations = plane.get(f"/v1/operations?target={vm}")["items"]
    return str(next(o["id"] for o in operations if o["command"] == "vm.create"))


def remove(plane: ControlPlane) -> None:
    """Also where the demo ends early: a guest of the session's libvirt would stay behind."""
    vireo(plane, "vm", "delete", VM, "--yes")


def say(text: str) -> None:
    print(f"\ndemo: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
