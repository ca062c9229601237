"""The settings of the agent. Everything that bounds it has a name here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from chassis.settings import ChassisSettings
from schemas.guest_frames import PORT, Interval
from schemas.ids import END, HostName, Labels, Name

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Count = Annotated[int, Meta(ge=1, le=10_000)]
PoolPlace = Annotated[
    str,
    Meta(
        pattern=r"^(/.{0,1000}|libvirt:[A-Za-z0-9][A-Za-z0-9._-]{0,62})" + END,
        description="an absolute path, or libvirt:NAME",
    ),
]
DevicePattern = Annotated[
    str,
    Meta(
        pattern=r"^([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]|[0-9a-f]{4}:([0-9a-f]{4}|\*)"
        r"|class:[0-9a-f]{2,6})" + END,
        description="0000:41:00.0, 10de:2204, 10de:* or class:0300",
    ),
]
DeviceName = Annotated[
    str, Meta(pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?" + END, description="gpu, nic-100g, or empty")
]


class GuestPushSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What Vireo's guest agent may say, and how often. All of it is per guest."""

    interval_s: Interval = 5
    """How often a guest is to send a frame; it is told while it runs."""
    port: Annotated[int, Meta(ge=1, le=2**32 - 2)] = PORT
    """The vsock port that guests connect to."""
    reserved_ports_only: bool = True
    """Over vsock, hear only what comes from a port below 1024, which in a guest no ordinary user has."""
    socket_group: Annotated[str, Meta(max_length=64)] = ""
    """The group that may connect to guests' Unix sockets (that of the hypervisor's process), by name;
    empty: the agent's own user alone."""
    frame_bytes: Annotated[int, Meta(ge=4096, le=1024 * 1024)] = 64 * 1024
    """A longer frame is not read."""
    frames_per_s: Annotated[float, Meta(ge=0.1, le=1000)] = 4
    """Frames that are taken in the long run; ten times as many at once."""
    bytes_per_s: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 32 * 1024
    """Bytes that are taken in the long run; ten times as many at once."""
    floods: Count = 20
    """So many frames over these rates end the connection."""
    connections_per_s: Annotated[float, Meta(gt=0, le=100)] = 0.2
    """Connections in the long run; ten at once."""
    stall_s: Seconds = 10
    """How long a frame may take from its first byte to its last."""
    silence_s: Annotated[float, Meta(gt=0, le=86_400)] = 30
    """How long a connection may say nothing beyond its interval."""
    forgiven_after: Count = 20
    """So many good frames, and what a guest did wrong before is forgotten."""
    hold_off_first_s: Seconds = 1
    """How long a guest whose connection ended badly is not heard; it doubles."""
    hold_off_longest_s: Seconds = 300
    """The longest that it is not heard."""
    facts_per_s: Annotated[float, Meta(gt=0, le=10)] = 0.02
    """Changes of a guest's facts that are told in the long run; five at once."""


class GuestAgentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How guests' own agents are heard and asked."""

    transport: Literal["auto", "vsock", "unix", "off"] = "auto"
    """How Vireo's guest agent reaches this agent: by AF_VSOCK, by a Unix socket per guest
    (vhost-user-vsock, Firecracker, cloud-hypervisor), or not at all; `auto` is vsock where the host has
    vhost-vsock, else unix."""
    push: GuestPushSettings = GuestPushSettings()
    interval_s: Seconds = 15
    """How often each running guest is asked."""
    eager_interval_s: Seconds = 1
    """How often while a guest has just started and shows no address yet."""
    eager_for_s: Seconds = 60
    """How long after its start a guest is asked eagerly."""
    timeout_s: Annotated[float, Meta(ge=1, le=60)] = 3
    """How long one command may take (libvirt counts whole seconds)."""
    budget_s: Seconds = 10
    """How long one guest's whole round may take."""
    longest_pause_s: Seconds = 120
    """The most that a guest which does not answer is left in peace."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """How many guests are asked at one time."""
    answer_bytes: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = 256 * 1024
    """A longer answer of a guest is not read."""


class RetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is tried again, and how often."""

    attempts: Count = 10
    """How often a step is tried while the hypervisor does not answer, before the operation fails."""
    first_s: Seconds = 0.5
    """The wait after the first attempt; it doubles."""
    longest_s: Seconds = 15
    """The longest wait between two attempts."""
    restart_first_s: Seconds = 1
    """The wait before the second mending of a guest in a row; it doubles. The first comes at once."""
    restart_longest_s: Seconds = 300
    """The longest wait before a guest that keeps going wrong is mended again."""
    restart_calm_s: Seconds = 600
    """A guest that was well for so long counts as well."""


