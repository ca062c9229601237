"""Grafana's dashboards as values, and the JSON that is provisioned: `python -m deploy.dashboards`.

What belongs here: which questions each dashboard answers, by which queries. The files in
`deploy/grafana/dashboards` are written from this; a test holds them against it, and every query against
what the services tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

FOLDER = Path(__file__).parent / "grafana/dashboards"
DATASOURCE = {"type": "prometheus", "uid": "vireo"}
COLUMNS = 24
SHOWN_RATE = "$__rate_interval"


class Query(Struct, frozen=True):
    """An expression, and how its series are called."""

    expr: str
    legend: str = ""


class Panel(Struct, frozen=True, kw_only=True):
    """One picture. `width` of 24 columns; `least` and `most` end the axis where there is an end."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 12
    height: int = 8
    least: float | None = 0
    most: float | None = None
    stacked: bool = False
    red_above: float | None = None


class Variable(Struct, frozen=True, kw_only=True):
    """What is chosen at the top. `metric` has the `label` whose values there are to choose from."""

    name: str
    metric: str
    label: str
    text: str = ""
    """The label to show in place of the value, as Grafana's regular expression over both."""


class Dashboard(Struct, frozen=True, kw_only=True):
    uid: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[Variable, ...] = ()


def _stat(title: str, expr: str, **more: Any) -> Panel:
    return Panel(title=title, queries=(Query(expr),), kind="stat", width=4, height=4, **more)


def _graph(title: str, *queries: tuple[str, str], **more: Any) -> Panel:
    return Panel(title=title, queries=tuple(Query(*query) for query in queries), **more)


def _rate(metric: str) -> str:
    return f"rate({metric}[{SHOWN_RATE}])"


FLEET = Dashboard(
    uid="vireo-fleet",
    title="Vireo / Fleet",
    panels=(
        _stat("Hosts online", "sum(vireo_host_online)"),
        _stat("Hosts silent", "count(vireo_host_online == 0) or vector(0)", red_above=1),
        _stat("VMs running", 'count(vireo_vm_info{state="running"}) or vector(0)'),
        _stat("CPUs promised", "sum(vireo_host_reserved_cpus)"),
        _stat(
            "Memory promised",
            "sum(vireo_host_reserved_memory_bytes) / sum(vireo_host_memory_size_bytes)",
            unit="percentunit",
        ),
        _stat("Power", "sum(vireo_host_power_watts)", unit="watt"),
        _graph("CPU busy", ("vireo_host_cpu_busy_ratio", "{{host}}"), unit="percentunit", most=1),
        _graph(
            "Memory in use",
            ("1 - vireo_host_memory_available_bytes / vireo_host_memory_size_bytes", "{{host}}"),
            unit="percentunit",
            most=1,
        ),
        _graph(
            "VM disk space in use",
            ("1 - vireo_host_disk_free_bytes / vireo_host_disk_size_bytes", "{{host}}"),
            ("1 - vireo_host_pool_free_bytes / vireo_host_pool_size_bytes", "{{host}} {{pool}}"),
            unit="percentunit",
            most=1,
        ),
        _graph("VMs by host", ("vireo_host_running_vms", "{{host}}"), stacked=True),
        _graph(
            "Network of hosts",
            (f"sum by (host) ({_rate('vireo_host_network_receive_bytes_total')})", "{{host}} in"),
            (f"sum by (host) ({_rate('vireo_host_network_transmit_bytes_total')})", "{{host}} out"),
            unit="Bps",
        ),
        _graph(
            "Hottest processors",
            ('max by (host) (vireo_host_temperature_celsius{part="cpu"})', "{{host}}"),
            unit="celsius",
        ),
        _graph(
            "VMs that keep the most CPUs busy",
            (
                "topk(10, vireo_vm_busy_cpus * on (vm) group_left (name) "
                "max by (vm, name) (vireo_vm_info))",
                "{{name}} on {{host}}",
            ),
        ),
        _graph(
            "VMs that send and receive the most",
            (
                f"topk(10, ({_rate('vireo_vm_network_receive_bytes_total')} + "
                f"{_rate('vireo_vm_network_transmit_bytes_total')}) * on (vm) group_left (name) "
                "max by (vm, name) (vireo_vm_info))",
                "{{name}} on {{host}}",
            ),
            unit="Bps",
        ),
        Panel(
            title="Hosts",
            queries=(Query("vireo_host_info"),),
            kind="table",
            width=COLUMNS,
        ),
    ),
)

