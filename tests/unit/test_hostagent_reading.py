"""How the agent reads what others write: guests, `/proc`, images, libvirt's XML and numbers."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from schemas.resources import DiskSpec, GuestFacts, HostImage, NicSpec, NumaNode
from schemas.telemetry import FileSystem, GuestDisk, NetworkInterface, VmColumns
from services.hostagent import (
    guest_agent,
    images,
    libvirt_domain_xml,
    libvirt_node,
    libvirt_stats,
)
from services.hostagent.disks import Disks
from services.hostagent.host_sample import CpuTimes
from services.hostagent.hypervisor import HypervisorFailure
from services.hostagent.libvirt_hypervisor import user_networks_of
from tests.fixtures.hostagent import VM, assignment_of, spec_of, write_image

NOW = datetime(2026, 1, 1, tzinfo=UTC)

ANSWERS: dict[str, Any] = {
    "guest-info": {
        "version": "7.2.22",
        "supported_commands": [
            {"name": "guest-ping", "enabled": True, "success-response": True},
            {"name": "guest-exec", "enabled": False, "success-response": True},
        ],
    },
    "guest-get-osinfo": {"pretty-name": "Tiny 1", "kernel-release": "6.1.0", "id": "tiny"},
    "guest-get-host-name": {"host-name": "web"},
    "guest-network-get-interfaces": [
        {"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "prefix": 8}]},
        {
            "name": "eth0",
            "hardware-address": "52:54:00:01:02:03",
            "ip-addresses": [
                {"ip-address": "fe80::1", "prefix": 64, "ip-address-type": "ipv6"},
                {"ip-address": "2001:db8::7", "prefix": 64, "ip-address-type": "ipv6"},
                {"ip-address": "192.0.2.7", "prefix": 24, "ip-address-type": "ipv4"},
            ],
            "statistics": {"rx-bytes": 10, "tx-bytes": 20, "rx-errs": 0},
        },
    ],
    "guest-get-fsinfo": [
        {"name": "vda", "mountpoint": "/", "type": "ext2", "total-bytes": 100, "used-bytes": 40}
    ],
    "guest-get-vcpus": [{"logical-id": 0, "online": True}, {"logical-id": 1, "online": False}],
    "guest-get-diskstats": [{"name": "vda", "stats": {"read-sectors": 2, "write-sectors": 3}}],
}
FILES = {
    "/proc/meminfo": "MemTotal:   1000 kB\nMemAvailable:    600 kB\n",
    "/proc/loadavg": "0.10 0.20 0.30 1/50 99\n",
    "/proc/uptime": "12.50 10.00\n",
    "/proc/stat": "cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 …",
}


def test_a_guests_answers_become_one_sample() -> None:
    sample, times = guest_agent.sample_of(VM, NOW, ANSWERS, FILES, before=CpuTimes(10, 50))

    assert (sample.os, sample.kernel, sample.hostname) == ("Tiny 1", "6.1.0", "web")
    assert (sample.load1, sample.load5, sample.load15) == (0.1, 0.2, 0.3)
    assert (sample.memory_total_kib, sample.memory_available_kib) == (1000, 600)
    assert (sample.cpus_online, sample.cpu_busy, sample.uptime_s) == (1, 0.2, 12.5)
    assert sample.file_systems == (
        FileSystem(mountpoint="/", type="ext2", total_bytes=100, used_bytes=40),
    )
    assert sample.interfaces[1] == NetworkInterface(
        name="eth0",
        mac="52:54:00:01:02:03",
        addresses=("fe80::1", "2001:db8::7", "192.0.2.7"),
        receive_bytes=10,
        transmit_bytes=20,
    )
    assert sample.disks == (GuestDisk(name="vda", read_bytes=1024, write_bytes=1536),)
    assert times is not None
    assert (times.busy, times.total) == (20, 100)


def test_facts_are_what_seldom_changes_and_addresses_that_others_can_reach() -> None:
    sample, _ = guest_agent.sample_of(VM, NOW, ANSWERS, FILES, before=None)

    assert guest_agent.facts_of(sample) == GuestFacts(
        hostname="web",
        os="Tiny 1",
        kernel="6.1.0",
        agent_version="7.2.22",
        addresses=("192.0.2.7", "2001:db8::7"),
    )


@pytest.mark.parametrize(
    "nonsense", [None, 7, "text", [], {}, [None, 3, {"name": 5}], {"version": [1]}, [[[]]]]
)
def test_a_guest_that_answers_nonsense_gives_an_empty_sample(nonsense: Any) -> None:
    answers = dict.fromkeys(ANSWERS, nonsense)

    sample, _ = guest_agent.sample_of(VM, NOW, answers, {"/proc/stat": "x"}, before=None)

    assert guest_agent.facts_of(sample) == GuestFacts()


def test_only_enabled_commands_are_asked_for() -> None:
    assert guest_agent.enabled(ANSWERS["guest-info"]) == {"guest-ping"}
    assert guest_agent.enabled("nonsense") == frozenset()


def test_what_a_guest_lists_is_cut_to_bounds() -> None:
    many = [{"name": "n" * 5000}] + [{"name": f"eth{n}"} for n in range(500)]
    answers = {"guest-network-get-interfaces": many}

    sample, _ = guest_agent.sample_of(VM, NOW, answers, {}, before=None)

    assert len(sample.interfaces) < guest_agent.MOST


def test_newer_agents_tell_load_themselves() -> None:
    answers = {"guest-get-load": {"load1m": 1.0, "load5m": 2.0, "load15m": 3.0}}

    sample, _ = guest_agent.sample_of(VM, NOW, answers, FILES, before=None)

    assert sample.load5 == 2.0


def test_who_is_logged_in_is_told_once_each_and_unknown_is_not_nobody() -> None:
    users = [{"user": "bob", "login-time": 1.5}, {"user": "ada"}, {"user": "bob"}, {"login": 7}]
    for answers, told in (({"guest-get-users": users}, ("ada", "bob")), ({}, None)):
        sample, _ = guest_agent.sample_of(VM, NOW, answers, FILES, before=None)
        assert sample.users == told


def test_a_file_comes_in_base64() -> None:
    chunk = {"buf-b64": base64.b64encode(b"12.5 3\n").decode(), "count": 7, "eof": True}

    assert guest_agent.file_text(chunk) == "12.5 3\n"


def test_images_are_read_from_their_headers(tmp_path: Path) -> None:
    write_image(tmp_path, "tiny", size_bytes=64 << 20)
    write_image(tmp_path, "debian", size_bytes=(2 << 30) + 1)
    (tmp_path / "broken.qcow2").write_bytes(b"nothing")

    assert images.survey(tmp_path) == (
        HostImage(name="debian", size_gib=3),
        HostImage(name="tiny", size_gib=1),
    )


def test_an_image_boots_directly_only_with_both_kernel_and_initrd(tmp_path: Path) -> None:
    write_image(tmp_path)
    (tmp_path / "tiny.vmlinuz").touch()
    alone = images.find(tmp_path, "tiny")
    (tmp_path / "tiny.initrd").touch()
    both = images.find(tmp_path, "tiny")

    assert alone is not None
    assert alone.kernel is None
    assert both is not None
    assert (both.kernel, both.initrd) == (tmp_path / "tiny.vmlinuz", tmp_path / "tiny.initrd")


@pytest.mark.parametrize("name", ["../tiny", "/etc/passwd", "", "a/b", "Tiny"])
def test_no_name_leads_out_of_the_image_folder(tmp_path: Path, name: str) -> None:
    write_image(tmp_path)

    assert images.find(tmp_path / "sub", name) is None


async def test_a_disk_smaller_than_its_image_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path, size_bytes=5 << 30)
    disks = Disks(tmp_path, tmp_path, empty=True)

    with pytest.raises(HypervisorFailure, match="needs 5 GiB"):
        await disks.create(VM, DiskSpec(image="tiny", size_gib=4))


async def test_a_disk_is_an_overlay_that_is_made_once(tmp_path: Path) -> None:
    disks = Disks(tmp_path / "data", tmp_path)
    blank = DiskSpec(size_gib=1)
    await disks.create(VM, blank)
    first = disks.path(VM, "root").stat()

    await disks.create(VM, blank)

    assert disks.path(VM, "root").stat() == first
    assert disks.missing(VM, spec_of(disks=(blank, DiskSpec(name="data", size_gib=1)))) == ["data"]
    await disks.remove(VM)
    assert list((tmp_path / "data" / "vms").iterdir()) == []


def layout(**changes: Any) -> libvirt_domain_xml.Layout:
    fields: dict[str, Any] = {
        "domain_type": "qemu",
        "arch": "x86_64",
        "disks": (Path("/d/root.qcow2"),),
        "console_log": Path("/d/console.log"),
        **changes,
    }
    return libvirt_domain_xml.Layout(**fields)


def test_a_network_that_libvirt_may_not_make_is_played_by_qemu() -> None:
    nics = (NicSpec(), NicSpec(network="lan"))
    xml = etree.fromstring(
        libvirt_domain_xml.build(
            assignment_of(spec=spec_of(nics=nics)), layout(user_networks=("default",))
        )
    )
    played, made = xml.findall("devices/interface")
    assert (played.get("type"), played.find("source")) == ("user", None)
    assert (made.get("type"), made.find("source").get("network")) == ("network", "lan")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("uri", "networks"),
    [
        ("qemu:///session", ("default",)),
        ("qemu+unix:///session?socket=/s", ("default",)),
        ("qemu:///system", ()),
        ("test:///default", ()),
    ],
)
def test_only_a_session_has_a_network_without_libvirt(uri: str, networks: tuple[str, ...]) -> None:
    assert user_networks_of(uri) == networks


def cells(*memory_kib: int) -> etree._Element:
    capabilities = etree.Element("capabilities")
    topology = etree.SubElement(etree.SubElement(capabilities, "host"), "topology")
    inside = etree.SubElement(topology, "cells")
    for number, memory in enumerate(memory_kib):
        cell = etree.SubElement(inside, "cell", id=str(number))
        etree.SubElement(cell, "memory", unit="KiB").text = str(memory)
        etree.SubElement(etree.SubElement(cell, "cpus"), "cpu", id=str(number))
    return capabilities


def test_a_single_numa_node_has_all_the_memory_whatever_the_kernel_counts_for_it() -> None:
    assert libvirt_node.numa(cells(7 << 20), memory_mib=24_000) == (
        NumaNode(id=0, cpus=1, memory_mib=24_000),
    )


def test_each_of_several_numa_nodes_has_its_own_memory() -> None:
    assert libvirt_node.numa(cells(8 << 20, 16 << 20), memory_mib=24_576) == (
        NumaNode(id=0, cpus=1, memory_mib=8192),
        NumaNode(id=1, cpus=1, memory_mib=16_384),
    )


def test_a_domain_is_defined_with_what_its_guest_needs() -> None:
    xml = etree.fromstring(
        libvirt_domain_xml.build(
            assignment_of(), layout(kernel=Path("/i/k"), initrd=Path("/i/i"), cmdline="panic=-1")
        )
    )

    assert xml.get("type") == "qemu"
    assert xml.findtext("uuid") == VM
    assert xml.findtext("name") == f"vireo-web-{VM[-12:]}"
    assert (xml.findtext("os/kernel"), xml.findtext("os/cmdline")) == ("/i/k", "panic=-1")
    assert xml.find("devices/disk/driver").get("type") == "qcow2"  # type: ignore[union-attr]
    assert xml.find("devices/channel/target").get("name") == "org.qemu.guest_agent.0"  # type: ignore[union-attr]
    assert xml.findtext("features/tcg/tb-cache") == "16"
    assert xml.find("devices/panic") is not None
    assert xml.find("devices/rng") is not None


def test_a_definition_reads_back_as_it_was_written() -> None:
    assignment = assignment_of(3, spec=spec_of(cpus=2, nics=(NicSpec(network="lab"),)))

    found = libvirt_domain_xml.read(libvirt_domain_xml.build(assignment, layout()))

    assert (found.ours, found.generation, found.spec, found.cpus) == (True, 3, assignment.spec, 2)


def test_a_domain_with_a_marker_that_cannot_be_read_is_not_ours() -> None:
    xml = libvirt_domain_xml.build(assignment_of(), layout()).replace('"cpus":1', '"cpus":"x"')

    assert not libvirt_domain_xml.read(xml).ours


def test_spec_text_cannot_become_markup() -> None:
    note = {"note": "]]></vm><devices><disk/></devices>"}
    xml = etree.fromstring(
        libvirt_domain_xml.build(assignment_of(spec=spec_of(metadata=note)), layout())
    )

    assert len(xml.findall(".//disk")) == 1


def test_addresses_of_cards_are_stable_and_differ() -> None:
    macs = [libvirt_domain_xml.mac_of(VM, index) for index in range(4)]

    assert len(set(macs)) == 4
    assert macs == [libvirt_domain_xml.mac_of(VM, index) for index in range(4)]


def test_bulk_statistics_become_columns_with_none_for_what_is_missing() -> None:
    stats = {
        "state.state": 1,
        "vcpu.current": 2,
        "cpu.time": 99,
        "block.count": 2,
        "block.0.rd.bytes": 1,
        "block.1.rd.bytes": 2,
        "net.count": 1,
    }

    columns = libvirt_stats.columns([(VM, stats)])

    assert columns == VmColumns(
        ids=(VM,),
        state=("running",),
        cpus=(2,),
        cpu_time_ns=(99,),
        cpu_steal_ns=(None,),
        memory_max_kib=(None,),
        memory_rss_kib=(None,),
        memory_available_kib=(None,),
        memory_unused_kib=(None,),
        block_read_bytes=(3,),
        block_write_bytes=(None,),
        block_read_requests=(None,),
        block_write_requests=(None,),
        net_receive_bytes=(None,),
        net_transmit_bytes=(None,),
    )


@pytest.mark.parametrize(
    ("stats", "stolen"),
    [
        ({"vcpu.maximum": 3, "vcpu.0.delay": 5, "vcpu.2.delay": 7, "vcpu.0.wait": 1}, 12),
        ({"vcpu.maximum": 2, "vcpu.0.delay": 0, "vcpu.1.delay": 0}, None),
        ({"vcpu.maximum": 1, "vcpu.0.time": 9}, None),
    ],
)
def test_steal_is_what_cpus_waited_for_and_absent_where_nobody_counts_it(
    stats: dict[str, int], stolen: int | None
) -> None:
    """A kernel without the accounting is told of by libvirt as zero."""
    assert libvirt_stats.columns([(VM, stats)]).cpu_steal_ns == (stolen,)


def test_commands_are_what_the_agent_protocol_wants() -> None:
    raw = guest_agent.command("guest-file-open", path="/proc/stat", mode="r")

    assert json.loads(raw) == {
        "execute": "guest-file-open",
        "arguments": {"path": "/proc/stat", "mode": "r"},
    }
