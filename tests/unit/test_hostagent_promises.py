"""What a placement promises, as the agent makes it true: nodes, huge pages, devices, pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from schemas.resources import DiskSpec, HostPool, NumaNode
from schemas.rules import DeviceRequest, Hardware, HostDevice, HugePages
from services.hostagent import devices as pci
from services.hostagent import libvirt_domain_xml, libvirt_node, libvirt_pci
from services.hostagent.devices import Offered, PciDevice, Withheld
from services.hostagent.disks import Disks
from services.hostagent.hypervisor import HypervisorFailure
from services.hostagent.libvirt_domain_xml import Layout, Node
from tests.fixtures.hostagent import VM, assignment_of, id_of, spec_of, write_image

CAPABILITIES = """<capabilities><host><topology><cells num='2'>
  <cell id='0'><memory unit='KiB'>8388608</memory>
    <pages unit='KiB' size='4'>1048576</pages><pages unit='KiB' size='2048'>512</pages>
    <pages unit='KiB' size='1048576'>0</pages>
    <cpus num='3'><cpu id='0'/><cpu id='1'/><cpu id='4'/></cpus></cell>
  <cell id='2'><memory unit='KiB'>8388608</memory>
    <pages unit='KiB' size='2048'>256</pages><pages unit='KiB' size='1048576'>2</pages>
    <cpus num='2'><cpu id='2'/><cpu id='3'/></cpus></cell>