HOST = Dashboard(
    uid="vireo-host",
    title="Vireo / Host",
    variables=(Variable(name="host", metric="vireo_host_online", label="host"),),
    panels=(
        _stat("Online", 'vireo_host_online{host="$host"}'),
        _stat("Maintenance", 'vireo_host_maintenance{host="$host"}'),
        _stat("VMs running", 'vireo_host_running_vms{host="$host"}'),
        _stat("CPUs promised", 'vireo_host_reserved_cpus{host="$host"}'),
        _stat("Uptime", 'vireo_host_uptime_seconds{host="$host"}', unit="s"),
        _stat("Power", 'vireo_host_power_watts{host="$host"}', unit="watt"),
        _graph(
            "CPU by mode",
            ('vireo_host_cpu_mode_ratio{host="$host"}', "{{mode}}"),
            ('vireo_host_io_wait_ratio{host="$host"}', "io wait"),
            unit="percentunit",
            most=1,
            stacked=True,
        ),
        _graph(
            "Load",
            ('vireo_host_load1{host="$host"}', "1 minute"),
            ('vireo_host_load5{host="$host"}', "5 minutes"),
            ('vireo_host_load15{host="$host"}', "15 minutes"),
            ('vireo_host_cpus{host="$host"}', "CPUs"),
        ),
        _graph(
            "Memory",
            ('vireo_host_memory_size_bytes{host="$host"}', "size"),
            ('vireo_host_memory_available_bytes{host="$host"}', "available"),
            ('vireo_host_reserved_memory_bytes{host="$host"}', "promised"),
            ('vireo_host_swap_used_bytes{host="$host"}', "swap in use"),
            unit="bytes",
        ),
        _graph(
            "Waited for (pressure)",
            ('vireo_host_cpu_pressure_ratio{host="$host"}', "CPU"),
            ('vireo_host_memory_pressure_ratio{host="$host"}', "memory"),
            ('vireo_host_io_pressure_ratio{host="$host"}', "disks"),
            unit="percentunit",
        ),
        _graph(
            "Network",
            (_rate('vireo_host_network_receive_bytes_total{host="$host"}'), "{{interface}} in"),
            (_rate('vireo_host_network_transmit_bytes_total{host="$host"}'), "{{interface}} out"),
            unit="Bps",
        ),
        _graph(
            "Network: damaged and dropped",
            *(
                (_rate(f'vireo_host_network_{what}_total{{host="$host"}}'), legend)
                for what, legend in (
                    ("receive_errors", "{{interface}} in, damaged"),
                    ("receive_drops", "{{interface}} in, dropped"),
                    ("transmit_errors", "{{interface}} out, failed"),
                    ("transmit_drops", "{{interface}} out, dropped"),
                )
            ),
            unit="pps",
        ),
        _graph(
            "Temperatures",
            ('vireo_host_temperature_celsius{host="$host"}', "{{part}}: {{device}} {{sensor}}"),
            unit="celsius",
        ),
        _graph(
            "CPUs that its VMs waited for (steal)",
            (
                _rate('vireo_vm_cpu_steal_seconds_total{host="$host"}')
                + " * on (vm) group_left (name) "
                'max by (vm, name) (vireo_vm_info{host="$host"})',
                "{{name}}",
            ),
            stacked=True,
        ),
        _graph(
            "Free space",
            ('vireo_host_disk_free_bytes{host="$host"}', "VM disks"),
            ('vireo_host_pool_free_bytes{host="$host"}', "{{pool}}"),
            unit="bytes",
        ),
        _graph(
            "CPUs that its VMs keep busy",
            (
                'vireo_vm_busy_cpus{host="$host"} * on (vm) group_left (name) '
                'max by (vm, name) (vireo_vm_info{host="$host"})',
                "{{name}}",
            ),
            stacked=True,
        ),
        Panel(
            title="VMs",
            queries=(Query('vireo_vm_info{host="$host"}'),),
            kind="table",
            width=COLUMNS,
        ),
    ),
)

