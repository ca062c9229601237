"""docs/metrics.md says of every series what the service does."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.metrics.series import HOST_SERIES, SERIES, VM_SERIES, Series

GUIDE = (Path(__file__).parents[2] / "docs/metrics.md").read_text()


@pytest.mark.parametrize("series", [*VM_SERIES, *HOST_SERIES], ids=lambda series: series.name)
def test_every_series_is_in_the_guide(series: Series) -> None:
    assert f"| `{series.name}` | {series.unit} | {series.help} |" in GUIDE


def test_no_two_series_of_a_kind_share_a_name() -> None:
    for table in SERIES.values():
        names = [each.name for each in table]
        assert len(set(names)) == len(names)


def test_series_keep_their_places_for_what_is_stored_has_them_there() -> None:
    """What comes new is added at the end of these lists."""
    assert [each.name for each in VM_SERIES][:17] == [
        *("cpu_busy", "cpus", "memory_max", "memory_resident", "memory_available"),
        *("memory_unused", "block_read", "block_written", "block_reads", "block_writes"),
        *("net_received", "net_sent", "guest_cpu_busy", "guest_load1", "guest_memory_total"),
        *("guest_memory_available", "cpu_steal"),
    ]
    assert [each.name for each in HOST_SERIES][:32] == [
        *("cpu_busy", "io_wait", "cpu_user", "cpu_nice", "cpu_system", "cpu_irq"),
        *("cpu_softirq", "cpu_steal", "cpu_pressure", "memory_pressure", "io_pressure"),
        *("load1", "load5", "load15", "memory_total", "memory_available", "swap_used"),
        *("disk_total", "disk_free", "power", "vms_running", "swap_total"),
        *("cpu_temperature", "disk_temperature", "net_received", "net_sent"),
        *("net_packets_received", "net_packets_sent", "net_receive_errors", "net_send_errors"),
        *("net_receive_drops", "net_send_drops"),
    ]
