"""The small disk that cloud-init reads: its form, its files, who may read it, where the guest finds it."""

from __future__ import annotations

import stat
from io import BytesIO
from pathlib import Path

import pytest
from lxml import etree
from pycdlib import PyCdlib

from schemas.assignments import VmAssignment
from schemas.cloud_init import CloudInit
from schemas.resources import DiskSpec
from services.hostagent import libvirt_domain_xml as domain_xml
from services.hostagent import seeds
from services.hostagent.disks import Disks
from tests.fixtures.hostagent import VM, assignment_of, spec_of


def seeded(**given: str) -> VmAssignment:
    return assignment_of(spec=spec_of(seeded=True), cloud_init=CloudInit(**given))


def content(iso: PyCdlib, **path: str) -> str:
    read = BytesIO()
    iso.get_file_from_iso_fp(read, **path)
    return read.getvalue().decode()


def test_linux_and_others_find_the_files_under_their_names() -> None:
    files = {
        "user-data": "#cloud-config\nhostname: größer\n",
        "meta-data": "",
        "network-config": "v",
    }
    iso = PyCdlib()
    iso.open_fp(BytesIO(seeds.image_of(files)))
    assert iso.pvd.volume_identifier.rstrip() == b"cidata"
    for name, text in files.items():
        assert content(iso, rr_path=f"/{name}") == content(iso, joliet_path=f"/{name}") == text
    iso.close()


def test_a_guest_is_told_its_id_and_its_name_unless_told_otherwise() -> None:
    assert seeds.files_of(seeded(user_data="#!/bin/sh\n")) == {
        "user-data": "#!/bin/sh\n",
        "meta-data": f'{{"instance-id": "{VM}", "local-hostname": "web"}}\n',
    }
    own = seeds.files_of(seeded(meta_data="instance-id: one\n", network_config="version: 2\n"))
    assert own == {
        "user-data": "",
        "meta-data": "instance-id: one\n",
        "network-config": "version: 2\n",
    }


async def test_a_seed_is_for_its_owner_alone_and_never_written_again(tmp_path: Path) -> None:
    disks = Disks(tmp_path / "data", tmp_path / "images")
    # What a crash has left is not in the way, nor is who could read it.
    disks.folder(VM).mkdir(parents=True)
    (disks.folder(VM) / "seed.iso.new").touch(mode=0o644)
    await disks.write_seed(seeded(user_data="first"))
    written = disks.seed(VM).read_bytes()
    await disks.write_seed(seeded(user_data="second"))
    # Of what comes back by the record, after FLEET was lost, nobody knows the content.
    await disks.write_seed(assignment_of(spec=spec_of(seeded=True)))

    assert disks.seed(VM).read_bytes() == written
    assert b"first" in written
    assert stat.S_IMODE(disks.seed(VM).stat().st_mode) == 0o600
    assert [path.name for path in disks.folder(VM).iterdir()] == ["seed.iso"]


@pytest.mark.parametrize("domain_type", ["kvm", "qemu", "test"])
def test_the_guest_finds_it_behind_its_disks_and_cannot_write_to_it(
    domain_type: str, tmp_path: Path
) -> None:
    disks = (DiskSpec(image="tiny"), DiskSpec(name="data", size_gib=1))
    layout = domain_xml.Layout(
        domain_type=domain_type,  # type: ignore[arg-type]
        arch="x86_64",
        disks=tuple(tmp_path / disk.name for disk in disks),
        seed=tmp_path / "seed.iso",
        console_log=tmp_path / "console.log",
    )
    wish = assignment_of(
        spec=spec_of(seeded=True, disks=disks), cloud_init=CloudInit(user_data="4711")
    )
    xml = domain_xml.build(wish, layout)

    found = etree.fromstring(xml).findall("devices/disk")
    assert [disk.find("target").get("dev") for disk in found] == ["vda", "vdb", "vdc"]  # type: ignore[union-attr]
    assert [disk.find("readonly") is not None for disk in found] == [False, False, True]
    assert found[2].find("driver").get("type") == "raw"  # type: ignore[union-attr]
    assert found[2].find("source").get("file") == str(layout.seed)  # type: ignore[union-attr]
    assert "4711" not in xml
    assert domain_xml.read(xml).spec == wish.spec
