"""Several VMs by one command on real processes: all made, refused as a gang, held to a project's quota."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from schemas.definitions import Project, Quota
from schemas.resources import Operation
from schemas.rules import Affinity, HostRules
from tests.fixtures.plane import BOOT_S, Site, spec_of
from vireo import Client, OperationFailed

APART = HostRules(anti_affinity=(Affinity(labels={"app": "gang"}),))


async def test_several_vms_are_made_a_gang_is_refused_as_a_whole_and_a_quota_holds(
    site: Site, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "vm.json"
    apart = spec_of("gang", power="stopped", labels={"app": "gang"}, on=APART)
    file.write_bytes(msgspec.json.encode(apart))

    said = site.cli("vm", "create", "gang", "-f", str(file), "--count", "2", "--gang")
    assert sorted(line.split()[1] for line in said.splitlines()) == ["gang-1:", "gang-2:"]
    hosts = {(await client.vms.get(f"gang-{number}")).host for number in (1, 2)}
    assert hosts == set(site.hosts)

    with pytest.raises(OperationFailed) as refused:
        await client.vms.create_many(apart, names=("gang-3", "gang-4"), gang=True, wait=BOOT_S)
    assert refused.value.problem.type == "urn:vireo:problem:unplaceable"
    assert {vm.spec.name async for vm in client.vms.list()} == {"gang-1", "gang-2"}

    foretold = site.plane.cli("vm", "create", "more", "-f", str(file), "--count", "2", "--dry-run")
    assert foretold.returncode == 1
    assert "2 by anti_affinity" in foretold.stdout

    await client.projects.apply(Project(name="small", quota=Quota(vms=1)), wait=BOOT_S)
    within = await client.vms.create_many(
        spec_of("quota", power="stopped", project="small"), count=2, wait=BOOT_S
    )
    assert within.latest.detail == "1 of 2 VMs are placed"
    first, second = within.members
    await first
    with pytest.raises(OperationFailed) as over:
        await second
    assert over.value.problem.type == "urn:vireo:problem:quota-exceeded"
    operation: Operation = await client.operations.get(second.id)
    assert (operation.command, operation.phase) == ("vm.create", "failed")
    await client.vms.delete("quota-1", wait=BOOT_S)
    await client.projects.remove("small", wait=BOOT_S)
    for name in ("gang-1", "gang-2"):
        await client.vms.delete(name, wait=BOOT_S)
