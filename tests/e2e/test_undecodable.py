"""Bytes that say nothing, on every subject: they end as dead letters, or are counted, and stop nothing."""

from __future__ import annotations

import urllib.request

from chassis.deadletters import REASON, SUBJECT
from schemas import subjects
from schemas.ids import uuid7
from tests.fixtures.plane import Site, boot_moment, until
from vireo import Client

STRANGER = uuid7(1_767_225_600_000, b"nobodyhere")
GARBAGE = (b"", b"\xff\xfe\x00garbage", b"{", b"[]", b'{"specversion":"1.0"}')

LETTERS = {
    "vireo.cmd.default.vm.create": "vireo.dlq.COMMANDS.scheduler-default",
    "vireo.cmd.default.host.configure": "vireo.dlq.COMMANDS.scheduler-default",
    f"vireo.evt.default.h1.vm.{STRANGER}.started": "vireo.dlq.EVENTS.inventory",
    "vireo.evt.default.h1.host.h1.registered": "vireo.dlq.EVENTS.scheduler-default",
    "vireo.act.default.h1.vm.reboot_once": "vireo.dlq.ACTIONS.ACTIONS_h1",
    f"$KV.FLEET.vm.{STRANGER}.h1": "vireo.dlq.KV_FLEET.FLEET_h1",
}
"""What is written on → where its letters go. An event that two consumers read gives two."""

PASSED_OVER = ("vireo.tel.default.h1", "vireo.tel.default.no-such-host", "$KV.LEASES.h1")


async def test_nonsense_stops_nothing(site: Site, client: Client) -> None:
    vm = await site.created(client, "steady", host="h1")
    await boot_moment(client, vm)
    children = site.plane.children()
    known = len(await site.letters())
    garbled = _garbled(site)
    async with site.bus() as connection:
        js = connection.jetstream()
        for subject in LETTERS:
            for data in GARBAGE:
                await js.publish(subject, data)
        for subject in PASSED_OVER:
            for data in GARBAGE:
                await connection.publish(subject, data)
        for endpoint in ("inventory.vm.get", "metrics.host"):
            answer = await connection.request(f"vireo.svc.{endpoint}", b"\xff", timeout=5)
            assert (answer.headers or {}).get("Nats-Service-Error-Code") == "400"
        await connection.flush()

    async def all_there() -> bool:
        letters = (await site.letters())[known:]
        found = {((one.headers or {})[SUBJECT], one.subject) for one in letters}
        return found >= set(LETTERS.items())

    await until(all_there, "every bad message is a dead letter", 20)

    async def all_counted() -> bool:
        letters = (await site.letters())[known:]
        read = [(one.headers or {})[SUBJECT] for one in letters]
        # A key of FLEET keeps its last value only; an assignment without bytes is a removal.
        return all(
            read.count(subject) >= len(GARBAGE) for subject in LETTERS if "FLEET" not in subject
        )

    await until(all_counted, "none is lost", 20)
    assert all((one.headers or {})[REASON] for one in (await site.letters())[known:])
    assert _garbled(site) >= garbled + len(GARBAGE)
    try:
        new = await site.created(client, "new", host="h1")
        await boot_moment(client, new)
        assert site.plane.children() == children, "nothing was restarted"
        assert (await client.vms.get(vm.id)).state == "running"
    finally:
        async with site.bus() as connection:
            bucket = await connection.jetstream().key_value(subjects.KV_FLEET)
            await bucket.purge(f"vm.{STRANGER}.h1")


def _garbled(site: Site) -> float:
    """Frames that could not be read, as the metrics service counts them for Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{site.plane.prometheus_port}/metrics") as answer:
        text = answer.read().decode()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if 'outcome="garbled"' in line
    )
