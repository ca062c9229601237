"""What a guest's agent (qemu-guest-agent) is asked and what its answers mean. Pure.

Commands and fields after QEMU's `qga/qapi-schema.json`. A guest is not trusted: what it answers is
taken only in the shape that is expected, cut to bounds, and the rest is ignored.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from schemas.ids import VmId
from schemas.resources import GuestFacts
from schemas.telemetry import FileSystem, GuestDisk, GuestSample, NetworkInterface
from services.hostagent.host_sample import CpuTimes, busy_share, cpu_times, loads, meminfo

T = TypeVar("T")

MOST = 64
"""Of a guest's interfaces, disks, file systems and addresses, no more than so many are passed on."""
TEXT = 200
FILE_BYTES = 64 * 1024
FILES = ("/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/stat")

COMMANDS = (
    "guest-info",
    "guest-get-osinfo",
    "guest-get-host-name",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-get-vcpus",
    "guest-get-diskstats",
    "guest-get-cpustats",
    "guest-get-load",
    "guest-get-users",
)
"""Asked in this order, those alone that `guest-info` lists as enabled."""

Text = Annotated[str, Meta(max_length=4096)]


class _Command(Struct):
    name: str
    enabled: bool = True


class _Info(Struct):
    version: Text = ""
    supported_commands: list[_Command] = []


class _Os(Struct, rename="kebab"):
    name: Text = ""
    pretty_name: Text = ""
    kernel_release: Text = ""


class _HostName(Struct, rename="kebab"):
    host_name: Text = ""


class _Address(Struct, rename="kebab"):
    ip_address: Text = ""


class _Traffic(Struct, rename="kebab"):
    rx_bytes: int | None = None
    tx_bytes: int | None = None


class _Interface(Struct, rename="kebab"):
    name: Text = ""
    hardware_address: Text = ""
    ip_addresses: list[_Address] = []
    statistics: _Traffic | None = None


class _FileSystem(Struct, rename="kebab"):
    mountpoint: Text = ""
    type: Text = ""
    total_bytes: int | None = None
    used_bytes: int | None = None


class _Vcpu(Struct):
    online: bool = False


class _DiskStats(Struct, frozen=True, rename="kebab"):
    read_sectors: int | None = None
    write_sectors: int | None = None


class _Disk(Struct):
    name: Text = ""
    stats: _DiskStats = _DiskStats()


class _CpuStats(Struct, rename="kebab"):
    user: int = 0
    nice: int = 0
    system: int = 0
    idle: int = 0
    iowait: int = 0
    irq: int = 0
    softirq: int = 0
    steal: int = 0


class _User(Struct):
    user: Text


class _Load(Struct):
    load1m: float
    load5m: float
    load15m: float


SECTOR_BYTES = 512


