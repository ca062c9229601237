"""What a placement promises, on libvirt's test driver: it has node devices, pools and NUMA nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from schemas.resources import DiskSpec, HostPool, Placement
from schemas.rules import DeviceRequest, Hardware, HostDevice
from services.hostagent import libvirt_pci
from services.hostagent.disks import Disks
from services.hostagent.hypervisor import Connected, HypervisorFailure
from services.hostagent.libvirt_hypervisor import LibvirtHypervisor
from services.hostagent.model import Define, Undefine
from tests.fixtures.hostagent import TEST_NODE, VM, assignment_of, id_of, spec_of, write_image

GPUS = Hardware(devices=(DeviceRequest(name="gpu"),))


def gpu(bus: int) -> str:
    return f"""<device><name>pci_0000_{bus:02x}_00_0</name><parent>computer</parent>
      <capability type="pci"><class>0x030000</class><domain>0</domain><bus>{bus}</bus>
      <slot>0</slot><function>0</function><product id="0x2204">GA102</product>
      <vendor id="0x10de">NVIDIA</vendor><iommuGroup number="{bus}">
      <address domain="0x0000" bus="{bus:#x}" slot="0x00" function="0x0"/></iommuGroup>
      </capability></device>"""


def pool(name: str, folder: Path) -> str:
    return f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"


@asynccontextmanager
async def hypervisor_on(
    uri: str, folder: Path, *, pools: Mapping[str, str], devices: Mapping[str, str]
) -> AsyncIterator[LibvirtHypervisor]:
    write_image(folder / "images")
    hypervisor = LibvirtHypervisor(
        uri=uri,
        domain_type="test",
        disks=Disks(folder / "data", folder / "images", empty=True),
        cmdline="",
        threads=4,
        agent_threads=1,
        timeout_s=10,
        keepalive_s=2,
        pools=pools,
        devices=devices,
    )
    connected = asyncio.Event()
    hypervisor.listen(lambda notice: connected.set() if isinstance(notice, Connected) else None)
    task = asyncio.create_task(hypervisor.run())
    try:
        async with asyncio.timeout(5):
            await connected.wait()
        yield hypervisor
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def hypervisor(tmp_path: Path) -> AsyncIterator[LibvirtHypervisor]:
    """A machine with two graphics cards, a pool of its libvirt's, and one that is not there."""
    (tmp_path / "fast").mkdir()
    node = tmp_path / "node.xml"
    parts = (gpu(0x41), gpu(0x42), pool("disks", tmp_path / "fast"), "</node>")
    node.write_text(TEST_NODE.replace("</node>", "".join(parts)))
    async with hypervisor_on(
        f"test://{node}",
        tmp_path,
        pools={"fast": "libvirt:disks", "away": "libvirt:no-such-pool"},
        devices={"10de:2204": "gpu"},
    ) as one:
        yield one


async def make(hypervisor: LibvirtHypervisor, number: int = 1, **changes: Any) -> None:
    assignment = assignment_of(vm=id_of(number), **changes)
    for disk in assignment.spec.disks:
        await hypervisor.create_disk(assignment.vm, disk)
    await hypervisor.move([Define(assignment)])


async def remove(hypervisor: LibvirtHypervisor, number: int) -> None:
    await hypervisor.move([Undefine(id_of(number))])
    await hypervisor.remove_disks(id_of(number))


async def definition(hypervisor: LibvirtHypervisor, number: int = 1) -> str:
    vm = id_of(number)
    text: str = await hypervisor._connection.call(
        "control", lambda conn: conn.lookupByUUIDString(vm).XMLDesc(0)
    )
    return text


async def test_a_host_tells_its_devices_and_pools(
    hypervisor: LibvirtHypervisor, tmp_path: Path
) -> None:
    found = await hypervisor.describe()

    assert found.devices == (
        HostDevice(name="gpu", address="0000:41:00.0"),
        HostDevice(name="gpu", address="0000:42:00.0"),
    )
    assert [one.name for one in found.pools if isinstance(one, HostPool)] == ["fast"]
    assert hypervisor.pools == {"fast": tmp_path / "fast"}


