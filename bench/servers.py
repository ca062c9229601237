"""What a running control plane stands on, for those who measure it: its bus and its Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from bench.floor import socket_dir
from chassis.bus import Bus
from chassis.nats import connect
from chassis.nats.settings import NatsSettings
from deploy.control_plane import ControlPlane


@asynccontextmanager
async def bus_of(plane: ControlPlane) -> AsyncIterator[Bus]:
    """The bus of a running control plane, as its operator."""
    settings = NatsSettings(
        urls=(f"nats://127.0.0.1:{plane.nats_port}",),
        user="operator",
        password_file=str(plane.state_dir / "credentials" / "operator.password"),
    )
    async with connect(settings, name="bench") as bus:
        yield bus


@asynccontextmanager
async def postgres_of(plane: ControlPlane) -> AsyncIterator[asyncpg.Connection]:
    """Its Postgres, as the inventory."""
    password = (plane.state_dir / "credentials" / "inventory.password").read_text().strip()
    postgres = await asyncpg.connect(
        host=str(socket_dir(plane.state_dir)),
        user="inventory",
        database="vireo",
        password=password,
    )
    try:
        yield postgres
    finally:
        await postgres.close()
