"""One request is one trace: from the gateway's answer to libvirt's calls and the inventory's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tests.fixtures.plane import Site, until
from vireo import Client


def spans_of(file: Path) -> list[dict[str, Any]]:
    """Every span that is written whole."""
    lines = file.read_bytes().splitlines(keepends=True)
    return [msgspec.json.decode(line) for line in lines if line.endswith(b"\n")]


async def test_a_create_is_one_trace(site: Site, client: Client) -> None:
    before = await site.last_sequence()
    vm = await site.created(client, "traced", host="h1")
    told = await site.check_nothing_lost(after=before)
    (traceparent,) = {one.envelope.traceparent for one in told if one.name == "operation.accepted"}
    assert traceparent is not None
    trace = traceparent.split("-")[1]
    events = [one for one in told if one.envelope.operation == vm.operation]
    assert {(one.envelope.traceparent or "").split("-")[1] for one in events} == {trace}

    async def complete() -> bool:
        return {"gateway", "scheduler", "hostagent", "inventory"} <= {s["service"] for s in mine()}

    def mine() -> list[dict[str, Any]]:
        found = spans_of(site.plane.state_dir / "traces.jsonl")
        return [span for span in found if span["trace_id"] == trace]

    await until(complete, "every service has written its spans", 10)
    spans = mine()
    by_id = {span["span_id"]: span for span in spans}
    roots = [span for span in spans if span["parent_id"] not in by_id]
    assert [(span["service"], span["kind"]) for span in roots] == [("gateway", "server")]
    agent = {span["name"] for span in spans if span["service"] == "hostagent"}
    assert {"hypervisor.create_disk", "hypervisor.define", "hypervisor.start"} <= agent
    assert {span["status"] for span in spans} <= {"unset", "ok"}
    for span in spans:
        if span["parent_id"] in by_id:
            assert span["start_ns"] >= by_id[span["parent_id"]]["start_ns"]
