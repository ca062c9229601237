"""How things look in plain text, as a whole."""

from __future__ import annotations

import io
import sys
from datetime import timedelta
from textwrap import dedent

import pytest
from msgspec import structs

from schemas.envelope import Header
from schemas.events import AlertFired, AlertResolved, VmStarted
from schemas.problems import Problem
from schemas.resources import DiskSpec, GuestFacts, Operation, OperationStep, Vm, VmSpec
from schemas.samples import ALERT, HOST_SAMPLE
from schemas.telemetry import HostReading, HostSample
from schemas.wire import encode, read_header, wrap
from tests.fixtures.gateway_standin import NOW, PLACEMENT, host, id_of, vm_reading
from vireo.cli import words
from vireo.cli.host_view import host_page, host_table
from vireo.cli.layout import Table, plain_page, plain_table
from vireo.cli.operation_view import event_line, operation_page
from vireo.cli.printing import show_table
from vireo.cli.up import settings_of
from vireo.cli.vm_view import vm_page, vm_table

LATER = NOW + timedelta(minutes=5)
VM = Vm(
    id=id_of(1),
    site="home",
    spec=VmSpec(name="web1", memory_mib=128, disks=(DiskSpec(size_gib=10, image="tiny"),)),
    state="running",
    power="running",
    host="h1",
    generation=1,
    created_at=NOW,
    updated_at=NOW,
    guest=GuestFacts(os="Tiny Linux 1", addresses=("192.0.2.7",)),
    placement=PLACEMENT,
)
OPERATION = Operation(
    id=id_of(2),
    command="vm.create",
    kind="vm",
    target=VM.id,
    name="web1",
    phase="succeeded",
    actor="token:admin",
    created_at=NOW,
    updated_at=NOW + timedelta(seconds=3.4),
    host="h1",
    trail=(
        OperationStep(
            event="operation.accepted", source="/vireo/home/gateway", at=NOW, elapsed_ms=0
        ),
        OperationStep(
            event="vm.started",
            source="/vireo/home/h1",
            at=NOW + timedelta(seconds=3.4),
            elapsed_ms=3400,
        ),
    ),
    placement=PLACEMENT,
)


def text(expected: str) -> str:
    return dedent(expected).lstrip("\n")


def test_a_list_of_vms() -> None:
    assert plain_table(vm_table([VM], wide=False, now=LATER)) == text("""
        NAME  STATE    HOST  ADDRESS    CPUS  MEMORY   AGE
        web1  running  h1    192.0.2.7  1     128 MiB  5 min
    """)


def test_a_vm_that_is_nowhere_yet_has_dashes() -> None:
    vm = structs.replace(VM, host="", guest=None)
    (row,) = vm_table([vm], wide=True, now=LATER).rows
    assert row[2:4] == ("-", "-")
    assert row[-1] == "-"


def test_the_page_of_an_operation() -> None:
    assert plain_page(operation_page(OPERATION, now=LATER)) == text("""
        vm.create: succeeded

        Operation
          id        019ca945-0a02-7000-8000-000000000002
          command   vm.create
          target    vm web1 019ca945-0a01-7000-8000-000000000001
          phase     succeeded
          host      h1
          by        token:admin
          accepted  2026-03-01 12:00:00 UTC (5 min ago)
          took      3.4 s

        Trail
          TIME          SINCE START  STEP      EVENT               BY       DETAIL
          12:00:00.000  0 ms         +0 ms     operation.accepted  gateway
          12:00:03.400  3400 ms      +3400 ms  vm.started          h1

        Why this host
          chosen      h1
          policy      spread
          considered  2 hosts
          HOST  SCORE  CPU   MEMORY
          h1    0.750  0.50  0.25

        Why not there
          HOST  RULE    DETAIL
          h2    memory  64 MiB free, 128 MiB needed
    """)


def test_the_page_of_a_vm_says_what_is_known_and_dashes_what_is_not() -> None:
    page = plain_page(vm_page(VM, reading=vm_reading(VM.id), operation=OPERATION, now=LATER))
    assert "  uptime       -\n" in page
    assert "  load         0.50 0.25 0.12\n" in page
    assert "  agent        QEMU's\n" in page
    titles = [line for line in page.splitlines() if line and not line.startswith(" ")]
    assert titles == [
        "web1: running on h1",
        "VM",
        "Spec",
        "Seen from the host",
        "Guest",
        "File systems",
        "Disks",
        "Network",
        "Why this host",
        "Why not there",
        "Last operation",
    ]


def test_a_vm_without_telemetry_still_has_a_page() -> None:
    page = plain_page(vm_page(VM, reading=None, operation=None, now=LATER))
    assert "Guest" not in page
    assert page.startswith("web1: running on h1\n")


def test_hosts_show_capacity_and_maintenance() -> None:
    resting = structs.replace(host(), config=structs.replace(host().config, maintenance=True))
    assert plain_table(host_table([resting], wide=False, now=LATER)) == text("""
        NAME  STATE        VMS  CPUS  MEMORY  RESERVED MEMORY  LABELS
        h1    maintenance  1    4     8 GiB   512 MiB          disk=nvme, rack=a
    """)
    assert text("""
        Capacity
          WHAT    CAPACITY  RESERVED  FREE
          cpus    4         1         3
          memory  8 GiB     512 MiB   7.5 GiB
          disk    100 GiB   10 GiB    90 GiB
    """) in plain_page(host_page(host(), reading=None, now=LATER))


