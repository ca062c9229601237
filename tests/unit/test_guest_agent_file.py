"""The one file that guests run, as far as it is pure, and what puts it there."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from email import message_from_string
from pathlib import Path

import pytest
import yaml

from guest import vireo_guest_agent as agent
from schemas import guest_frames as schema
from services.hostagent import guest_frames
from vireo import guest_agent as delivery

FOLDER = Path(__file__).parents[2] / "guest"
FILE = FOLDER / "vireo_guest_agent.py"
UNIT = FOLDER / "vireo-guest-agent.service"


NET_DEV = """\
Inter-|   Receive              |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls
  eth9:    7       1    0    0    0     0          0         0    15       2    0    0    0     0
pulled:    7       1    0    0    0     0          0         0    15       2    0    0    0     0
"""


def machine_in(folder: Path, files: dict[str, str]) -> str:
    """The root of a machine that has these files alone."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return f"{folder}/"


def test_it_says_what_its_schema_says() -> None:
    assert agent.FRAME_VERSION == schema.VERSION
    assert agent.PORT == schema.PORT
    assert agent.MOST == schema.MOST
    assert agent.HEADER.size == schema.HEADER_BYTES
    assert agent.SHORTEST_S == schema.SHORTEST_S
    frame = guest_frames.read(agent.encoded(agent.frame())[4:])
    assert isinstance(frame, schema.GuestFrame), frame


def test_what_a_machine_does_not_offer_is_left_out(tmp_path: Path) -> None:
    told = agent.frame(machine_in(tmp_path, {}))
    assert set(told) <= {"v", "agent", "at", "hostname", "kernel", "cpus", "file_systems", "disks"}
    assert (told["file_systems"], told["disks"]) == ([], [])


def test_a_machines_files_are_read_as_they_are(tmp_path: Path) -> None:
    disk = "   8  0 vda 10 0 200 0 5 0 100 0 0 0 0\n   8  1 vda1 10 0 200 0 5 0 100 0 0 0 0\n"
    root = machine_in(
        tmp_path,
        {
            "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 13"\n',
            "proc/uptime": "12.5 3.0\n",
            "proc/stat": "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n",
            "proc/loadavg": "0.50 0.25 0.10 1/80 1234\n",
            "proc/meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n",
            "proc/diskstats": disk,
            "sys/block/vda/device/model": "",
            "sys/class/net/eth9/ifindex": "99999\n",
            "sys/class/net/eth9/address": "52:54:00:00:00:01\n",
            "proc/net/dev": NET_DEV,
            "run/systemd/sessions/1": "USER=ada\nCLASS=user\n",
            "run/systemd/sessions/2": "USER=ada\nCLASS=user\n",
            "run/systemd/sessions/3": "USER=gdm\nCLASS=greeter\n",
        },
    )
    told = agent.frame(root)
    assert told["os"] == "Debian GNU/Linux 13"
    assert told["uptime_s"] == 12.5
    assert told["cpu"] == dict(zip(agent.MODES, range(1, 9), strict=True))
    assert told["load"] == [0.5, 0.25, 0.1]
    assert told["memory"] == {"total_kib": 1000, "available_kib": 500}
    assert told["disks"] == [{"name": "vda", "read_bytes": 102_400, "write_bytes": 51_200}]
    assert told["interfaces"] == [
        {
            "name": "eth9",
            "mac": "52:54:00:00:00:01",
            "addresses": [],
            "receive_bytes": 7,
            "transmit_bytes": 15,
        }
    ]
    assert told["users"] == ["ada"]


def test_what_hardly_ever_changes_is_looked_up_anew_once_a_minute(tmp_path: Path) -> None:
    release = {"etc/os-release": "PRETTY_NAME=Debian\n"}
    root, kept = machine_in(tmp_path, {**release, "proc/loadavg": "1 1 1\n"}), agent.Kept()
    assert agent.frame(root, kept)["os"] == "Debian"
    machine_in(tmp_path, {"etc/os-release": "PRETTY_NAME=Newer\n", "proc/loadavg": "2 2 2\n"})
    soon = agent.frame(root, kept)
    kept.since -= agent.SELDOM_S
    assert (soon["os"], soon["load"]) == ("Debian", [2.0, 2.0, 2.0])
    assert agent.frame(root, kept)["os"] == "Newer"


