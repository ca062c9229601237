"""A real guest on huge pages of one NUMA node: what was promised is seen in QEMU's own process.

The host sees a machine of two nodes, each with one of the real one's CPUs; the kernel below has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.guest import GuestImage
from deploy.lab import Host, Lab
from schemas import events
from schemas.resources import DiskSpec, NicSpec, Placement
from schemas.rules import Hardware, HugePageKib, HugePages
from services.hostagent.settings import Settings
from tests.fixtures.hostagent import VM, assignment_of, spec_of, world_of

BOOT_S = 60.0
PAGES = 64
PAGE_KIB: HugePageKib = 2048
KERNEL_PAGES = Path("/proc/sys/vm/nr_hugepages")
NODES = "sys/devices/system/node"


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Set aside for one test, and given back."""
    before = KERNEL_PAGES.read_text()
    try:
        KERNEL_PAGES.write_text(str(int(before) + PAGES))
    except OSError:
        pytest.skip("this machine lets nobody set huge pages aside")
    try:
        if int(KERNEL_PAGES.read_text()) < int(before) + PAGES:
            pytest.skip(f"this machine has no room for {PAGES} huge pages of {PAGE_KIB} KiB")
        yield
    finally:
        KERNEL_PAGES.write_text(before)


@pytest.fixture
def host(lab_directory: Path, huge_pages: None) -> Host:
    (one,) = Lab(lab_directory).up(1)
    nodes = one.directory / "run" / "nodes"
    write_nodes(nodes, pages=int(KERNEL_PAGES.read_text()))
    (one.directory / "run" / "hugepages").mkdir()
    inside(one, "mount", "-t", "hugetlbfs", "hugetlbfs", "/run/hugepages")
    inside(one, "mount", "--bind", "/run/nodes", f"/{NODES}")
    one.restart_libvirtd()
    return one


def inside(host: Host, *command: str) -> None:
    done = host.run(command)
    assert done.returncode == 0, done.stderr


def write_nodes(folder: Path, *, pages: int) -> None:
    for node in (0, 1):
        files = {
            "cpulist": f"{node}\n",
            "cpumap": f"{1 << node:x}\n",
            "distance": "10 20\n" if node == 0 else "20 10\n",
            "meminfo": f"Node {node} MemTotal: 4194304 kB\nNode {node} MemFree: 4194304 kB\n",
        }
        for size in (2048, 1048576):
            there = pages if (node, size) == (0, PAGE_KIB) else 0
            for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages"):
                number = 0 if name.startswith("surplus") else there
                files[f"hugepages/hugepages-{size}kB/{name}"] = f"{number}\n"
        for name, text in files.items():
            path = folder / f"node{node}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for name in ("online", "possible", "has_cpu", "has_memory"):
        (folder / name).write_text("0-1\n")


def qemu_of(host: Host) -> Path:
    pid = next((host.directory / "run/libvirt/qemu").glob("*.pid")).read_text()
    # The host numbers its own processes: what it calls this one stands last in NSpid.
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if VM.encode() in command and re.search(rf"^NSpid:.*\s{pid.strip()}$", text, re.MULTILINE):
            return status.parent
    raise AssertionError("no QEMU runs for this VM")


async def test_a_guest_is_on_huge_pages_of_the_node_that_it_was_promised(
    host: Host, tiny_guest: GuestImage
) -> None:
    settings = Settings(
        host=host.name,
        libvirt_uri=host.uri,
        domain_type="qemu",
        data_dir=host.data_dir / "agent",
        image_dir=tiny_guest.directory,
        pools={"fast": str(host.data_dir)},
    )
    wish = assignment_of(
        host=host.name,
        spec=spec_of(
            memory_mib=PAGES * PAGE_KIB // 1024,
            disks=(DiskSpec(image="tiny", size_gib=1, pool="fast"),),
            nics=(NicSpec(),),
            hardware=Hardware(huge_page_kib=PAGE_KIB),
        ),
        placement=Placement(host=host.name, policy="spread", considered=1, ranking=(), numa_node=0),
    )
    async with world_of(settings) as world:
        told = await world.happens("host.registered")
        await world.assign(wish)
        end = await world.ends(wish, timeout_s=BOOT_S)
        assert isinstance(end.data, events.OperationSucceeded), end.data

        facts = told.data.facts
        pages = HugePages(size_kib=PAGE_KIB, pages=int(KERNEL_PAGES.read_text()))
        assert [(node.id, node.cpus, node.huge_pages) for node in facts.numa] == [
            (0, 1, (pages,)),
            (1, 1, ()),
        ]
        assert (facts.huge_pages, [pool.name for pool in facts.pools]) == ((pages,), ["fast"])
        process = qemu_of(host)
        assert "Cpus_allowed_list:\t0\n" in (process / "status").read_text()
        maps = (process / "numa_maps").read_text()
        memory = [line for line in maps.splitlines() if " huge " in line and "hugepages" in line]
        assert len(memory) == 1
        assert "bind:0" in memory[0]
        assert (host.data_dir / VM / "root.qcow2").is_file()
        gone = assignment_of(2, host=host.name, spec=wish.spec, ended=True, stop_mode="forced")
        await world.assign(gone)
        await world.ends(gone, timeout_s=BOOT_S)
        assert not (host.data_dir / VM).exists()
