"""The floor of one create: three acknowledged publishes, two commits, one define and start, in turn."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg
import libvirt

from bench.raw_libvirt import domain_xml
from bench.test_driver import node_file
from chassis.bus import Bus, Outgoing, StreamConfig
from chassis.nats import connect
from chassis.nats.settings import NatsSettings
from deploy.control_plane import ControlPlane

STREAM = "BENCH"
PUBLISHES = 3
COMMITS = 2


async def create_floor_s(plane: ControlPlane, count: int) -> list[float]:
    """The floor, measured `count` times on the servers of a running control plane."""
    credentials = plane.state_dir / "credentials"
    settings = NatsSettings(
        urls=(f"nats://127.0.0.1:{plane.nats_port}",),
        user="operator",
        password_file=str(credentials / "operator.password"),
    )
    postgres = await asyncpg.connect(
        host=str(socket_dir(plane.state_dir)),
        user="inventory",
        database="vireo",
        password=(credentials / "inventory.password").read_text().strip(),
    )
    try:
        async with connect(settings, name="bench") as bus:
            await bus.ensure_stream(
                StreamConfig(name=STREAM, description="Benchmarks", subjects=("bench.>",))
            )
            return await measured(bus, postgres, count)
    finally:
        await postgres.close()


async def measured(bus: Bus, postgres: asyncpg.Connection, count: int) -> list[float]:
    await postgres.execute("CREATE TEMPORARY TABLE floor (id bigserial PRIMARY KEY, body bytea)")
    with tempfile.TemporaryDirectory() as directory:
        connection = libvirt.open(node_file(Path(directory) / "floor.xml"))
        try:
            return [
                await once(bus, postgres, connection, domain_xml(f"floor-{each}"))
                for each in range(count)
            ]
        finally:
            connection.close()


async def once(
    bus: Bus, postgres: asyncpg.Connection, connection: libvirt.virConnect, document: str
) -> float:
    body = bytes(600)
    began = time.perf_counter()
    for _ in range(PUBLISHES):
        await bus.publish(Outgoing(subject="bench.floor", data=body))
    await asyncio.to_thread(lambda: connection.defineXML(document).create())
    for _ in range(COMMITS):
        await postgres.execute("INSERT INTO floor (body) VALUES ($1)", body)
    return time.perf_counter() - began


def socket_dir(state_dir: Path) -> Path:
    """Where the embedded Postgres' socket lies."""
    return next(state_dir.rglob(".s.PGSQL.*")).parent