def test_a_table_of_the_kernels_is_read_to_its_end() -> None:
    whole = Path("/proc/self/smaps").read_bytes()
    assert len(whole) > 2 * agent.PAGE
    assert len(agent.read_bytes("/proc/self/smaps", 1 << 24)) > 2 * agent.PAGE
    assert agent.read_bytes("/proc/self/smaps", 100) == whole[:100]


def test_file_systems_are_local_and_each_is_told_once(tmp_path: Path) -> None:
    spaced = tmp_path / "with space"
    spaced.mkdir()
    escaped = str(spaced).replace(" ", "\\040")
    mounts = (
        f"/dev/vda1 {escaped} ext4 rw 0 0\n"
        "/dev/vda1 /again ext4 ro 0 0\n"
        "server:/export /nfs nfs4 rw 0 0\n"
        "tmpfs /tmp tmpfs rw 0 0\n"
        "/dev/vdb1 /nowhere/at/all ext4 rw 0 0\n"
    )
    (found,) = agent.file_systems(mounts)
    assert (found["mountpoint"], found["type"]) == (str(spaced), "ext4")
    assert found["total_bytes"] > found["used_bytes"] >= 0


def test_who_is_logged_in_is_read_from_utmp(tmp_path: Path) -> None:
    def entry(kind: int, name: bytes) -> bytes:
        return agent.UTMP.pack(kind, 1, b"tty1", b"1", name, b"").ljust(agent.UTMP_BYTES, b"\0")

    (tmp_path / "run").mkdir()
    book = entry(7, b"ada") + entry(8, b"gone") + entry(7, b"ada") + entry(7, b"bob") + b"half"
    (tmp_path / "run" / "utmp").write_bytes(book)
    assert agent.users(f"{tmp_path}/") == ["ada", "bob"]


