"""Boot: from the request to the guest agent's first answer, against `virsh` and the same guest alone."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
from lxml import etree

from bench.report import Row, Target, row
from deploy.control_plane import ControlPlane
from deploy.guest import default_image_dir, ensure_guest
from deploy.lab import Host, Lab, why_hosts_cannot_run

ROUNDS = 5
POLL_S = 0.02
TIMEOUT_S = 120


def run(directory: Path) -> Iterator[Row]:
    if reason := why_hosts_cannot_run():
        raise RuntimeError(f"real guests cannot run here: {reason}")
    ensure_guest(default_image_dir())
    with Lab(directory / "lab") as lab:
        (host,) = lab.up(1)
        # Which accelerator is no question here: the bare guest must get the same.
        with ControlPlane(
            directory / "state",
            {host.name: host.uri},
            image_dir=default_image_dir(),
            settings=("hostagent.domain_type=qemu",),
        ) as plane:
            managed, bare = [], []
            for number in range(ROUNDS):
                seconds, document = managed_boot(plane, host, f"m{number}")
                managed.append(seconds)
                bare.append(bare_boot(host, document, directory, f"bare{number}"))
    yield row(
        "boot request to guest agent",
        managed,
        "s",
        baselines=bare,
        target=Target("at most", 1.1),
        note="against virsh define and start of the same domain",
    )


def managed_boot(plane: ControlPlane, host: Host, name: str) -> tuple[float, str]:
    """Seconds from the HTTP request to the agent's answer, and the domain's XML."""
    spec = {"name": name, "memory_mib": 128, "disks": [{"image": "tiny"}]}
    headers = {"Authorization": f"Bearer {plane.token}"}
    with httpx.Client(base_url=plane.url, headers=headers, timeout=TIMEOUT_S) as http:
        began = time.perf_counter()
        vm = http.post("/v1/vms", json=spec).raise_for_status().json()["target"]
        until_answer(host, vm)
        seconds = time.perf_counter() - began
        document = virsh(host, "dumpxml", "--inactive", vm).stdout
        deleted = http.delete(f"/v1/vms/{vm}").raise_for_status()
        http.get(deleted.headers["Location"], params={"wait": "60s"}).raise_for_status()
    return seconds, document


def bare_boot(host: Host, document: str, directory: Path, name: str) -> float:
    """The same domain under another name, on a disk of its own, by virsh."""
    domain = etree.fromstring(document.encode())
    identity = str(uuid.uuid4())
    _replace(domain, "name", name)
    _replace(domain, "uuid", identity)
    disks = directory / "bare"
    disks.mkdir(exist_ok=True)
    for number, source in enumerate(domain.findall("devices/disk/source")):
        copy = disks / f"{name}-{number}.qcow2"
        overlay(default_image_dir() / "tiny.qcow2", copy)
        source.set("file", str(copy))
    for card in domain.findall("devices/interface"):
        drop(card, "mac")
    for tag in ("serial", "console"):
        for device in domain.findall(f"devices/{tag}"):
            drop(device, "log")
    path = disks / f"{name}.xml"
    path.write_bytes(etree.tostring(domain))
    began = time.perf_counter()
    virsh(host, "define", str(path))
    virsh(host, "start", name)
    until_answer(host, identity)
    seconds = time.perf_counter() - began
    virsh(host, "destroy", name)
    virsh(host, "undefine", name)
    return seconds


def overlay(base: Path, path: Path) -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(path)],
        check=True,
    )


def until_answer(host: Host, domain: str) -> None:
    """Until the guest's agent answers a ping."""
    deadline = time.monotonic() + TIMEOUT_S
    ping = '{"execute":"guest-ping"}'
    while virsh(host, "qemu-agent-command", domain, ping, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{domain}: no answer of the guest agent in {TIMEOUT_S} s")
        time.sleep(POLL_S)


def virsh(host: Host, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("virsh") or "virsh", "-q", "-c", host.uri, *arguments],
        capture_output=True,
        text=True,
        check=check,
    )


def drop(parent: etree._Element, tag: str) -> None:
    for child in parent.findall(tag):
        parent.remove(child)


def _replace(domain: etree._Element, tag: str, text: str) -> None:
    found = domain.find(tag)
    assert found is not None
    found.text = text