def test_a_host_shows_its_cards_and_sensors_where_it_has_any() -> None:
    told = HostReading(host="h1", site="lab", at=LATER, interval_s=5.0, sample=HOST_SAMPLE)
    page = plain_page(host_page(host(), reading=told, now=LATER))
    assert "  swap               0 B used of 8 GiB\n" in page
    assert (
        text("""
        Network cards
          INTERFACE  RECEIVED  SENT      ERRORS  DROPPED
          enp3s0     82.1 GiB  37.5 GiB  0       12

        Temperatures
          OF   SENSOR                   NOW    CRITICAL
          cpu  coretemp.0 Package id 0  54 °C  100 °C
    """)
        in page
    )
    bare = structs.replace(told, sample=HostSample(swap_used_mib=0, swap_total_mib=0))
    page = plain_page(host_page(host(), reading=bare, now=LATER))
    assert "Network cards" not in page
    assert "  swap               none\n" in page


def test_a_name_cannot_bring_control_characters() -> None:
    table = Table(columns=("name",), rows=(("a\x1b[31m\nb",),))
    assert plain_table(table) == "NAME\na�[31m�b\n"


def test_an_event_is_one_line() -> None:
    line = event_line("vm.started", header())
    assert line == f"12:00:00.000  vm.started            h1         vm/{VM.id}  generation=1"


@pytest.mark.parametrize("kind", [AlertFired, AlertResolved])
def test_an_event_of_an_alert_says_of_what_and_how_much(
    kind: type[AlertFired | AlertResolved],
) -> None:
    alert = structs.replace(ALERT, labels={"host": "h1"}, value=0.97)
    message = wrap(
        kind(alert=alert), id=id_of(3), site="home", sender="metrics", at=NOW, about="vm/x"
    )
    line = event_line("alert", read_header(encode(message)))
    assert line.endswith("vm/x  rule=host-silent host=h1 value=0.97")


def test_an_event_of_an_alert_names_its_rule_once() -> None:
    message = wrap(
        AlertFired(alert=structs.replace(ALERT, labels={"host": "h1"}, value=0.97)),
        id=id_of(3),
        site="home",
        sender="metrics",
        at=NOW,
        about="alert/host-silent",
    )
    line = event_line("alert.fired", read_header(encode(message)))
    assert line.endswith("alert/host-silent  host=h1 value=0.97")


def header() -> Header:
    data = VmStarted(vm=VM.id, host="h1", generation=1)
    message = wrap(data, id=id_of(3), site="home", sender="h1", at=NOW, about=f"vm/{VM.id}")
    return read_header(encode(message))


@pytest.mark.parametrize(
    ("size", "shown"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 30, "10 GiB")],
)
def test_sizes_in_words(size: int | None, shown: str) -> None:
    assert words.of_bytes(size) == shown


@pytest.mark.parametrize(
    ("length", "shown"),
    [(None, "-"), (0.0304, "30 ms"), (3.44, "3.4 s"), (61, "1 min"), (7300, "2 h"), (90000, "1 d")],
)
def test_durations_in_words(length: float | None, shown: str) -> None:
    assert words.duration(length) == shown


def test_what_is_not_known_is_one_dash() -> None:
    assert words.numbers((None, None, None)) == "-"
    assert words.numbers((0.5, None)) == "0.50 -"
    found = [words.part(None, 2), words.part(0.5, None), words.part(0.5, 2)]
    assert found == ["-", "0.50", "0.50 of 2"]


def test_a_file_that_cannot_be_read_is_named_once() -> None:
    gone = FileNotFoundError(2, "No such file or directory", "web.yaml")
    assert words.unreadable(gone) == "No such file or directory"
    with pytest.raises(UnicodeDecodeError) as bad:
        b"ab\xff".decode()
    assert words.unreadable(bad.value) == "it is no UTF-8 (byte 3)"


class Terminal(io.StringIO):
    """Somebody looks at what is written here."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_a_narrow_terminal_gets_the_rows_of_a_list_unbroken(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("COLUMNS", "40")
    show_table(vm_table([VM], wide=True, now=LATER), empty="no VMs")
    header, row = terminal.getvalue().splitlines()
    assert ("LABELS" in header, id_of(1) in row, "Tiny Linux 1" in row) == (True, True, True)


def test_a_problem_is_told_in_one_line() -> None:
    refusal = Problem(type="urn:vireo:problem:conflict", title="It conflicts", status=409)
    assert words.problem(refusal) == "It conflicts"
    assert words.problem(structs.replace(refusal, detail="taken")) == "It conflicts: taken"


def test_settings_of_services_are_read_as_toml_or_as_text() -> None:
    pairs = ["hostagent.tick_s=2", "hostagent.domain_type=qemu", "gateway.tls.on=true", 'a.b="1"']
    assert settings_of(pairs) == {
        "hostagent": {"tick_s": 2, "domain_type": "qemu"},
        "gateway": {"tls": {"on": True}},
        "a": {"b": "1"},
    }


@pytest.mark.parametrize("pair", ["x", "x=1", "x.=1", ".y=1"])
def test_what_is_no_setting_is_refused(pair: str) -> None:
    with pytest.raises(ValueError, match="SERVICE"):
        settings_of([pair])
