"""What every unit of a service must say, so that nobody is needed at three in the morning."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request: pytest.FixtureRequest) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(request.param)
    return parser


def test_a_unit_never_gives_up_starting(unit: configparser.ConfigParser) -> None:
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "always"


def test_a_unit_is_watched_and_tells_when_it_is_ready(unit: configparser.ConfigParser) -> None:
    assert unit["Service"]["Type"] == "notify"
    assert int(unit["Service"]["WatchdogSec"]) > 0


def test_a_unit_runs_what_there_is_and_reads_secrets_as_credentials(
    unit: configparser.ConfigParser,
) -> None:
    module = unit["Service"]["ExecStart"].split(" -m ")[1].split()[0]
    assert (Path(__file__).parents[2] / Path(*module.split(".")) / "__main__.py").is_file()
    assert "password" not in unit["Service"]["ExecStart"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_knows_every_setting_of_a_unit(path: Path, tmp_path: Path) -> None:
    # The interpreter of an installation stands in for the one that is not on this machine.
    written = tmp_path / path.name
    written.write_text(path.read_text().replace("/opt/vireo/bin/python", "/usr/bin/env python3"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(written)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Unknown" not in checked.stderr, checked.stderr