VM = Dashboard(
    uid="vireo-vm",
    title="Vireo / VM",
    variables=(
        Variable(
            name="vm",
            metric="vireo_vm_info",
            label="vm",
            text='/name="(?<text>[^"]+)|vm="(?<value>[^"]+)/g',
        ),
    ),
    panels=(
        _stat("CPUs", 'vireo_vm_cpus{vm="$vm"}'),
        _stat("CPUs busy", 'vireo_vm_busy_cpus{vm="$vm"}'),
        _stat("Memory", 'vireo_vm_memory_size_bytes{vm="$vm"}', unit="bytes"),
        _stat("Guest's uptime", 'vireo_guest_uptime_seconds{vm="$vm"}', unit="s"),
        _stat("Guest agent", 'vireo_guest_agent_up{vm="$vm"}'),
        _stat("Logged in", 'vireo_guest_users{vm="$vm"}'),
        _graph(
            "CPUs busy",
            (_rate('vireo_vm_cpu_seconds_total{vm="$vm"}'), "from outside"),
            (
                'vireo_guest_cpu_busy_ratio{vm="$vm"} * on (vm) vireo_vm_cpus{vm="$vm"}',
                "from inside",
            ),
            (_rate('vireo_vm_cpu_steal_seconds_total{vm="$vm"}'), "waited for (steal)"),
        ),
        _graph(
            "Memory",
            ('vireo_vm_memory_size_bytes{vm="$vm"}', "may have"),
            ('vireo_vm_memory_resident_bytes{vm="$vm"}', "holds on the host"),
            ('vireo_guest_memory_available_bytes{vm="$vm"}', "available inside"),
            ('vireo_vm_memory_unused_bytes{vm="$vm"}', "unused inside"),
            unit="bytes",
        ),
        _graph(
            "Disks",
            (_rate('vireo_vm_block_read_bytes_total{vm="$vm"}'), "read"),
            (_rate('vireo_vm_block_written_bytes_total{vm="$vm"}'), "written"),
            unit="Bps",
        ),
        _graph(
            "Requests to disks",
            (_rate('vireo_vm_block_reads_total{vm="$vm"}'), "reads"),
            (_rate('vireo_vm_block_writes_total{vm="$vm"}'), "writes"),
            unit="iops",
        ),
        _graph(
            "Network",
            (_rate('vireo_vm_network_receive_bytes_total{vm="$vm"}'), "received"),
            (_rate('vireo_vm_network_transmit_bytes_total{vm="$vm"}'), "sent"),
            unit="Bps",
        ),
        _graph(
            "File systems inside",
            (
                'vireo_guest_filesystem_used_bytes{vm="$vm"} / '
                'vireo_guest_filesystem_size_bytes{vm="$vm"}',
                "{{mountpoint}}",
            ),
            unit="percentunit",
            most=1,
        ),
        _graph(
            "Load inside",
            ('vireo_guest_load1{vm="$vm"}', "1 minute"),
            ('vireo_guest_load5{vm="$vm"}', "5 minutes"),
            ('vireo_guest_load15{vm="$vm"}', "15 minutes"),
        ),
        _graph(
            "Guest's clock ahead of its host's",
            ('vireo_guest_clock_offset_seconds{vm="$vm"}', "ahead"),
            unit="s",
            least=None,
        ),
        Panel(
            title="Guest",
            queries=(Query('vireo_guest_info{vm="$vm"}'),),
            kind="table",
            width=COLUMNS,
            height=5,
        ),
    ),
)