def command(name: str, **arguments: object) -> bytes:
    """One command as the agent reads it."""
    wish: dict[str, object] = {"execute": name}
    if arguments:
        wish["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
    return msgspec.json.encode(wish)


def answer(raw: bytes) -> Any:
    """What an agent returned. Raises msgspec.MsgspecError where that is not its protocol."""
    return msgspec.json.decode(raw, type=dict[str, Any]).get("return")


def file_text(chunk: Any) -> str:
    """The text in an answer of `guest-file-read`."""
    encoded = chunk.get("buf-b64", "") if isinstance(chunk, dict) else ""
    return base64.b64decode(str(encoded)[: 2 * FILE_BYTES]).decode(errors="replace")


def enabled(info: Any) -> frozenset[str]:
    """The commands that the agent will carry out."""
    listed = _as(_Info, info, _Info()).supported_commands
    return frozenset(one.name for one in listed if one.enabled)


def sample_of(
    vm: VmId,
    at: datetime,
    answers: Mapping[str, Any],
    files: Mapping[str, str],
    *,
    before: CpuTimes | None,
    error: str = "",
) -> tuple[GuestSample, CpuTimes | None]:
    """One sample from what was answered, and the counters the next is measured from."""
    os = _as(_Os, answers.get("guest-get-osinfo"), _Os())
    times = _cpu(answers, files)
    memory = meminfo(files.get("/proc/meminfo", ""))
    load1, load5, load15 = _loads(answers, files)
    uptime = files.get("/proc/uptime", "").split()
    vcpus = _list(_Vcpu, answers.get("guest-get-vcpus"))
    sample = GuestSample(
        vm=vm,
        at=at,
        os=_cut(os.pretty_name or os.name),
        kernel=_cut(os.kernel_release),
        hostname=_cut(_as(_HostName, answers.get("guest-get-host-name"), _HostName()).host_name),
        agent_version=_cut(_as(_Info, answers.get("guest-info"), _Info()).version),
        load1=load1,
        load5=load5,
        load15=load15,
        cpus_online=sum(cpu.online for cpu in vcpus) if vcpus else None,
        cpu_busy=busy_share(before, times),
        memory_total_kib=memory.get("MemTotal"),
        memory_available_kib=memory.get("MemAvailable"),
        uptime_s=_number(uptime[0]) if uptime else None,
        users=_users(answers.get("guest-get-users")),
        file_systems=tuple(map(_file_system, _list(_FileSystem, answers.get("guest-get-fsinfo")))),
        interfaces=tuple(
            map(_interface, _list(_Interface, answers.get("guest-network-get-interfaces")))
        ),
        disks=tuple(map(_disk, _list(_Disk, answers.get("guest-get-diskstats")))),
        error=error[:TEXT],
    )
    return sample, times


def facts_of(sample: GuestSample) -> GuestFacts:
    """What of a sample seldom changes."""
    addresses = {a for one in sample.interfaces for a in one.addresses if _is_global(a)}
    return GuestFacts(
        hostname=sample.hostname or "",
        os=sample.os or "",
        kernel=sample.kernel or "",
        agent_version=sample.agent_version or "",
        addresses=tuple(sorted(addresses, key=_by_family)[:MOST]),
    )


def _is_global(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local)


def _by_family(text: str) -> tuple[int, int]:
    address = ipaddress.ip_address(text)
    return address.version, int(address)


def _cpu(answers: Mapping[str, Any], files: Mapping[str, str]) -> CpuTimes | None:
    listed = _list(_CpuStats, answers.get("guest-get-cpustats"))
    if not listed:
        return cpu_times(files.get("/proc/stat", ""))
    idle = sum(cpu.idle + cpu.iowait for cpu in listed)
    busy = sum(c.user + c.nice + c.system + c.irq + c.softirq + c.steal for c in listed)
    return CpuTimes(busy, busy + idle)


def _loads(
    answers: Mapping[str, Any], files: Mapping[str, str]
) -> tuple[float | None, float | None, float | None]:
    load = _as(_Load, answers.get("guest-get-load"), None)
    if load is not None:
        return load.load1m, load.load5m, load.load15m
    return loads(files.get("/proc/loadavg", ""))


def _users(listed: Any) -> tuple[str, ...] | None:
    if not isinstance(listed, list):
        return None
    return tuple(sorted({one.user[:TEXT] for one in _list(_User, listed)}))


def _file_system(found: _FileSystem) -> FileSystem:
    return FileSystem(
        mountpoint=found.mountpoint[:TEXT],
        type=found.type[:TEXT],
        total_bytes=found.total_bytes,
        used_bytes=found.used_bytes,
    )


def _interface(found: _Interface) -> NetworkInterface:
    traffic = found.statistics or _Traffic()
    return NetworkInterface(
        name=found.name[:TEXT],
        mac=found.hardware_address[:TEXT],
        addresses=tuple(one.ip_address[:TEXT] for one in found.ip_addresses[:MOST]),
        receive_bytes=traffic.rx_bytes,
        transmit_bytes=traffic.tx_bytes,
    )


def _disk(found: _Disk) -> GuestDisk:
    return GuestDisk(
        name=found.name[:TEXT],
        read_bytes=_sectors(found.stats.read_sectors),
        write_bytes=_sectors(found.stats.write_sectors),
    )


def _sectors(count: int | None) -> int | None:
    return None if count is None else count * SECTOR_BYTES


def _as(type_: type[T], value: Any, otherwise: T | None) -> T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return otherwise  # type: ignore[return-value]


def _list(type_: type[T], value: Any) -> list[T]:
    """The members that are as they should be; one that is not spoils none of the others."""
    if not isinstance(value, list):
        return []
    found = (_as(type_, member, None) for member in value[:MOST])
    return [member for member in found if member is not None]


def _cut(text: str) -> str | None:
    return text[:TEXT] or None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