def test_addresses_are_taken_from_the_kernels_answer() -> None:
    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value.ljust(
            -(-len(value) // 4) * 4, b"\0"
        )

    def message(kind: int, family: int, index: int, attributes: bytes) -> bytes:
        body = struct.pack("=BBBBL", family, 24, 0, 0, index) + attributes
        return struct.pack("=LHHLL", 16 + len(body), kind, 0, 1, 0) + body

    peer = attribute(1, b"\x0a\0\0\x02") + attribute(2, b"\x0a\0\0\x01")
    v6 = attribute(1, bytes(15) + b"\x01")
    answer = message(20, 2, 3, peer) + message(20, 10, 1, v6)
    found: dict[int, list[str]] = {}
    assert not agent.take_addresses(answer, found)
    assert agent.take_addresses(message(3, 0, 0, b""), found)
    assert found == {3: ["10.0.0.1"], 1: ["::1"]}


def test_a_frame_that_no_host_would_read_is_made_shorter() -> None:
    told = {"v": 1, "disks": [{"name": "x" * 200}] * 64, "file_systems": ["y" * 999] * 60}
    data = agent.encoded(told)
    assert len(data) <= 4 + agent.FRAME_BYTES
    assert set(json.loads(data[4:])) == {"v", "file_systems"}


@pytest.mark.parametrize(
    ("wish", "interval_s"),
    [
        ('{"v":1,"interval_s":2.5}', 2.5),
        ('{ "interval_s" : 30, "new": [1] }', 30.0),
        ('{"v":1,"interval_s":0.01}', None),
        ('{"v":1,"interval_s":1e9}', None),
        ('{"v":1,"interval_s":"5"}', None),
        ('{"v":1}', None),
        ("", None),
    ],
)
def test_a_wish_counts_where_it_is_one(wish: str, interval_s: float | None) -> None:
    line = agent.Line(None, 7.0)  # type: ignore[arg-type]
    line.obey(wish)
    assert line.interval_s == (interval_s or 7.0)


@pytest.mark.parametrize(
    "words",
    [["--connect"], ["--connect", "tcp:x"], ["--connect=vsock:2"], ["--interval=0"], ["now"]],
)
def test_a_command_line_that_is_not_understood_ends_it(words: list[str]) -> None:
    with pytest.raises(agent.Usage):
        agent.options(words)


def test_it_needs_nothing_but_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(FILE), "--once"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert json.loads(done.stdout)["v"] == 1


# how it gets there


def test_the_script_fills_an_image(tmp_path: Path) -> None:
    text = delivery.script(FILE.read_text(), UNIT.read_text(), port=9000)
    environment = {"DESTDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    for _ in range(2):
        subprocess.run(["sh"], input=text, text=True, env=environment, timeout=30, check=True)
    installed = tmp_path / delivery.AGENT_PATH.lstrip("/")
    unit = tmp_path / delivery.UNIT_PATH.lstrip("/")
    assert installed.read_text() == FILE.read_text()
    assert stat.S_IMODE(installed.stat().st_mode) == 0o644
    assert f"{delivery.AGENT_PATH} --connect vsock:2:9000\n" in unit.read_text()
    wanted = unit.parent / "multi-user.target.wants" / unit.name
    assert str(wanted.readlink()) == delivery.UNIT_PATH
    assert not list(tmp_path.rglob("*.new"))


def test_cloud_init_is_handed_the_same_files() -> None:
    text = delivery.cloud_config(FILE.read_text(), UNIT.read_text())
    assert text.startswith("#cloud-config\n")
    config = yaml.safe_load(text)
    written = {
        one["path"]: gzip.decompress(base64.b64decode(one["content"])).decode()
        for one in config["write_files"]
    }
    assert written == {delivery.AGENT_PATH: FILE.read_text(), delivery.UNIT_PATH: UNIT.read_text()}
    assert config["runcmd"][-1] == ["systemctl", "enable", "--now", delivery.UNIT]
    # What most clouds allow.
    assert len(text) < 16 * 1024


def test_cloud_init_is_handed_both_what_others_want_done_and_the_agent() -> None:
    others = "#cloud-config\nhostname: größer\n"
    text = delivery.user_data(FILE.read_text(), UNIT.read_text(), beside=others)
    whole = message_from_string(text)
    _, given, second = whole.walk()
    # Of plain text cloud-init finds out by itself what it is.
    assert given.get_content_type() == "text/plain"
    assert given.get_payload(decode=True) == others.encode()
    assert second.get_content_type() == "text/x-shellscript"
    script = delivery.script(FILE.read_text(), UNIT.read_text())
    assert second.get_payload(decode=True) == script.encode()


def test_alone_the_agent_comes_as_cloud_config() -> None:
    files = FILE.read_text(), UNIT.read_text()
    assert delivery.user_data(*files, beside="\n") == delivery.cloud_config(*files)


def test_user_data_that_has_parts_already_is_left_to_its_writer() -> None:
    files = FILE.read_text(), UNIT.read_text()
    whole = delivery.user_data(*files, beside="#!/bin/sh\n")
    with pytest.raises(ValueError, match="has parts already"):
        delivery.user_data(*files, beside=whole)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_knows_every_setting_of_the_guests_unit(tmp_path: Path) -> None:
    written = tmp_path / UNIT.name
    written.write_text(UNIT.read_text())
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(written)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Unknown" not in checked.stderr, checked.stderr


def test_the_unit_never_gives_up_and_runs_what_is_installed() -> None:
    unit = UNIT.read_text()
    assert "Restart=always\n" in unit
    assert "StartLimitIntervalSec=0\n" in unit
    assert delivery.AGENT_PATH in unit
    assert "AF_VSOCK" in unit
