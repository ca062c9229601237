"""The initramfs archive, the ELF reader and the order of modules."""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.guest.build import GuestImage, source_fingerprint
from deploy.guest.cpio import Archive
from deploy.guest.elf import ElfError, interpreter, needed_libraries
from deploy.guest.modules import KernelModules, ModuleError, dependencies, load_order


def test_an_archive_lists_parents_before_children_and_ends_with_its_trailer() -> None:
    archive = Archive()
    archive.add_file("/etc/acpi/PWRF/run", b"#!/bin/sh\n", permissions=0o755)
    archive.add_file("/etc/hosts", b"127.0.0.1 localhost\n")

    assert _names(archive.finish()) == [
        "etc",
        "etc/acpi",
        "etc/acpi/PWRF",
        "etc/acpi/PWRF/run",
        "etc/hosts",
        "TRAILER!!!",
    ]


def test_an_entry_is_a_header_a_padded_name_and_padded_content() -> None:
    archive = Archive()
    archive.add_file("a", b"12345", permissions=0o640)

    entry = archive.finish()[: 110 + 2 + 8]

    assert (
        entry
        == (
            b"070701"
            b"00000001"  # inode
            b"000081A0"  # regular file, 0640
            b"00000000"  # uid
            b"00000000"  # gid
            b"00000001"  # links
            b"00000000"  # mtime
            b"00000005"  # size
            b"00000000" + b"00000000"  # device of the file system
            b"00000000" + b"00000000"  # device of the node
            b"00000002"  # length of the name with its zero
            b"00000000"  # checksum
            b"a\0"
            b"12345\0\0\0"
        )
    )


def test_a_device_carries_its_numbers_and_a_link_its_target() -> None:
    archive = Archive()
    archive.add_character_device("console", major=5, minor=1, permissions=0o600)
    archive.add_link("sh", "busybox")

    content = archive.finish()

    assert content[14:22] == b"00002180"
    assert content[78:94] == b"00000005" + b"00000001"
    assert b"sh\0\0\0\0busybox\0" in content


def test_the_same_content_makes_the_same_bytes() -> None:
    def archive() -> bytes:
        made = Archive()
        made.add_directory("proc")
        made.add_file("init", b"#!/bin/sh\n", permissions=0o755)
        return made.finish()

    assert archive() == archive()


def test_a_dynamic_program_names_its_loader_and_its_libraries() -> None:
    program = Path("/bin/ls").read_bytes()

    assert interpreter(program) == "/lib64/ld-linux-x86-64.so.2"
    assert "libc.so.6" in needed_libraries(program)


def test_what_is_no_elf_file_is_refused() -> None:
    with pytest.raises(ElfError, match="not a 64-bit"):
        needed_libraries(b"#!/bin/sh\n")


def test_a_module_names_what_it_depends_on_with_underscores() -> None:
    module = b"\x7fELF...license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0"

    assert dependencies(module) == ("virtio", "virtio_ring")
    assert dependencies(b"\x7fELF...\0depends=\0") == ()


def test_modules_load_after_everything_they_depend_on() -> None:
    needs = {"net": ("failover", "virtio"), "failover": ("core",), "core": (), "virtio": ()}

    assert load_order(["net", "virtio"], needs) == ["core", "failover", "virtio", "net"]


def test_modules_are_found_compressed_or_plain_and_built_in_ones_need_no_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "kernel").mkdir()
    leaf = b"\0depends=core-ring\0"
    (tmp_path / "kernel" / "virtio_net.ko.xz").write_bytes(lzma.compress(leaf))
    (tmp_path / "kernel" / "core-ring.ko").write_bytes(b"\0depends=\0")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")

    found = KernelModules(tmp_path).load(("virtio_pci", "virtio_net"), optional=("absent",))

    assert found == {"core_ring": b"\0depends=\0", "virtio_net": leaf}


def test_a_kernel_without_a_required_module_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModuleError, match="no module virtio_net, virtio_blk"):
        KernelModules(tmp_path).load(("virtio_net", "virtio_blk"), optional=())


def test_an_image_is_files_of_one_name() -> None:
    image = GuestImage(Path("/images"), "tiny")

    assert [str(part) for part in image.parts] == [
        "/images/tiny.vmlinuz",
        "/images/tiny.initrd",
        "/images/tiny.qcow2",
        "/images/tiny.host-modules",
    ]


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    asked = subprocess.run(
        [
            sys.executable,
            "-c",
            "from deploy.guest.build import source_fingerprint as f; print(f())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert asked.stdout.strip() == source_fingerprint()


def _names(archive: bytes) -> list[str]:
    names = []
    offset = 0
    while offset < len(archive):
        size, name_size = (int(archive[offset + at : offset + at + 8], 16) for at in (54, 94))
        names.append(archive[offset + 110 : offset + 110 + name_size - 1].decode())
        offset += 110 + name_size
        offset += -offset % 4 + size
        offset += -offset % 4
    return names
