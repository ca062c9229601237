"""What guests' own agents push is taken for the words of strangers; nothing in it harms anybody."""

from __future__ import annotations

import json
import random
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import wire
from schemas.guest_frames import MOST, GuestFrame, GuestInterface
from schemas.telemetry import FileSystem, GuestDisk, GuestSample, NetworkInterface
from services.hostagent import guest_frames
from services.hostagent.guest_frames import Refusal, Standing, bucket
from services.hostagent.host_sample import CpuTimes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VM = "01939f4c-8a00-7000-8000-000000000001"

FULL: dict[str, Any] = {
    "v": 1,
    "agent": "1.0",
    "at": NOW.timestamp() - 2.5,
    "hostname": "web-1",
    "os": "Debian GNU/Linux 13 (trixie)",
    "kernel": "6.12.0",
    "uptime_s": 81.5,
    "cpus": 2,
    "cpu": {"user": 60, "nice": 0, "system": 30, "idle": 890, "iowait": 10, "softirq": 10},
    "load": [0.5, 0.25, 0.125],
    "memory": {"total_kib": 1_000_000, "available_kib": 600_000},
    "file_systems": [
        {"mountpoint": "/", "type": "ext4", "total_bytes": 1000, "used_bytes": 400},
    ],
    "interfaces": [
        {
            "name": "eth0",
            "mac": "52:54:00:00:00:01",
            "addresses": ["192.0.2.7", "2001:db8::7"],
            "receive_bytes": 10,
            "transmit_bytes": 20,
        }
    ],
    "disks": [{"name": "vda", "read_bytes": 512, "write_bytes": 1024}],
    "users": ["ada"],
}


def frame_of(**members: Any) -> bytes:
    return msgspec.json.encode({"v": 1, **members})


def sample_of(body: bytes, before: CpuTimes | None = None) -> GuestSample:
    frame = guest_frames.read(body)
    assert isinstance(frame, GuestFrame), frame
    return guest_frames.sample_of(VM, NOW, frame, before=before)[0]


def test_a_full_frame_becomes_a_full_sample() -> None:
    found = sample_of(msgspec.json.encode(FULL), before=CpuTimes(50, 500))
    assert found == GuestSample(
        vm=VM,
        at=NOW,
        source="guest-agent",
        os="Debian GNU/Linux 13 (trixie)",
        kernel="6.12.0",
        hostname="web-1",
        agent_version="1.0",
        load1=0.5,
        load5=0.25,
        load15=0.125,
        cpus_online=2,
        cpu_busy=0.1,
        memory_total_kib=1_000_000,
        memory_available_kib=600_000,
        uptime_s=81.5,
        clock_offset_s=-2.5,
        users=("ada",),
        file_systems=(FileSystem(mountpoint="/", type="ext4", total_bytes=1000, used_bytes=400),),
        interfaces=(
            NetworkInterface(
                name="eth0",
                mac="52:54:00:00:00:01",
                addresses=("192.0.2.7", "2001:db8::7"),
                receive_bytes=10,
                transmit_bytes=20,
            ),
        ),
        disks=(GuestDisk(name="vda", read_bytes=512, write_bytes=1024),),
    )


def test_what_a_guest_does_not_offer_is_absent_and_not_zero() -> None:
    assert sample_of(frame_of()) == GuestSample(vm=VM, at=NOW, source="guest-agent")


@pytest.mark.parametrize(
    ("said", "offset_s"),
    [
        (NOW + timedelta(days=3650), 3650 * 86_400.0),
        (NOW - timedelta(days=365), -365 * 86_400.0),
        (datetime(9000, 1, 1, tzinfo=UTC), None),
    ],
    ids=["years ahead", "a year behind", "no clock at all"],
)
def test_a_guests_clock_dates_nothing(said: datetime, offset_s: float | None) -> None:
    found = sample_of(frame_of(at=said.timestamp()))
    assert (found.at, found.clock_offset_s) == (NOW, offset_s)


def test_a_frame_that_names_another_vm_counts_for_its_own() -> None:
    other = "01939f4c-8a00-7000-8000-0000000000ff"
    assert sample_of(frame_of(vm=other, cid=7, host="h9", source="qga")).vm == VM


def test_text_that_could_steer_a_terminal_is_defused() -> None:
    found = sample_of(frame_of(hostname="a\x1b[2J\nb\u202ec", users=["\x00"], os="Débian"))
    assert (found.hostname, found.users, found.os) == ("a�[2J�b�c", ("�",), "Débian")


def test_what_is_no_address_is_left_out() -> None:
    nic = msgspec.to_builtins(GuestInterface(name="e", addresses=("1.2.3.4", "<script>", "::1")))
    assert sample_of(frame_of(interfaces=[nic])).interfaces[0].addresses == ("1.2.3.4", "::1")