class Settings(ChassisSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent of one host."""

    host: HostName
    """The host's name in the fleet."""
    labels: Labels = {}  # noqa: RUF012 — msgspec copies it for each instance
    """Labels of the host that placements may ask for."""
    libvirt_uri: str = "qemu:///system"
    """The libvirt to work with."""
    domain_type: Literal["auto", "kvm", "qemu"] = "auto"
    """How guests are run; `auto` tries a kernel under KVM once."""
    data_dir: Path = Path("/var/lib/vireo/hostagent")
    """Disks, console logs and the journal. Both the agent and QEMU must be able to reach it."""
    image_dir: Path = Path("/var/lib/vireo/images")
    """Base images: `NAME.qcow2`, booted directly where `NAME.vmlinuz` and `NAME.initrd` lie beside it."""
    pools: Annotated[dict[Name, PoolPlace], Meta(max_length=64)] = {}  # noqa: RUF012
    """Storage pools beside `data_dir` that disks may ask for: `nvme=/srv/nvme`, or a pool of libvirt's
    that is a folder, `nfs=libvirt:NAME`. Both the agent and QEMU must be able to reach them."""
    devices: Annotated[dict[DevicePattern, DeviceName], Meta(max_length=256)] = {}  # noqa: RUF012
    """PCI devices that guests may have, and the class they are asked for by: `0000:41:00.0=gpu`,
    `10de:2204=gpu` or `10de:*=gpu` (vendor and product), `class:0200=nic` (the first digits of the PCI
    class). With an empty class it is `VENDOR-PRODUCT`. The narrower pattern goes first."""
    kernel_cmdline: Annotated[str, Meta(max_length=1024)] = "console=ttyS0 panic=-1"
    """Command line of directly booted kernels."""
    proc_dir: Path = Path("/proc")
    """Where the host's own numbers are read."""
    sys_dir: Path = Path("/sys")
    """Where its network cards, temperatures and power are read."""
    power_meters: Annotated[tuple[str, ...], Meta(max_length=64)] = ("power_meter", "corsairpsu")
    """Chips of `/sys/class/hwmon` that measure the whole machine: `power_meter` is ACPI's, which a
    server's BMC reads by IPMI. Their first channel counts; without one, processors and memory do (RAPL)."""
    tick_s: Annotated[float, Meta(ge=0.1, le=300)] = 5
    """How often telemetry is sent."""
    survey_s: Seconds = 30
    """How often all domains are compared with what is known, in case a notice was lost."""
    facts_s: Seconds = 30
    """How often the host's facts are looked at for changes."""
    lease_s: Annotated[float, Meta(ge=0.5, le=60)] = 3
    """How often the lease is renewed."""
    lease_ttl_s: Annotated[int, Meta(ge=1, le=300)] = 10
    """How long the lease holds."""
    reboot_s: Seconds = 60
    """How long a guest may take to begin a reboot that it was asked for."""
    ask_again_s: Seconds = 5
    """How often a guest that is to shut down is asked again."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """How many effects on the hypervisor are in flight at one time."""
    libvirt_threads: Annotated[int, Meta(ge=1, le=256)] = 8
    """Threads for calls that change domains."""
    libvirt_timeout_s: Seconds = 60
    """How long one call to libvirt may take before it is given up."""
    sample_timeout_s: Seconds = 2
    """How long one bulk call for statistics may take; a guest that hangs is left out after it."""
    keepalive_s: Annotated[int, Meta(ge=1, le=60)] = 2
    """How often libvirt is asked whether it lives; three silences end the connection."""
    kvm_probe_s: Annotated[float, Meta(gt=0, le=60)] = 5
    """How long a kernel gets to show itself under KVM."""
    outbox_batch: Annotated[int, Meta(ge=1, le=1000)] = 200
    """How many events are published together."""
    outbox_kept: Annotated[int, Meta(ge=0, le=1_000_000)] = 10_000
    """How many published events are remembered, so that none is told twice."""
    guest_agent: GuestAgentSettings = GuestAgentSettings()
    retry: RetrySettings = RetrySettings()
