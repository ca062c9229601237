"""The metrics that the metrics service tells, with the labels of each: what alert rules may be about.

Held by a test against what is told.
"""

from __future__ import annotations

_HOST = ("host", "site")
_VM = ("vm", *_HOST)

METRIC_LABELS: dict[str, tuple[str, ...]] = {
    "vireo_host_info": (
        *_HOST,
        "arch",
        "cpu_model",
        "kernel",
        "hypervisor",
        "hypervisor_version",
        "libvirt_version",
        "agent_version",
    ),
    **dict.fromkeys(
        (
            "vireo_host_last_frame_timestamp_seconds",
            "vireo_host_cpu_busy_ratio",
            "vireo_host_io_wait_ratio",
            "vireo_host_power_watts",
            "vireo_host_cpu_pressure_ratio",
            "vireo_host_memory_pressure_ratio",
            "vireo_host_io_pressure_ratio",
            "vireo_host_load1",
            "vireo_host_load5",
            "vireo_host_load15",
            "vireo_host_memory_size_bytes",
            "vireo_host_memory_available_bytes",
            "vireo_host_swap_size_bytes",
            "vireo_host_swap_used_bytes",
            "vireo_host_disk_size_bytes",
            "vireo_host_disk_free_bytes",
            "vireo_host_uptime_seconds",
            "vireo_host_running_vms",
            "vireo_host_tick_seconds",
            "vireo_host_online",
            "vireo_host_maintenance",
            "vireo_host_cpus",
            "vireo_host_reserved_cpus",
            "vireo_host_reserved_memory_bytes",
            "vireo_host_assigned_vms",
        ),
        _HOST,
    ),
    "vireo_host_cpu_mode_ratio": (*_HOST, "mode"),
    **dict.fromkeys(
        (
            "vireo_host_pool_size_bytes",
            "vireo_host_pool_free_bytes",
        ),
        (*_HOST, "pool"),
    ),
    **dict.fromkeys(
        (
            "vireo_host_network_receive_bytes_total",
            "vireo_host_network_transmit_bytes_total",
            "vireo_host_network_receive_packets_total",
            "vireo_host_network_transmit_packets_total",
            "vireo_host_network_receive_errors_total",
            "vireo_host_network_transmit_errors_total",
            "vireo_host_network_receive_drops_total",
            "vireo_host_network_transmit_drops_total",
        ),
        (*_HOST, "interface"),
    ),
    **dict.fromkeys(
        (
            "vireo_host_temperature_celsius",
            "vireo_host_temperature_critical_celsius",
        ),
        (*_HOST, "part", "chip", "device", "sensor"),
    ),
    "vireo_vm_info": (*_VM, "state", "name", "project"),
    **dict.fromkeys(
        (
            "vireo_vm_cpus",
            "vireo_vm_cpu_seconds_total",
            "vireo_vm_cpu_steal_seconds_total",
            "vireo_vm_memory_size_bytes",
            "vireo_vm_memory_resident_bytes",
            "vireo_vm_memory_available_bytes",
            "vireo_vm_memory_unused_bytes",
            "vireo_vm_block_read_bytes_total",
            "vireo_vm_block_written_bytes_total",
            "vireo_vm_block_reads_total",
            "vireo_vm_block_writes_total",
            "vireo_vm_network_receive_bytes_total",
            "vireo_vm_network_transmit_bytes_total",
            "vireo_vm_busy_cpus",
            "vireo_guest_agent_up",
            "vireo_guest_cpu_busy_ratio",
            "vireo_guest_load1",
            "vireo_guest_load5",
            "vireo_guest_load15",
            "vireo_guest_memory_size_bytes",
            "vireo_guest_memory_available_bytes",
            "vireo_guest_uptime_seconds",
            "vireo_guest_last_sample_timestamp_seconds",
            "vireo_guest_clock_offset_seconds",
            "vireo_guest_users",
        ),
        _VM,
    ),
    "vireo_guest_info": (*_VM, "os", "kernel", "hostname", "source", "agent_version"),
    **dict.fromkeys(
        (
            "vireo_guest_filesystem_size_bytes",
            "vireo_guest_filesystem_used_bytes",
        ),
        (*_VM, "mountpoint", "fstype"),
    ),
    **dict.fromkeys(
        (
            "vireo_guest_network_receive_bytes_total",
            "vireo_guest_network_transmit_bytes_total",
        ),
        (*_VM, "interface"),
    ),
    **dict.fromkeys(
        (
            "vireo_guest_disk_read_bytes_total",
            "vireo_guest_disk_written_bytes_total",
        ),
        (*_VM, "device"),
    ),
    "vireo_telemetry_frames_total": ("outcome",),
    "vireo_plane_service_ready": ("service",),
    "vireo_plane_messages_behind": ("stream", "consumer"),
    "vireo_plane_ledger_gap_events": ("state",),
    **dict.fromkeys(
        (
            "vireo_plane_dead_letters_total",
            "vireo_plane_ledger_rows",
            "vireo_plane_ledger_alarms",
            "vireo_plane_ledger_checked_rows",
            "vireo_plane_ledger_faults",
        ),
        (),
    ),
}
