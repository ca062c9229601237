"""Plans on real processes: by HTTP, by the SDK and on the command line, and refused once they are stale."""

from __future__ import annotations

from pathlib import Path

import msgspec

from schemas.plans import Plan
from tests.fixtures.plane import BOOT_S, Site, spec_of
from vireo import Client


async def test_plans_are_made_saved_compared_and_refused_when_the_fleet_has_changed(
    site: Site, client: Client, tmp_path: Path
) -> None:
    full, empty = sorted(site.hosts)
    await client.hosts.configure(empty, maintenance=True, wait=BOOT_S)
    for name in ("plan-1", "plan-2"):
        await client.vms.create(spec_of(name, power="stopped"), wait=BOOT_S)
    await client.hosts.configure(empty, maintenance=False, wait=BOOT_S)
    before = await site.last_sequence()

    file = tmp_path / "drain.json"
    shown = site.cli("host", "drain", "plan", full, "--save", str(file))
    assert f"drain plan: 2 moves empty {full}" in shown
    drained = msgspec.json.decode(file.read_bytes(), type=Plan)
    assert sorted((move.name, move.to_host) for move in drained.moves) == [
        *(("plan-1", empty), ("plan-2", empty)),
    ]
    assert "holds: 2 moves empty" in site.cli("plan", "check", str(file))

    balanced = await client.plans.balance(start=0, stop=0)
    assert [(move.from_host, move.to_host) for move in balanced.moves] == [(full, empty)]
    assert balanced.after.total < balanced.before.total
    other = tmp_path / "balance.json"
    other.write_bytes(msgspec.json.encode(balanced))
    difference = site.plane.cli("plan", "diff", str(file), str(other))
    assert (difference.returncode, difference.stdout.count("\n-  ")) == (1, 1)
    assert await site.last_sequence() == before, "plans leave nothing behind"

    await client.vms.stop("plan-1", wait=BOOT_S)
    refused = site.plane.cli("plan", "check", str(file))
    assert refused.returncode == 5
    assert "vm plan-1  its assignment has changed" in refused.stderr
