"""The record as people use it on real processes: searched, as a tree, as it was, and what changed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from tests.fixtures.plane import BOOT_S, Site
from vireo import Client, Invalid, NotFound


async def test_what_was_asked_is_found_again_and_the_fleet_is_seen_as_it_was(
    site: Site, client: Client
) -> None:
    before = await passed(site)
    vm = await site.created(client, "searched", power="stopped")
    created = await passed(site)
    deletion = await client.vms.delete(vm.id, wait=BOOT_S)

    assert vm.operation is not None
    log = site.cli("audit", "log", "--vm", vm.id, "--oldest", "--type", "vm.defined")
    assert [line.split()[2] for line in log.splitlines()[1:]] == ["vm.defined"]
    assert log == site.cli("audit", "log", "--vm", "searched", "--oldest", "--type", "vm.defined")
    found = json.loads(
        site.cli("audit", "log", "--actor", "token/admin", "--operation", deletion.id, "-o", "json")
    )
    assert {event["operation"] for event in found} == {deletion.id}
    assert found[-1]["type"] == "vireo.operation.accepted.v1"
    nothing = site.cli("audit", "log", "--kind", "vm", "--vm", vm.id, "--until", before.isoformat())
    assert len(nothing.splitlines()) == 1

    tree = site.cli("audit", "show", vm.operation)
    assert f"vm.create  vm/{vm.id}  succeeded, by token/admin" in tree
    assert "─ vm.scheduled  scheduler" in tree

    then = created.isoformat()
    assert "searched" in site.cli("vm", "list", "--at", then)
    shown = json.loads(site.cli("vm", "show", "searched", "--at", then, "-o", "json"))
    assert (shown["id"], shown["state"], shown["spec"]["name"]) == (vm.id, "stopped", "searched")
    assert "searched" in site.cli("vm", "why", "searched", "--at", then)
    assert vm.host in site.cli("host", "list", "--at", then)
    assert (await client.hosts.get(vm.host, at=created)).vms == 1
    assert (await client.operations.get(vm.operation, at=created)).phase == "succeeded"
    assert deletion.id not in [each.id async for each in client.operations.list(at=created)]
    with pytest.raises(NotFound):
        await client.vms.get(vm.id, at=before)
    with pytest.raises(NotFound):
        await client.vms.get("searched")
    with pytest.raises(Invalid) as refused:
        await client.vms.get(vm.id, at=datetime(2999, 1, 1, tzinfo=UTC))
    assert [error.field for error in refused.value.problem.errors] == ["query/at"]

    came = [change async for change in client.audit.changes(since=before, until=created)]
    assert [(each.change, each.by[0].command) for each in came if each.id == vm.id] == [
        ("created", "vm.create")
    ]
    said = site.cli("diff", "--from", then)
    assert [line.split()[1:3] for line in said.splitlines() if "searched" in line] == [
        ["searched", "deleted"]
    ]


async def passed(site: Site) -> datetime:
    """A time before which all is stored that was told until now, and nothing after."""
    (row,) = await site.rows("select clock_timestamp() as at")
    at: datetime = row["at"]
    await asyncio.to_thread(site.cli, "version")
    return at