</cells></topology></host></capabilities>"""

GPU = """<device><name>pci_0000_41_00_0</name><capability type='pci'><class>0x030000</class>
  <domain>0</domain><bus>65</bus><slot>0</slot><function>0</function>
  <product id='0x2204'>GA102</product><vendor id='0x10de'>NVIDIA</vendor>
  <iommuGroup number='27'>
    <address domain='0x0000' bus='0x41' slot='0x00' function='0x1'/>
    <address domain='0x0000' bus='0x41' slot='0x00' function='0x0'/>
  </iommuGroup></capability></device>"""


def defined(**changes: Any) -> etree._Element:
    spec = spec_of(hardware=changes.pop("hardware", Hardware()))
    layout = Layout(
        domain_type="kvm",
        arch="x86_64",
        disks=(Path("/d/root.qcow2"),),
        console_log=Path("/d/console.log"),
        **changes,
    )
    return etree.fromstring(libvirt_domain_xml.build(assignment_of(spec=spec), layout))


def attributes(element: etree._Element | None) -> dict[str, str]:
    assert element is not None
    return {str(name): str(value) for name, value in element.items()}


# huge pages and nodes


def test_huge_pages_are_counted_by_node_and_size() -> None:
    capabilities = etree.fromstring(CAPABILITIES)

    assert libvirt_node.numa(capabilities, memory_mib=16_384) == (
        NumaNode(id=0, cpus=3, memory_mib=8192, huge_pages=(HugePages(size_kib=2048, pages=512),)),
        NumaNode(
            id=2,
            cpus=2,
            memory_mib=8192,
            huge_pages=(HugePages(size_kib=2048, pages=256), HugePages(size_kib=1048576, pages=2)),
        ),
    )


def test_a_guest_is_kept_on_the_cpus_of_its_node() -> None:
    assert libvirt_node.pinning(CAPABILITIES, 0) == Node(0, "0-1,4")
    assert libvirt_node.pinning(CAPABILITIES, 2) == Node(2, "2-3")


def test_on_a_machine_of_one_node_there_is_nothing_to_be_kept_on() -> None:
    capabilities = etree.fromstring(CAPABILITIES)
    cells = capabilities.find("host/topology/cells")
    assert cells is not None
    cells.remove(cells[1])

    assert libvirt_node.pinning(etree.tostring(capabilities, encoding="unicode"), 0) is None


def test_a_node_that_is_gone_is_a_promise_that_cannot_be_kept() -> None:
    with pytest.raises(HypervisorFailure, match="NUMA node 1"):
        libvirt_node.pinning(CAPABILITIES, 1)


def test_cpus_and_memory_of_a_pinned_guest_are_of_its_node() -> None:
    xml = defined(node=Node(1, "2-3"))

    vcpu, memory = xml.find("vcpu"), xml.find("numatune/memory")
    assert vcpu is not None
    assert memory is not None
    assert (vcpu.text, attributes(vcpu)) == ("1", {"placement": "static", "cpuset": "2-3"})
    assert attributes(memory) == {"mode": "strict", "nodeset": "1"}


def test_a_guest_that_was_promised_no_node_may_run_anywhere() -> None:
    xml = defined()

    assert (attributes(xml.find("vcpu")), xml.find("numatune")) == ({}, None)


def test_memory_of_huge_pages_is_asked_for_by_their_size() -> None:
    xml = defined(hardware=Hardware(huge_page_kib=1048576))

    page = xml.find("memoryBacking/hugepages/page")
    assert page is not None
    assert attributes(page) == {"size": "1048576", "unit": "KiB"}
    assert defined().find("memoryBacking") is None


# devices


def device(address: str, **changes: Any) -> PciDevice:
    fields = {"vendor": "10de", "product": "2204", "pci_class": "030000", "group": (address,)}
    return PciDevice(**{"address": address, **fields, **changes})


def offer(address: str, name: str = "gpu", *others: str) -> Offered:
    return Offered(device=HostDevice(name=name, address=address), addresses=(address, *others))


def test_a_pci_device_is_read_from_libvirt() -> None:
    assert libvirt_pci.read(GPU) == device("0000:41:00.0", group=("0000:41:00.0", "0000:41:00.1"))


def test_what_is_no_pci_device_is_passed_over() -> None:
    assert libvirt_pci.read("<device><name>computer</name></device>") is None


@pytest.mark.parametrize(
    ("allowed", "name"),
    [
        ({"0000:41:00.0": "first", "10de:2204": "second"}, "first"),
        ({"10de:2204": "second", "10de:*": "third"}, "second"),
        ({"10de:*": "third", "class:03": "fourth"}, "third"),
        ({"class:03": "fourth", "class:0300": "fifth"}, "fifth"),
        ({"10de:2204": ""}, "10de-2204"),
        ({"8086:*": "nic"}, None),
    ],
)
def test_the_narrowest_pattern_names_a_device(allowed: dict[str, str], name: str | None) -> None:
    assert pci.class_of(device("0000:41:00.0"), allowed) == name


def test_functions_of_one_group_are_one_device() -> None:
    group = ("0000:40:01.0", "0000:41:00.0", "0000:41:00.1")
    machine = (
        device("0000:41:00.0", group=group),
        device("0000:41:00.1", product="1aef", pci_class="040300", group=group),
        device("0000:40:01.0", vendor="8086", pci_class="060400", group=group),
    )

    given, kept = pci.offered(machine, {"10de:*": "gpu"}, elsewhere=frozenset())

    assert given == (offer("0000:41:00.0", "gpu", "0000:41:00.1"),)
    assert kept == ()


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (device("0000:41:00.0", group=()), "it is in no IOMMU group"),
        (device("0000:41:00.0", pci_class="060400"), "it is a bridge"),
        (device("0000:41:00.0", group=("0000:41:00.0", "0000:42:00.0")), "0000:42:00.0 is in its"),
        (device("0000:43:00.0"), "0000:43:00.0 is handed to a domain that is not Vireo's"),
    ],
)
def test_what_cannot_be_handed_over_is_withheld_with_the_reason(one: PciDevice, why: str) -> None:
    elsewhere = frozenset({"0000:43:00.0"})

    given, (kept,) = pci.offered((one,), {"10de:*": "gpu"}, elsewhere=elsewhere)

    assert given == ()
    assert isinstance(kept, Withheld)
    assert kept.why.startswith(why)


OFFERS = (offer("0000:41:00.0"), offer("0000:42:00.0"), offer("0000:43:00.0", "nic"))


def chosen(*wanted: tuple[str, int], held: tuple[str, ...] = (), taken: str = "") -> list[str]:
    requests = [DeviceRequest(name=name, count=count) for name, count in wanted]
    found = pci.choose(requests, OFFERS, held=held, taken=frozenset(filter(None, [taken])))
    return [one.device.address for one in found]


def test_the_first_free_devices_are_chosen() -> None:
    assert chosen(("gpu", 1), ("nic", 1)) == ["0000:41:00.0", "0000:43:00.0"]
    assert chosen(("gpu", 1), taken="0000:41:00.0") == ["0000:42:00.0"]


def test_what_a_vm_held_before_it_gets_again() -> None:
    assert chosen(("gpu", 1), held=("0000:42:00.0",)) == ["0000:42:00.0"]
    assert chosen(("gpu", 1), held=("0000:99:00.0",)) == ["0000:41:00.0"]


def test_too_few_devices_are_refused_in_words() -> None:
    with pytest.raises(HypervisorFailure, match="1 of 2 devices 'gpu' are free"):
        chosen(("gpu", 1), ("gpu", 1), taken="0000:41:00.0")


def test_who_has_which_device_stands_in_the_folders_of_vms(tmp_path: Path) -> None:
    mine, other = tmp_path / VM, tmp_path / id_of(2)
    mine.mkdir()
    other.mkdir()

    pci.record(mine, OFFERS[:1])
    pci.record(other, OFFERS[1:])

    assert pci.held_by(mine) == ("0000:41:00.0",)
    assert pci.held_by_others(mine) == {"0000:42:00.0", "0000:43:00.0"}
    assert pci.held_by(tmp_path / id_of(3)) == ()


def test_a_record_that_cannot_be_read_hands_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text("[1]")

    with pytest.raises(HypervisorFailure, match="cannot be read"):
        pci.held_by(tmp_path)


def test_devices_are_handed_over_by_their_addresses() -> None:
    hostdev = defined(devices=("0000:41:00.1",)).find("devices/hostdev")

    assert hostdev is not None
    assert attributes(hostdev) == {"mode": "subsystem", "type": "pci", "managed": "yes"}
    assert libvirt_pci.handed_over(
        etree.tostring(defined(devices=("0000:41:00.1", "0001:02:1f.7")), encoding="unicode")
    ) == ["0000:41:00.1", "0001:02:1f.7"]


# pools


async def test_a_disk_goes_to_its_pool_and_is_removed_with_its_vm(tmp_path: Path) -> None:
    disks, pool = Disks(tmp_path / "data", tmp_path), tmp_path / "pool"
    pool.mkdir()
    data = DiskSpec(name="data", size_gib=1)

    await disks.create(VM, DiskSpec(size_gib=1))
    await disks.create(VM, data, pool=pool)
    await disks.create(VM, data, pool=tmp_path)

    assert disks.path(VM, "data") == pool / VM / "data.qcow2"
    assert disks.path(VM, "data").stat().st_size > 0
    assert disks.missing(VM, spec_of(disks=(DiskSpec(size_gib=1), data))) == []
    await disks.remove(VM)
    assert (list(pool.iterdir()), list((tmp_path / "data/vms").iterdir())) == ([], [])


async def test_a_disk_whose_pool_is_away_is_neither_made_anew_nor_forgotten(
    tmp_path: Path,
) -> None:
    disks, pool = Disks(tmp_path / "data", tmp_path), tmp_path / "pool"
    pool.mkdir()
    data = DiskSpec(name="data", size_gib=1)
    await disks.create(VM, data, pool=pool)
    pool.rename(tmp_path / "unmounted")

    with pytest.raises(HypervisorFailure, match="away"):
        await disks.create(VM, data, pool=tmp_path)
    with pytest.raises(HypervisorFailure, match="away"):
        await disks.remove(VM)

    (tmp_path / "unmounted").rename(pool)
    await disks.remove(VM)
    assert list(pool.iterdir()) == []


async def test_a_link_that_leads_elsewhere_removes_nothing(tmp_path: Path) -> None:
    disks, precious = Disks(tmp_path / "data", tmp_path), tmp_path / "precious"
    precious.mkdir()
    disks.folder(VM).mkdir(parents=True)
    (disks.folder(VM) / "root.qcow2").symlink_to(precious / "root.qcow2")

    with pytest.raises(HypervisorFailure, match="not the VM's"):
        await disks.remove(VM)

    assert precious.is_dir()


async def test_an_image_in_a_pool_is_an_overlay_on_the_image_of_the_host(tmp_path: Path) -> None:
    disks, pool = Disks(tmp_path / "data", tmp_path / "images", empty=True), tmp_path / "pool"
    pool.mkdir()
    write_image(tmp_path / "images")

    await disks.create(VM, DiskSpec(image="tiny"), pool=pool)

    assert (pool / VM / "root.qcow2").is_file()


def test_a_pool_has_the_size_of_its_file_system_and_none_when_it_is_away(tmp_path: Path) -> None:
    folders = libvirt_node.pool_folders(
        None, {"fast": str(tmp_path), "away": str(tmp_path / "unmounted")}
    )

    assert folders == {"fast": tmp_path}
    (pool,) = libvirt_node.sizes(folders)
    assert isinstance(pool, HostPool)
    assert (pool.name, pool.size_gib >= 0) == ("fast", True)
