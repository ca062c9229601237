"""Telemetry for the benchmark: frames of make-believe hosts, and a process that says them to the bus.

`python -m bench.metrics_load PORT HOSTS VMS TICKS` says all frames as fast as the server takes them.
"""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from schemas import subjects
from schemas.ids import uuid7
from schemas.telemetry import (
    CpuModes,
    HostFrame,
    HostInterface,
    HostSample,
    Temperature,
    VmColumns,
)
from schemas.wire import encode

START = datetime(2026, 3, 2, tzinfo=UTC)
TICK_S = 5
SITE = "bench"
VM_VALUES = 13
"""Numbers of each VM in a frame; its state is no number."""
HOST_VALUES = 32


def samples_of(vms: int) -> int:
    """Values in one frame."""
    return HOST_VALUES + VM_VALUES * vms


def vm_id(host: int, number: int) -> str:
    return uuid7(1_700_000_000_000 + host, (host << 20 | number).to_bytes(10, "big"))


def frame(host: int, tick: int, vms: int) -> HostFrame:
    """The same on every machine; counters grow from tick to tick."""
    chance = random.Random(host)

    def gauge(least: int, most: int) -> tuple[int, ...]:
        return tuple(chance.randrange(least, most) + tick for _ in range(vms))

    def counter(most: int) -> tuple[int, ...]:
        return tuple(chance.randrange(most) * (1000 + tick) for _ in range(vms))

    return HostFrame(
        host=f"h{host}",
        site=SITE,
        at=START + timedelta(seconds=TICK_S * tick),
        sequence=tick,
        interval_s=float(TICK_S),
        sample=HostSample(
            cpu_busy=0.5,
            io_wait=0.01,
            power_watts=231.5,
            cpu_modes=CpuModes(
                user=0.3, nice=0.001, system=0.12, irq=0.002, softirq=0.013, steal=0.004
            ),
            cpu_pressure=0.12,
            memory_pressure=0.01,
            io_pressure=0.2,
            load1=3.51,
            load5=3.22,
            load15=2.98,
            memory_total_mib=262_144,
            memory_available_mib=131_072 + tick,
            swap_total_mib=8192,
            swap_used_mib=12,
            disk_total_bytes=8_000_000_000_000,
            disk_free_bytes=3_000_000_000_000 - tick,
            interfaces=tuple(_card(f"enp{number}s0", tick) for number in (1, 2)),
            temperatures=tuple(_sensor(part, tick) for part in ("cpu", "disk")),
            uptime_s=86_400.0 + tick,
            vms_running=vms,
        ),
        vms=VmColumns(
            ids=tuple(vm_id(host, number) for number in range(vms)),
            state=("running",) * vms,
            cpus=(2,) * vms,
            cpu_time_ns=counter(10**9),
            cpu_steal_ns=counter(10**6),
            memory_max_kib=(4_194_304,) * vms,
            memory_rss_kib=gauge(10**6, 4 * 10**6),
            memory_available_kib=gauge(10**6, 4 * 10**6),
            memory_unused_kib=gauge(10**5, 10**6),
            block_read_bytes=counter(10**7),
            block_write_bytes=counter(10**7),
            block_read_requests=counter(10**3),
            block_write_requests=counter(10**3),
            net_receive_bytes=counter(10**7),
            net_transmit_bytes=counter(10**7),
        ),
    )


def _card(name: str, tick: int) -> HostInterface:
    return HostInterface(
        name=name,
        receive_bytes=88_120_433_210 + 100_000_000 * tick,
        receive_packets=91_204_118 + 90_000 * tick,
        receive_errors=0,
        receive_drops=12,
        transmit_bytes=40_312_118_905 + 60_000_000 * tick,
        transmit_packets=60_118_402 + 50_000 * tick,
        transmit_errors=0,
        transmit_drops=0,
    )


def _sensor(part: Literal["cpu", "disk"], tick: int) -> Temperature:
    return Temperature(
        part=part,
        chip="chip",
        device=f"{part}.0",
        sensor="Composite",
        celsius=50.0 + tick % 10,
        critical_celsius=100.0,
    )


def published(hosts: int, vms: int, ticks: int) -> Iterator[bytes]:
    """A tick of all hosts after the other, as NATS' protocol says them."""
    for tick in range(ticks):
        parts = []
        for host in range(hosts):
            said = encode(frame(host, tick, vms))
            subject = subjects.telemetry(site=SITE, host=f"h{host}")
            parts.append(f"PUB {subject} {len(said)}\r\n".encode() + said + b"\r\n")
        yield b"".join(parts)


def main(port: int, hosts: int, vms: int, ticks: int) -> None:
    made = list(published(hosts, vms, ticks))
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.recv(65_536)
        server.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        for piece in made:
            server.sendall(piece)
        server.sendall(b"PING\r\n")
        answer = b""
        while b"PONG" not in answer:
            answer = server.recv(65_536)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:5]))
