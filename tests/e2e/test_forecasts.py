"""What would be, asked of the whole system on real processes: answered, and nothing is changed."""

from __future__ import annotations

import re

import msgspec

from schemas.forecasts import Capacity, Forecast
from schemas.resources import DiskSpec
from schemas.subjects import KV_LEASES, STREAMS
from tests.fixtures.plane import MEMORY_MIB, Site, spec_of
from vireo import Client

CREATE = ("vm", "create", "foretold", "--image", "tiny", "--memory", f"{MEMORY_MIB}MiB")


async def sequences(site: Site) -> dict[str, int]:
    """The last sequence of every stream, but for leases, which are renewed all the time."""
    names = [f"KV_{one.name}" if one.bucket else one.name for one in STREAMS]
    return {name: await site.last_sequence(name) for name in names if KV_LEASES not in name}


async def test_dry_runs_say_what_would_come_and_leave_every_stream_as_it_was(
    site: Site, client: Client
) -> None:
    before = await sequences(site)
    told = site.cli(*CREATE, "--dry-run")
    forecast = msgspec.json.decode(site.cli(*CREATE, "--dry-run", "-o", "json"), type=Forecast)
    assert forecast.placement is not None
    assert forecast.host in site.hosts
    assert told.startswith(f"vm.create foretold: would go to {forecast.host}; nothing was done\n")
    assert site.plane.cli(*CREATE, "--memory", "4TiB", "--dry-run").returncode == 1
    host = sorted(site.hosts)[0]
    shown = site.cli("host", "set", host, "--maintenance", "--dry-run")
    assert re.search(r"maintenance +no +yes", shown)
    counted = msgspec.json.decode(
        site.cli("capacity", "--image", "tiny", "--memory", "96MiB", "-o", "json"), type=Capacity
    )
    assert {room.host for room in counted.hosts} == site.hosts.keys()
    assert await sequences(site) == before
    assert site.domains() == []
    assert [vm.spec.name async for vm in client.vms.list()] == []


async def test_a_forecast_comes_true_and_is_told_again_as_why(site: Site, client: Client) -> None:
    wish = spec_of("foretold", disks=(DiskSpec(image="tiny"),), power="stopped")
    forecast = await client.dry_run.vms.create(wish)
    vm = await site.created(client, "foretold", power="stopped")
    review = await client.vms.placement("foretold", now=True)
    assert forecast.placement is not None
    assert review.placement is not None
    assert (vm.host, review.placement.host) == (forecast.host, forecast.host)
    assert review.now is not None
    assert review.now.problem is None
    assert f"foretold: on {vm.host}\n" in site.cli("vm", "why", "foretold", "--now")
    before = await sequences(site)
    dry = await client.dry_run.vms.delete("foretold")
    assert {one.field for one in dry.changes} >= {"generation", "ended"}
    without = await client.hosts.capacity(without=[vm.host])
    assert without.displaced is not None
    assert (without.displaced.vms, without.displaced.placed) == (1, 1)
    assert await sequences(site) == before
    await site.delete(client, vm.id)