async def test_each_vm_gets_a_device_of_its_own_and_keeps_it(
    hypervisor: LibvirtHypervisor,
) -> None:
    spec = spec_of(hardware=GPUS)
    async with asyncio.TaskGroup() as group:
        group.create_task(make(hypervisor, 1, spec=spec))
        group.create_task(make(hypervisor, 2, spec=spec))
    first, second = await definition(hypervisor, 1), await definition(hypervisor, 2)
    assert sorted(libvirt_pci.handed_over(first) + libvirt_pci.handed_over(second)) == [
        "0000:41:00.0",
        "0000:42:00.0",
    ]

    await make(hypervisor, 2, spec=spec, generation=2)
    with pytest.raises(HypervisorFailure, match="0 of 1 devices 'gpu' are free"):
        await make(hypervisor, 3, spec=spec)

    assert libvirt_pci.handed_over(await definition(hypervisor, 2)) == libvirt_pci.handed_over(
        second
    )


async def test_a_device_is_free_again_when_its_vm_is_gone(hypervisor: LibvirtHypervisor) -> None:
    both = spec_of(hardware=Hardware(devices=(DeviceRequest(name="gpu", count=2),)))
    await make(hypervisor, 1, spec=both)
    await remove(hypervisor, 1)

    await make(hypervisor, 2, spec=both)

    assert len(libvirt_pci.handed_over(await definition(hypervisor, 2))) == 2


async def test_a_device_that_its_vm_no_longer_wants_is_free_again(
    hypervisor: LibvirtHypervisor,
) -> None:
    both = spec_of(hardware=Hardware(devices=(DeviceRequest(name="gpu", count=2),)))
    await make(hypervisor, 1, spec=both)
    await make(hypervisor, 1, spec=spec_of(), generation=2)

    await make(hypervisor, 2, spec=both)

    assert libvirt_pci.handed_over(await definition(hypervisor, 1)) == []
    assert len(libvirt_pci.handed_over(await definition(hypervisor, 2))) == 2


async def test_a_device_of_a_foreign_domain_is_not_offered(hypervisor: LibvirtHypervisor) -> None:
    hostdev = """<devices><hostdev mode='subsystem' type='pci'><source>
      <address domain='0x0000' bus='0x41' slot='0x00' function='0x0'/></source></hostdev></devices>"""
    foreign = f"""<domain type='test'><name>theirs</name><memory>1024</memory>
      <os><type>hvm</type></os>{hostdev}</domain>"""
    await hypervisor._connection.call("control", lambda conn: conn.defineXML(foreign))

    found = await hypervisor.describe()

    assert [one.address for one in found.devices] == ["0000:42:00.0"]


async def test_a_disk_is_made_in_the_pool_that_it_names(
    hypervisor: LibvirtHypervisor, tmp_path: Path
) -> None:
    data = DiskSpec(name="data", size_gib=1, pool="fast")
    await make(hypervisor, spec=spec_of(disks=(DiskSpec(image="tiny"), data)))

    sources = etree.fromstring(await definition(hypervisor)).findall("devices/disk/source")

    assert [source.get("file") for source in sources] == [
        str(tmp_path / "data" / "vms" / VM / "root.qcow2"),
        str(tmp_path / "fast" / VM / "data.qcow2"),
    ]


async def test_a_pool_that_is_not_there_is_refused_in_words(hypervisor: LibvirtHypervisor) -> None:
    with pytest.raises(HypervisorFailure, match="storage pool 'away' is not on this host"):
        await hypervisor.create_disk(VM, DiskSpec(name="data", size_gib=1, pool="away"))


async def test_a_vm_is_kept_on_the_node_that_it_was_promised(tmp_path: Path) -> None:
    """The driver's default machine has two nodes; it is the only one in the process that has."""
    promised = Placement(host="h1", policy="spread", considered=1, ranking=(), numa_node=1)
    async with hypervisor_on("test:///default", tmp_path, pools={}, devices={}) as hypervisor:
        nodes = (await hypervisor.describe()).numa
        await make(hypervisor, placement=promised)
        try:
            xml = etree.fromstring(await definition(hypervisor))
        finally:
            await remove(hypervisor, 1)

    vcpu, memory = xml.find("vcpu"), xml.find("numatune/memory")
    assert [node.id for node in nodes] == [0, 1]
    assert vcpu is not None
    assert memory is not None
    assert vcpu.get("cpuset") == f"{nodes[0].cpus}-{nodes[0].cpus + nodes[1].cpus - 1}"
    assert (memory.get("mode"), memory.get("nodeset")) == ("strict", "1")


async def test_huge_pages_are_part_of_the_definition(hypervisor: LibvirtHypervisor) -> None:
    await make(hypervisor, spec=spec_of(hardware=Hardware(huge_page_kib=2048)))

    page = etree.fromstring(await definition(hypervisor)).find("memoryBacking/hugepages/page")

    assert page is not None
    assert (page.get("size"), page.get("unit")) == ("2048", "KiB")
