"""Where the state of benchmarks lies."""

from __future__ import annotations

from pathlib import Path

from bench.places import MEMORY, no_disks, spread


def test_a_folder_that_is_spread_takes_others_as_before(tmp_path: Path) -> None:
    spread(tmp_path)
    spread(tmp_path)

    (tmp_path / "state" / "hosts").mkdir(parents=True)

    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_make_believe_disks_are_in_memory_and_gone_afterwards(tmp_path: Path) -> None:
    with no_disks(tmp_path):
        vms = (tmp_path / "vms").resolve()
        (tmp_path / "vms" / "a").mkdir()

        assert (vms / "a").is_dir()
        assert vms.is_relative_to(MEMORY if MEMORY.is_dir() else tmp_path)

    assert not vms.exists()
