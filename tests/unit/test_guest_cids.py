"""A guest's vsock address: its own, the same for ever, and what its host knows it by."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from services.hostagent import cids, guest_sockets
from services.hostagent import libvirt_domain_xml as domain_xml
from services.hostagent.hypervisor import HypervisorFailure
from services.hostagent.settings import GuestAgentSettings
from tests.fixtures.hostagent import VM, assignment_of, id_of


def folder_of(root: Path, vm: str = VM) -> Path:
    folder = root / vm
    folder.mkdir(exist_ok=True)
    return folder


def test_a_cid_is_kept_once_it_is_given(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    given = cids.of(VM, folder)
    assert cids.LOWEST <= given <= cids.HIGHEST
    assert cids.of(VM, folder) == cids.held_by(folder) == given


def test_no_two_guests_of_a_host_have_one_cid(tmp_path: Path) -> None:
    wanted = cids.choose(VM, frozenset())
    cids_of_others = frozenset({wanted, wanted + 1})
    assert cids.choose(VM, cids_of_others) not in cids_of_others
    given = {cids.of(id_of(number), folder_of(tmp_path, id_of(number))) for number in range(50)}
    assert len(given) == 50


def test_a_record_that_cannot_be_read_is_not_guessed_over(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / cids.RECORD).write_text("what?")
    with pytest.raises(HypervisorFailure, match="cannot be read"):
        cids.of(VM, folder)


@pytest.mark.parametrize("cid", [None, 1_234_567])
def test_a_domain_has_a_vsock_device_where_its_host_has_vsock(cid: int | None) -> None:
    layout = domain_xml.Layout(
        domain_type="kvm", arch="x86_64", disks=(), console_log=Path("/c"), cid=cid
    )
    domain = etree.fromstring(domain_xml.build(assignment_of(), layout))
    found = domain.find("devices/vsock/cid")
    if cid is None:
        assert found is None
    else:
        assert found is not None
        assert (found.get("auto"), found.get("address")) == ("no", "1234567")


@pytest.mark.parametrize(
    ("wish", "device", "transport"),
    [
        ("auto", "/dev/null", "vsock"),
        ("auto", "/nonexistent", "unix"),
        ("unix", "/dev/null", "unix"),
        ("off", "/dev/null", "off"),
    ],
)
def test_the_transport_is_what_the_host_has_unless_it_is_set(
    wish: str, device: str, transport: str
) -> None:
    settings = GuestAgentSettings(transport=wish)  # type: ignore[arg-type]
    assert guest_sockets.transport_of(settings, Path(device)) == transport


@pytest.mark.parametrize(
    ("defined", "vsock", "outdated"),
    [
        (None, True, True),
        (1_234_567, True, False),
        (None, False, False),
        (1_234_567, False, True),
        (3, False, False),
    ],
)
def test_a_definition_is_out_of_date_where_its_device_is_not_what_guests_get_here(
    defined: int | None, vsock: bool, outdated: bool
) -> None:
    """A device whose number is none of ours was put there by somebody else."""
    layout = domain_xml.Layout(
        domain_type="kvm", arch="x86_64", disks=(), console_log=Path("/c"), cid=defined
    )
    found = domain_xml.read(domain_xml.build(assignment_of(), layout))
    assert found.cid == defined
    assert cids.is_outdated(found.cid, vsock=vsock) == outdated
