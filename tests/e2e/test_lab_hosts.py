"""Isolated hosts with real guests: what the demo and the other end-to-end tests stand on."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deploy.guest import GuestImage
from deploy.guest.build import KERNEL_ARGUMENTS, MEMORY_MIB
from deploy.lab import Host, Lab, LabError
from tests.fixtures.lab import wait_for

BOOT_TIMEOUT_S = 60.0


class Guest:
    """One running guest, for as long as a test."""

    def __init__(self, host: Host, image: GuestImage, name: str) -> None:
        self.host = host
        self.name = name
        self._disk = host.data_dir / f"{name}.qcow2"
        _make_overlay(self._disk, image.disk)
        definition = host.data_dir / f"{name}.xml"
        definition.write_text(_domain(name, image, self._disk))
        _virsh(host, "define", str(definition))
        definition.unlink()
        _virsh(host, "start", name)

    def ask(self, command: str) -> object:
        """What the guest agent returns; None while it does not answer."""
        asked = _try_virsh(
            self.host, "qemu-agent-command", self.name, json.dumps({"execute": command})
        )
        return json.loads(asked.stdout)["return"] if asked.returncode == 0 else None

    def addresses(self) -> list[str]:
        interfaces = self.ask("guest-network-get-interfaces")
        assert interfaces is None or isinstance(interfaces, list)
        return [
            address["ip-address"]
            for interface in interfaces or []
            if interface["name"] != "lo"
            for address in interface.get("ip-addresses", [])
            if address["ip-address-type"] == "ipv4"
        ]

    def state(self) -> str:
        return _virsh(self.host, "domstate", self.name).strip()

    def remove(self) -> None:
        _try_virsh(self.host, "destroy", self.name)
        _try_virsh(self.host, "undefine", self.name)
        self._disk.unlink(missing_ok=True)

    def wait_until_it_answers(self) -> None:
        wait_for(
            lambda: self.ask("guest-ping") is not None,
            timeout_s=BOOT_TIMEOUT_S,
            what="the guest agent answers",
        )


@pytest.fixture
def hosts(lab_hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    """Both hosts running, whatever the test before did to them."""
    for host in lab_hosts:
        host.start()
    return lab_hosts


def test_a_guest_boots_answers_has_an_address_and_powers_off(
    hosts: tuple[Host, Host], tiny_guest: GuestImage
) -> None:
    host = hosts[1]
    guest = Guest(host, tiny_guest, "vireo-lab-boot")
    try:
        guest.wait_until_it_answers()
        wait_for(lambda: guest.addresses() != [], timeout_s=BOOT_TIMEOUT_S, what="an address")

        assert guest.addresses()[0].startswith("192.168.122.")
        system = guest.ask("guest-get-osinfo")
        assert isinstance(system, dict)
        assert system["pretty-name"] == "Vireo Tiny Guest 1"
        disks = guest.ask("guest-get-fsinfo")
        assert isinstance(disks, list)
        assert [(disk["mountpoint"], disk["type"]) for disk in disks] == [("/data", "ext4")]

        _virsh(host, "shutdown", guest.name, "--mode", "acpi")
        wait_for(lambda: guest.state() == "shut off", timeout_s=BOOT_TIMEOUT_S, what="power off")
    finally:
        guest.remove()


def test_guests_outlive_their_libvirtd_asked_or_killed(
    hosts: tuple[Host, Host], tiny_guest: GuestImage
) -> None:
    host = hosts[0]
    guest = Guest(host, tiny_guest, "vireo-lab-outlive")
    try:
        guest.wait_until_it_answers()
        domain_id = _virsh(host, "domid", guest.name)

        host.restart_libvirtd()
        host.restart_libvirtd(kill=True)

        assert guest.state() == "running"
        assert _virsh(host, "domid", guest.name) == domain_id
        guest.wait_until_it_answers()
    finally:
        guest.remove()


def test_a_power_cut_ends_a_host_with_its_guests_and_leaves_the_other_alone(
    hosts: tuple[Host, Host], tiny_guest: GuestImage
) -> None:
    doomed, other = hosts
    guest = Guest(doomed, tiny_guest, "vireo-lab-doomed")
    survivor = Guest(other, tiny_guest, "vireo-lab-survivor")
    try:
        doomed.crash()

        assert doomed.pid is None
        assert _processes_naming(f"guest={guest.name}") == []
        assert _try_virsh(doomed, "list").returncode != 0
        assert survivor.state() == "running"

        doomed.start()
        assert guest.state() == "shut off"
        _virsh(doomed, "start", guest.name)
        guest.wait_until_it_answers()
    finally:
        doomed.start()
        guest.remove()
        survivor.remove()


def test_hosts_have_names_and_identities_of_their_own(hosts: tuple[Host, Host]) -> None:
    names = [_virsh(host, "hostname").strip() for host in hosts]
    identities = {_host_uuid(host) for host in hosts}

    assert names == ["h1", "h2"]
    assert len(identities) == 2


def test_hosts_reach_each_other_over_the_bridge(hosts: tuple[Host, Host]) -> None:
    listening = subprocess.Popen(
        hosts[0].command(
            [
                "python3",
                "-c",
                "import socket; s = socket.create_server(('10.77.0.1', 5000)); s.settimeout(10);"
                "print('up', flush=True);"
                "c, _ = s.accept(); c.sendall(socket.gethostname().encode())",
            ]
        ),
        stdout=subprocess.PIPE,
    )
    try:
        assert listening.stdout is not None
        assert listening.stdout.readline() == b"up\n"
        heard = hosts[1].run(
            [
                "python3",
                "-c",
                "import socket; c = socket.create_connection(('h1', 5000), 5); print(c.recv(9))",
            ]
        )
    finally:
        listening.kill()
        listening.communicate()

    assert heard.stdout == "b'h1'\n"


def test_taking_a_lab_down_leaves_nothing(lab_directory: Path, tiny_guest: GuestImage) -> None:
    lab = Lab(lab_directory)
    (host,) = lab.up(1)
    Guest(host, tiny_guest, "vireo-lab-left")

    lab.down()

    assert not lab_directory.exists()
    # The bridge's namespace, too, is held by a mount.
    assert str(lab_directory) not in Path("/proc/mounts").read_text()
    wait_for(
        lambda: _processes_naming(str(lab_directory)) == [],
        timeout_s=BOOT_TIMEOUT_S,
        what="no process is left",
    )
    assert _cgroups(host.cgroup_name) == []


def test_up_again_keeps_running_hosts_and_starts_the_others(lab_directory: Path) -> None:
    lab = Lab(lab_directory)
    first, second = lab.up(2)
    kept = first.pid
    second.crash()

    lab.up(2)

    assert first.pid == kept
    assert second.pid is not None


def test_a_directory_too_deep_for_sockets_is_refused(lab_directory: Path) -> None:
    with pytest.raises(LabError, match="too long a path"):
        Lab(lab_directory / ("d" * 90)).up(1)


def test_a_directory_that_hosts_cannot_see_is_refused() -> None:
    with pytest.raises(LabError, match="has its own /run"):
        Lab(Path("/run/vireo-lab-hidden")).up(1)


def _make_overlay(disk: Path, base: Path) -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(disk)],
        check=True,
    )


def _domain(name: str, image: GuestImage, disk_path: Path) -> str:
    domain = ElementTree.Element("domain", type="qemu")
    ElementTree.SubElement(domain, "name").text = name
    ElementTree.SubElement(domain, "memory", unit="MiB").text = str(MEMORY_MIB)
    system = ElementTree.SubElement(domain, "os")
    ElementTree.SubElement(system, "type", arch="x86_64", machine="q35").text = "hvm"
    ElementTree.SubElement(system, "kernel").text = str(image.kernel)
    ElementTree.SubElement(system, "initrd").text = str(image.initrd)
    ElementTree.SubElement(system, "cmdline").text = KERNEL_ARGUMENTS
    ElementTree.SubElement(ElementTree.SubElement(domain, "features"), "acpi")
    devices = ElementTree.SubElement(domain, "devices")
    disk = ElementTree.SubElement(devices, "disk", type="file", device="disk")
    ElementTree.SubElement(disk, "driver", name="qemu", type="qcow2")
    ElementTree.SubElement(disk, "source", file=str(disk_path))
    ElementTree.SubElement(disk, "target", dev="vda", bus="virtio")
    nic = ElementTree.SubElement(devices, "interface", type="network")
    ElementTree.SubElement(nic, "source", network="default")
    ElementTree.SubElement(nic, "model", type="virtio")
    channel = ElementTree.SubElement(devices, "channel", type="unix")
    ElementTree.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    ElementTree.SubElement(
        ElementTree.SubElement(devices, "serial", type="pty"), "target", port="0"
    )
    return ElementTree.tostring(domain, encoding="unicode")


def _try_virsh(host: Host, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["virsh", "-q", "-c", host.uri, *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=BOOT_TIMEOUT_S,
    )


def _virsh(host: Host, *command: str) -> str:
    done = _try_virsh(host, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _host_uuid(host: Host) -> str | None:
    return ElementTree.fromstring(_virsh(host, "capabilities")).findtext("host/uuid")


def _processes_naming(text: str) -> list[str]:
    """Command lines that hold `text`; what ended meanwhile, and this test itself, are left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in command and int(entry.name) != os.getpid():
            found.append(command)
    return found


def _cgroups(name: str) -> list[str]:
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if name in folder]