PLANE = Dashboard(
    uid="vireo-plane",
    title="Vireo / Control plane",
    panels=(
        _stat(
            "Services not ready",
            "count(vireo_plane_service_ready == 0) or vector(0)",
            red_above=1,
        ),
        _stat("Dead letters in a day", "increase(vireo_plane_dead_letters_total[1d])", red_above=1),
        _stat("Events in the record", "vireo_plane_ledger_rows"),
        _stat(
            "Events passed by",
            "sum without (state) (vireo_plane_ledger_gap_events)",
            red_above=1,
        ),
        _stat("Faults in the chain", "vireo_plane_ledger_faults", red_above=1),
        _stat("Rows checked in this walk", "vireo_plane_ledger_checked_rows"),
        _graph("Messages behind", ("vireo_plane_messages_behind", "{{stream}} {{consumer}}")),
        _graph(
            "Frames of hosts", (_rate("vireo_telemetry_frames_total"), "{{outcome}}"), unit="cps"
        ),
        _graph(
            "Messages handled",
            (
                f"sum by (job, consumer, outcome) ({_rate('vireo_messages_handled_total')})",
                "{{consumer}} {{outcome}}",
            ),
            unit="cps",
        ),
        _graph(
            "Handling a message, 99 of 100",
            (
                "histogram_quantile(0.99, sum by (consumer, le) "
                f"({_rate('vireo_message_handling_seconds_bucket')}))",
                "{{consumer}}",
            ),
            unit="s",
        ),
        _graph(
            "Requests answered",
            (
                f"sum by (endpoint, outcome) ({_rate('vireo_requests_answered_total')})",
                "{{endpoint}} {{outcome}}",
            ),
            unit="cps",
        ),
        _graph(
            "Answering a request, 99 of 100",
            (
                "histogram_quantile(0.99, sum by (endpoint, le) "
                f"({_rate('vireo_request_answering_seconds_bucket')}))",
                "{{endpoint}}",
            ),
            unit="s",
        ),
        _graph("Ready", ("vireo_plane_service_ready", "{{service}}"), most=1),
        _graph("On the bus", ("vireo_bus_connected", "{{instance}}"), most=1),
    ),
)

DASHBOARDS = (FLEET, HOST, VM, PLANE)


LINK = {
    "type": "dashboards",
    "tags": ["vireo"],
    "title": "Vireo",
    "asDropdown": True,
    "keepTime": True,
    "includeVars": False,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "",
    "url": "",
}
"""To the other dashboards, at the same time."""


def as_json(dashboard: Dashboard) -> str:
    """What Grafana reads."""
    value = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["vireo"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [LINK],
        "templating": {"list": [_variable(each) for each in dashboard.variables]},
        "panels": list(_placed(dashboard.panels)),
    }
    return json.dumps(value, indent=2) + "\n"


def _variable(variable: Variable) -> dict[str, Any]:
    query = (
        f"query_result({variable.metric})"
        if variable.text
        else f"label_values({variable.metric}, {variable.label})"
    )
    return {
        "name": variable.name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": variable.name},
        "regex": variable.text,
        "refresh": 2,
        "sort": 1,
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    """From left to right, then in the next row."""
    x = y = row = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > COLUMNS:
            x, y, row = 0, y + row, 0
        place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
        yield {"id": number, "gridPos": place, **_panel(panel)}
        x, row = x + panel.width, max(row, panel.height)


def _panel(panel: Panel) -> dict[str, Any]:
    is_table = panel.kind == "table"
    return {
        "type": panel.kind,
        "title": panel.title,
        "datasource": DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "datasource": DATASOURCE,
                "instant": panel.kind != "timeseries",
                "range": panel.kind == "timeseries",
                "format": "table" if is_table else "time_series",
            }
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        **({"transformations": [_WITHOUT_NOISE]} if is_table else {}),
    }


_WITHOUT_NOISE = {
    "id": "organize",
    "options": {
        "excludeByName": dict.fromkeys(("Time", "Value", "__name__", "instance", "job"), True)
    },
}


def _defaults(panel: Panel) -> dict[str, Any]:
    ends = {"min": panel.least, "max": panel.most}
    defaults: dict[str, Any] = {"unit": panel.unit}
    defaults |= {name: end for name, end in ends.items() if end is not None}
    if panel.kind == "timeseries":
        # A gap in what is known is shown as one.
        defaults["custom"] = {
            "fillOpacity": 25 if panel.stacked else 10,
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    if panel.red_above is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.red_above}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return defaults


def files() -> dict[Path, str]:
    return {FOLDER / f"{each.uid}.json": as_json(each) for each in DASHBOARDS}


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content)