GARBLED = [
    b"",
    b"\x00\xff",
    b"null",
    b"[]",
    b"{}",
    b'{"v":1',
    b'{"v":"1"}',
    b'{"v":1,"load":[1,2]}',
    b'{"v":1,"load":[NaN,0,0]}',
    b'{"v":1,"load":[1e999,0,0]}',
    b'{"v":1,"load":[-1,0,0]}',
    b'{"v":1,"uptime_s":-0.1}',
    b'{"v":1,"cpus":0}',
    b'{"v":1,"memory":{"total_kib":-1}}',
    b'{"v":1,"memory":{"total_kib":9223372036854775808}}',
    b'{"v":1,"memory":{"total_kib":true}}',
    b'{"v":1,"hostname":7}',
    b'{"v":1,"hostname":"\xff"}',
    b'{"v":1,"x":' + b"[" * 60_000 + b"}",
    frame_of(hostname="x" * 256),
    frame_of(users=["x"] * (MOST + 1)),
    frame_of(disks=[{"name": "x"}] * (MOST + 1)),
    frame_of(interfaces=[{"name": "x", "addresses": ["::1"] * (MOST + 1)}]),
]


@pytest.mark.parametrize("body", GARBLED, ids=lambda body: repr(body[:40]))
def test_a_frame_out_of_bounds_is_refused(body: bytes) -> None:
    found = guest_frames.read(body)
    assert isinstance(found, Refusal)
    assert found.reason == "garbled"


def test_a_frame_of_another_version_says_so() -> None:
    found = guest_frames.read(b'{"v":2,"agent":"9"}')
    assert found == Refusal("version", "frames of version 2; this host reads 1")


def test_ten_thousand_garbled_frames_are_refused_each_and_harm_nothing() -> None:
    chance = random.Random(1)
    good = bytearray(msgspec.json.encode(FULL))
    refused = 0
    for _ in range(10_000):
        body = bytearray(good)
        for _ in range(chance.randrange(1, 20)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        del body[chance.randrange(len(body)) :]
        refused += isinstance(guest_frames.read(bytes(body)), Refusal)
    assert refused == 10_000


@given(st.binary(max_size=2000))
def test_any_bytes_are_answered(body: bytes) -> None:
    assert isinstance(guest_frames.read(body), Refusal | GuestFrame)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.fixed_dictionaries({}, optional={name: _json for name in FULL if name != "v"}))
def test_whatever_is_taken_can_be_sent_on_and_read_again(members: dict[str, Any]) -> None:
    try:
        frame = guest_frames.read(frame_of(**members))
    except UnicodeEncodeError:
        return  # the test's own encoder takes no lone surrogates
    if isinstance(frame, GuestFrame):
        sample, _ = guest_frames.sample_of(VM, NOW, frame, before=None)
        assert msgspec.json.decode(wire.encode(sample), type=GuestSample) == sample


@given(st.text(max_size=255))
def test_no_text_of_a_guests_holds_a_control_character(text: str) -> None:
    body = '{"v":1,"hostname":' + json.dumps(text) + "}"
    frame = guest_frames.read(body.encode())
    if isinstance(frame, GuestFrame):
        hostname = guest_frames.sample_of(VM, NOW, frame, before=None)[0].hostname or ""
        # A space of another width is not printable to Python, and harmless.
        steering = [c for c in hostname if not c.isprintable() and unicodedata.category(c) != "Zs"]
        assert steering == []
        hostname.encode()


# how much a guest may say


def standing_of(**changes: Any) -> Standing:
    fields = {
        "frames": bucket(2, 4, 0),
        "bytes_": bucket(1000, 3000, 0),
        "connections": bucket(0.5, 2, 0),
        **changes,
    }
    return Standing(**fields)


def test_a_burst_passes_and_what_follows_has_to_keep_to_the_rate() -> None:
    standing, passed = standing_of(), []
    for at_s in (0, 0, 0, 0, 0, 0.4, 1.0, 1.0, 1.5):
        standing = guest_frames.spoken(standing, at_s, 1)
        passed.append(guest_frames.within_rates(standing))
    assert passed == [True, True, True, True, False, False, True, True, True]


def test_bytes_count_as_frames_do() -> None:
    standing = guest_frames.spoken(standing_of(), 0, 3000)
    assert guest_frames.within_rates(standing)
    assert not guest_frames.within_rates(guest_frames.spoken(standing, 0.5, 600))
    assert guest_frames.within_rates(guest_frames.spoken(standing, 0.5, 500))


def test_a_guest_is_held_off_twice_as_long_each_time_and_forgiven_in_the_end() -> None:
    standing, pauses = standing_of(), []
    for now_s in (0.0, 100.0, 200.0, 300.0):
        standing = guest_frames.offended(standing, now_s, first_s=1, longest_s=5)
        pauses.append(standing.held_off_until_s - now_s)
    for _ in range(3):
        standing = guest_frames.taken(standing, forgiven_after=3)
    standing = guest_frames.offended(standing, 400, first_s=1, longest_s=5)
    assert (pauses, standing.held_off_until_s) == ([1, 2, 4, 5], 401)


def test_connections_have_a_rate_too() -> None:
    standing, too_many = standing_of(), []
    for at_s in (0, 0, 0, 10):
        standing = guest_frames.admitted(standing, at_s)
        too_many.append(standing.connections.overdrawn)
    assert too_many == [False, False, True, False]
