"""One VM's whole life on real processes and a real guest, by the command line and the SDK."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from schemas.resources import Vm
from tests.fixtures.plane import (
    CREATED,
    MEMORY_MIB,
    Site,
    boot_moment,
    decoded,
    domain_of,
    qemu_of_vm,
    until,
)
from vireo import Client

LIFE = {
    "vm.create": CREATED,
    "vm.pause": ("vm.reassigned", "vm.paused"),
    "vm.resume": ("vm.reassigned", "vm.resumed"),
    "vm.reboot": ("vm.rebooted",),
    "vm.stop": ("vm.reassigned", "vm.stopped"),
    "vm.start": ("vm.reassigned", "vm.started"),
    "vm.delete": ("vm.reassigned", "vm.deleted"),
}
"""Every command and what its operation tells besides being accepted and succeeding."""


async def test_a_vm_lives_and_leaves_nothing(site: Site, client: Client) -> None:
    before = await site.last_sequence()
    site.cli("vm", "create", "story", "--image", "tiny", "--memory", f"{MEMORY_MIB}MiB", "--wait")
    vm = await client.vms.get("story")
    assert (vm.state, vm.power, vm.host in site.hosts) == ("running", "running", True)
    await _reports_an_address(client, vm)
    # Each isolated host has a subnet of its own.
    assert "addresses   192.168." in site.cli("vm", "show", "story")
    assert site.domains() == [(vm.host, domain_of(vm))]

    await _pauses_and_resumes(site, vm)
    await _reboots(site, client, vm)
    await _stops_and_starts(site, client, vm)

    site.cli("vm", "delete", "story", "--yes", "--wait")
    assert site.domains() == []
    assert site.files_of(vm.id) == []
    assert qemu_of_vm(vm) is None

    async def forgotten() -> bool:
        return await site.assignments(vm.id) == []

    await until(forgotten, "its assignment is gone")
    await _check_the_log(site, vm, after=before)


async def _reports_an_address(client: Client, vm: Vm) -> None:
    async def known() -> bool:
        guest = (await client.vms.get(vm.id)).guest
        return guest is not None and guest.addresses != () and guest.os == "Vireo Tiny Guest 1"

    await until(known, "the guest's address is known", 60)

    async def read() -> bool:
        guest = (await client.vms.telemetry(vm.id)).guest
        return guest is not None and None not in (
            guest.load1,
            guest.memory_total_kib,
            guest.uptime_s,
        )

    await until(read, "the guest tells of load, memory and uptime")


async def _pauses_and_resumes(site: Site, vm: Vm) -> None:
    domain = domain_of(vm)
    site.cli("vm", "pause", "story", "--wait")
    assert site.virsh(vm.host, "domstate", domain).strip() == "paused"
    assert decoded(site.cli("vm", "show", "story", "-o", "json"))["state"] == "paused"
    site.cli("vm", "resume", "story", "--wait")
    assert site.virsh(vm.host, "domstate", domain).strip() == "running"


async def _reboots(site: Site, client: Client, vm: Vm) -> None:
    """The same process goes on, the guest in it begins anew."""
    qemu, asked_at = qemu_of_vm(vm), datetime.now(UTC)
    assert await boot_moment(client, vm) < asked_at.timestamp()
    site.cli("vm", "reboot", "story", "--wait")

    async def booted_anew() -> bool:
        return await boot_moment(client, vm) > asked_at.timestamp()

    await until(booted_anew, "the guest's uptime begins again", 60)
    assert qemu_of_vm(vm) == qemu


async def _stops_and_starts(site: Site, client: Client, vm: Vm) -> None:
    domain = domain_of(vm)
    site.cli("vm", "stop", "story", "--wait")
    assert "shut off (shutdown)" in _state(site, vm), "a graceful stop lets the guest end by itself"
    assert site.virsh(vm.host, "domstate", domain).strip() == "shut off"
    site.cli("vm", "start", "story", "--wait")
    assert site.virsh(vm.host, "domstate", domain).strip() == "running"
    await client.vms.stop("story", mode="forced", wait=20)
    assert "shut off (destroyed)" in _state(site, vm)


def _state(site: Site, vm: Vm) -> str:
    return site.virsh(vm.host, "domstate", "--reason", domain_of(vm))


async def _check_the_log(site: Site, vm: Vm, *, after: int) -> None:
    """In Postgres as on the stream: every operation whole, each event once."""
    told = await site.check_nothing_lost(after=after)
    operations = await site.rows(
        "select id, command, phase from operations where target = $1 order by id", vm.id
    )
    assert [row["command"] for row in operations] == [
        *("vm.create", "vm.pause", "vm.resume", "vm.reboot"),
        *("vm.stop", "vm.start", "vm.stop", "vm.delete"),
    ]
    for row in operations:
        mine = [one for one in told if one.envelope.operation == str(row["id"])]
        names = Counter(one.name for one in mine if one.name != "vm.guest_changed")
        wanted = LIFE[row["command"]]
        if not isinstance(wanted, Counter):
            wanted = Counter(["operation.accepted", *wanted, "operation.succeeded"])
        assert (row["phase"], names) == ("succeeded", wanted), row["command"]
        assert {one.envelope.actor for one in mine} == {"token/admin"}
