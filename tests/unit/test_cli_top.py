"""What `vireo top` shows: sorted, cut to the terminal, gaps as gaps."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from msgspec.structs import replace
from rich.console import Console

from schemas.ids import uuid7
from schemas.loads import HostLoad, VmLoad
from vireo.cli.layout import plain_page
from vireo.cli.printing import rich_page
from vireo.cli.top import keys_in
from vireo.cli.top_view import (
    FRAME_LINES,
    Look,
    Sort,
    View,
    ordered,
    scrolled,
    sorted_by_next,
    top_page,
)

AT = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
TOLD = datetime(2026, 3, 1, 12, 0, 2, tzinfo=UTC)


def vm(name: str, cpu: float | None = None, memory: int | None = None) -> VmLoad:
    number = sum(map(ord, name))
    return VmLoad(
        vm=uuid7(1_700_000_000_000 + number, b"0123456789"),
        name=name,
        host="h1",
        site="lab",
        at=TOLD,
        state="running",
        cpus=2,
        cpu_busy=cpu,
        memory_max_bytes=1 << 30,
        memory_used_bytes=memory,
        sent_bytes_s=2048.0,
        recent_cpu=(0.0, None, 2.0),
    )


HOST = HostLoad(
    host="h1",
    site="lab",
    at=TOLD,
    cpu_busy=0.5,
    load1=1.25,
    memory_total_bytes=4 << 30,
    memory_used_bytes=1 << 30,
    disk_total_bytes=100,
    disk_free_bytes=75,
    cpu_celsius=54.4,
    received_bytes_s=1024.0,
    vms_running=3,
    recent_cpu=(0.0, 0.5, 1.0),
)
LOOK = Look(at=AT, hosts=(HOST,), vms=(vm("a", 0.1, 300), vm("b", None, 500), vm("c", 1.5, 100)))


def names(sort: Sort) -> list[str]:
    return [each.name for each in ordered(LOOK, sort).vms]


def test_the_busiest_come_first_and_what_is_not_known_last() -> None:
    assert names(Sort.CPU) == ["c", "a", "b"]
    assert names(Sort.MEMORY) == ["b", "a", "c"]
    assert names(Sort.DISK) == names(Sort.NAME) == ["a", "b", "c"]


def test_hosts_too_are_sorted_by_their_network() -> None:
    silent, quiet = replace(HOST, host="h0", received_bytes_s=None), replace(HOST, host="h9")
    busy = replace(HOST, host="h5", sent_bytes_s=9000.0)
    look = ordered(replace(LOOK, hosts=(silent, quiet, busy)), Sort.NETWORK)
    assert [host.host for host in look.hosts] == ["h5", "h9", "h0"]


def test_a_page_says_all_of_it() -> None:
    assert plain_page(top_page(LOOK, View())) == (
        "1 host, 3 VMs, 3 running; by cpu; 12:00:05\n"
        "\n"
        "Hosts\n"
        "  HOST  CPU   RECENT  LOAD  MEMORY          DISK  WAITS  IN       OUT  CPU TEMP  VMS  TOLD\n"
        "  h1    50 %  ▁▅█     1.25  1 GiB of 4 GiB  25 %  -      1 KiB/s  -    54 °C     3    3 s\n"
        "\n"
        "VMs\n"
        "  VM  HOST  STATE    CPUS       RECENT  MEMORY          READ  WRITE  IN  OUT\n"
        "  c   h1    running  1.50 of 2  ▁ █     100 B of 1 GiB  -     -      -   2 KiB/s\n"
        "  a   h1    running  0.10 of 2  ▁ █     300 B of 1 GiB  -     -      -   2 KiB/s\n"
        "  b   h1    running  - of 2     ▁ █     500 B of 1 GiB  -     -      -   2 KiB/s\n"
    )


def test_on_a_narrow_terminal_a_row_still_takes_one_line() -> None:
    for width in (60, 76, 120):
        console = Console(width=width, height=40, file=io.StringIO())
        console.print(rich_page(top_page(LOOK, View(width=width)), cut=True))
        file = console.file
        assert isinstance(file, io.StringIO)
        assert len(file.getvalue().splitlines()) == FRAME_LINES + 1 + 3
        assert "…" not in file.getvalue()


def columns(sort: Sort, width: int) -> list[tuple[str, ...]]:
    tables = [each.table for each in top_page(LOOK, View(sort=sort, width=width)).sections]
    return [table.columns for table in tables if table]


def test_a_narrow_terminal_goes_without_what_matters_least_and_never_without_the_names() -> None:
    assert columns(Sort.CPU, 76) == [
        ("host", "cpu", "recent", "load", "memory", "disk", "cpu temp", "vms", "told"),
        ("vm", "host", "state", "cpus", "recent", "memory", "in", "out"),
    ]
    assert columns(Sort.NAME, 12) == [("host", "cpu"), ("vm",)]


def test_a_narrow_terminal_keeps_what_it_is_sorted_by() -> None:
    assert columns(Sort.DISK, 66)[1] == ("vm", "host", "state", "cpus", "memory", "read", "write")
    assert columns(Sort.NETWORK, 20) == [("host", "cpu", "in", "out"), ("vm", "in", "out")]


def test_of_more_than_the_terminal_holds_the_first_are_shown_and_the_rest_by_scrolling() -> None:
    low = View(sort=Sort.NAME, lines=FRAME_LINES + 3)
    page = top_page(LOOK, low)
    further = top_page(LOOK, View(sort=Sort.NAME, lines=low.lines, skipped=1))
    tables = [each.sections[1].table for each in (page, further)]
    assert page.sections[1].title == "VMs (2 of 3)"
    assert [[row[0] for row in table.rows] for table in tables if table] == [["a", "b"], ["b", "c"]]


def test_scrolling_ends_at_both_ends() -> None:
    assert scrolled(View(), -1, LOOK).skipped == 0
    assert scrolled(View(skipped=2), 5, LOOK).skipped == 2


def test_orders_go_around_and_begin_at_the_top() -> None:
    assert sorted_by_next(View(sort=Sort.NAME, skipped=2), 1) == View(sort=Sort.CPU)
    assert sorted_by_next(View(sort=Sort.CPU), -1) == View(sort=Sort.NAME)


def test_keys_that_are_typed_at_once_count_one_by_one() -> None:
    assert keys_in("\x1b[D\x1b[Djq") == ["\x1b[D", "\x1b[D", "j", "q"]
