"""The bucket FLEET is deleted while everything runs, and written anew from the record."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client as Nats
from nats.js.errors import NotFoundError

from bench.test_driver import node_file
from deploy.control_plane import ControlPlane
from schemas.resources import DiskSpec, VmSpec
from tests.fixtures.plane import until
from vireo import Client, NotFound, OperationFailed

WAIT_S = 30.0
VMS = ("web-1", "web-2", "web-3")


def spec(name: str) -> VmSpec:
    return VmSpec(name=name, memory_mib=128, disks=(DiskSpec(size_gib=1),))


async def bucket(bus: Nats) -> dict[str, bytes]:
    """Every key of FLEET but the scheduler's own, with its value."""
    store = await bus.jetstream().key_value("FLEET")
    keys = [key for key in await store.keys() if not key.startswith("term.")]
    return {key: (await store.get(key)).value or b"" for key in keys}


async def said(client: Client, vm: str) -> Counter[str]:
    """What was ever said of a VM."""
    return Counter([header.type async for header in client.events.list(vm=vm)])


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """In a directory that Postgres' own user may enter."""
    with tempfile.TemporaryDirectory(prefix="vireo-lost-") as directory:
        place = Path(directory)
        place.chmod(0o711)
        settings = ("scheduler.fleet_check_s=0.2", "hostagent.tick_s=1")
        hosts = {"h1": node_file(place / "node.xml")}
        with ControlPlane(place / "state", hosts, settings=settings) as running:
            yield running


async def test_a_lost_fleet_is_written_anew_and_no_guest_notices(plane: ControlPlane) -> None:
    async with Client(plane.url, plane.token) as client:
        bus = await nats.connect(
            f"nats://127.0.0.1:{plane.nats_port}",
            user="operator",
            password=(plane.state_dir / "credentials/operator.password").read_text().strip(),
        )
        try:
            await lose_and_rebuild(plane, client, bus)
        finally:
            await bus.close()


async def lose_and_rebuild(plane: ControlPlane, client: Client, bus: Nats) -> None:
    for name in VMS:
        await client.vms.create(spec(name), wait=WAIT_S)
    await client.vms.stop("web-2", mode="forced", wait=WAIT_S)
    await client.hosts.configure("h1", labels={"rack": "a"}, wait=WAIT_S)
    ids = {name: (await client.vms.get(name)).id for name in VMS}
    before = await bucket(bus)
    told = {name: await said(client, ids[name]) for name in VMS}
    assert len(before) == len(VMS) + 2

    await bus.jetstream().delete_stream("KV_FLEET")
    with pytest.raises(NotFoundError):
        await bus.jetstream().stream_info("KV_FLEET")

    async def is_made_again() -> bool:
        try:
            await bus.jetstream().stream_info("KV_FLEET")
        except NotFoundError:
            return False
        return True

    await until(is_made_again, "the scheduler has made the bucket again", timeout_s=WAIT_S)
    with pytest.raises((OperationFailed, NotFound)):
        await client.vms.start("web-2", wait=WAIT_S)

    foretold = plane.cli("fleet", "rebuild", "--dry-run")
    assert "3 VMs, 1 hosts" in foretold.stdout, foretold
    done = plane.cli("fleet", "rebuild")
    assert "5 entries written, 0 were there" in done.stdout, (done, plane.log_end(60))
    assert await bucket(bus) == before
    again = plane.cli("fleet", "rebuild")
    assert "0 entries written, 5 were there" in again.stdout, again
    assert await bucket(bus) == before

    # Nothing was done to any guest: what was said of each is its one life, and commands go on.
    await client.vms.start("web-2", wait=WAIT_S)
    await client.vms.create(spec("web-4"), wait=WAIT_S)
    await client.vms.delete("web-1", wait=WAIT_S)
    assert (await client.vms.get("web-2")).state == "running"
    assert await said(client, ids["web-3"]) == told["web-3"]
    for name in ("web-1", "web-2"):
        twice = await said(client, ids[name])
        assert twice["vireo.vm.defined.v1"] == told[name]["vireo.vm.defined.v1"]

    compared = plane.cli("inventory", "rebuild", "--compare-only")
    assert "4 vms" in compared.stdout, compared
    assert compared.stdout.rstrip().endswith("events: the same"), compared
    taken = plane.cli("inventory", "rebuild")
    assert taken.stdout.rstrip().endswith("events: the same"), taken
    assert (await client.vms.get("web-2")).state == "running"
    await client.vms.stop("web-2", mode="forced", wait=WAIT_S)
